//! What a run is, as plain data: its config with the rules that hold it together, schedules, state, series, records, summary.
//!
//! Needs no GPU, no tokenizer and no file: it compiles without the feature `engine`, so that a front end that only shows or
//! configures runs links none of them.

pub mod alarms;
pub mod arrays;
pub mod config;
pub mod digest;
pub mod exact;
pub mod identity;
pub mod model;
pub mod protocol;
pub mod quote;
pub mod records;
pub mod schedule;
pub mod series;
pub mod state;
pub mod summary;

pub use config::Config;
pub use model::ModelConfig;
