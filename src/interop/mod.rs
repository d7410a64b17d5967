//! Models of others: Hugging Face folders, in both directions.

pub mod around;
pub mod hugging_face;
