//! Storing, driving and reporting runs. Uses the training layer, but neither wgpu nor a window.
//!
//! What reads and shows runs compiles without the feature `engine`; what trains, or writes checkpoints, needs it.

pub mod archive;
pub mod audit;
#[cfg(feature = "engine")]
pub mod audit_device;
#[cfg(feature = "engine")]
pub mod bench;
pub mod chart;
pub mod compare;
#[cfg(feature = "engine")]
mod ending;
#[cfg(feature = "engine")]
mod error;
pub mod escape;
pub mod evaluation;
pub mod export;
pub mod figure;
pub mod files;
#[cfg(feature = "engine")]
pub mod footprint;
pub mod gates;
#[cfg(feature = "engine")]
pub mod host;
#[cfg(feature = "engine")]
pub mod identity;
#[cfg(feature = "engine")]
pub mod import;
#[cfg(feature = "engine")]
mod inspection;
pub mod log;
pub mod lr_range;
pub mod matched;
pub mod matching;
pub mod measured;
pub mod memory;
#[cfg(feature = "engine")]
mod opening;
pub mod overview;
pub mod plot;
#[cfg(feature = "engine")]
pub mod probe;
pub mod process;
#[cfg(feature = "engine")]
mod publisher;
pub mod rate;
pub mod reader;
#[cfg(feature = "engine")]
mod recovery;
pub mod repeats;
pub mod report;
pub mod results;
#[cfg(feature = "engine")]
mod routes;
#[cfg(feature = "engine")]
pub mod run_folder;
#[cfg(feature = "engine")]
pub mod session;
#[cfg(feature = "engine")]
pub mod speed_probe;
pub mod statistics;
pub mod store;
pub mod stored_log;
pub mod study_report;
pub mod suite;
#[cfg(feature = "engine")]
pub mod suite_host;
#[cfg(feature = "engine")]
mod text;
pub mod trials;
pub mod verdict;
pub mod workspace;
#[cfg(feature = "engine")]
pub mod workspace_host;
