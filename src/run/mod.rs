//! A run as plain data: its config with validation rules, schedules, state, checkpoints, series, records, summary, and the
//! commands and events that drive it.
//!
//! Needs neither a GPU nor tokenizers nor files: it compiles without the feature `engine`, so that front ends that only show or
//! configure runs do not link them.

pub mod alarms;
pub mod arrays;
pub mod checkpoint;
pub mod config;
pub mod digest;
pub mod exact;
pub mod gates;
pub mod identity;
pub mod model;
pub mod protocol;
pub mod quote;
pub mod records;
pub mod routing;
pub mod routing_alarms;
pub mod schedule;
pub mod series;
pub mod state;
pub mod suite;
pub mod summary;

pub use config::Config;
pub use model::ModelConfig;
