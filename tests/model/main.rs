//! Whole models: against PyTorch, against themselves, and against what must be true of any of them.

#[path = "../helpers/checkpoints.rs"]
mod checkpoints;
mod configs;
#[path = "../config/ends.rs"]
mod ends;
mod faults;
mod harness;
mod hugging_face;
mod hugging_face_refused;
mod hugging_face_variants;
mod idle_experts;
#[path = "../helpers/log.rs"]
mod log;
mod oracle;
mod pairwise;
mod precision;
mod probe;
mod published_size;
mod ranges;
mod real_tokens;
mod routing;
mod sampling;
mod sanity;
mod session;
#[path = "../helpers/skipped.rs"]
mod skipped;
mod trainer;
mod tuned;
mod twin;
