//! Floor 4: data, schedules, optimizers, the trainer and its checkpoints. No files, no clocks, no target questions.

pub mod alarms;
pub mod baselines;
pub mod checkpoint;
mod checkpoint_error;
pub mod config;
pub mod corpus;
pub mod data;
mod data_error;
pub mod digest;
pub mod embedded;
mod error;
pub mod exact;
pub mod generate;
pub mod hugging_face;
pub mod identity;
pub mod language;
pub mod metrics;
mod optimizer;
pub mod recording;
pub mod schedule;
pub mod shards;
pub mod state;
mod tensor_file;
pub mod tokenizer;
pub mod trainer;

pub use config::Config;
pub use corpus::Corpus;
pub use error::TrainError;
