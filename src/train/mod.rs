//! Training: the trainer, its optimizers and checkpoints, and text generation. No files, no clocks.

pub mod builder;
pub mod checkpoint;
mod checkpoint_values;
pub mod encoder;
pub mod engine;
mod error;
pub mod generate;
mod micro_batches;
mod optimizer;
pub mod recording;
mod reduce;
pub(crate) mod tensor_file;
pub mod trainer;
pub mod tuning;
pub(crate) mod validation;

pub use error::TrainError;
