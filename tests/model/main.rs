//! Whole models: against PyTorch, against themselves, and against what must be true of any of them.

mod faults;
mod harness;
mod hugging_face;
mod hugging_face_refused;
mod oracle;
mod probe;
mod sanity;
mod twin;
