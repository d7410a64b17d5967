//! What a run leaves behind: checkpoints, the run folder under faults, metrics, the plot and the report.

mod checkpoint;
mod crash;
mod disk;
mod folders;
mod gates;
mod metrics;
mod plot;
mod prompts;
mod reader;
mod report;
mod run_folder;
mod runs;
