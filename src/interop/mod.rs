//! Interoperability with other model formats: Hugging Face folders, in both directions.

pub mod around;
pub mod hugging_face;
