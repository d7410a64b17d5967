//! Storing, driving and reporting runs. Uses the training layer, but neither wgpu nor a window.

pub mod bench;
mod ending;
mod error;
pub mod figure;
pub mod gates;
pub mod host;
pub mod identity;
pub mod import;
pub mod matched;
pub mod memory;
mod opening;
pub mod overview;
pub mod plot;
pub mod probe;
mod publisher;
mod rate;
pub mod reader;
pub mod repeats;
pub mod report;
pub mod run_folder;
pub mod session;
pub mod statistics;
pub mod store;
pub mod verdict;
