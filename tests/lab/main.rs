//! What a run leaves behind: checkpoints, the run folder under faults, metrics, the plot and the report; and what runs show together: statistics,
//! verdicts, repeats.

mod charts;
mod checkpoint;
#[path = "../helpers/checkpoints.rs"]
mod checkpoints;
mod crash;
mod disk;
mod exports;
mod folders;
mod gates;
#[path = "../helpers/log.rs"]
mod log;
mod lr_range;
mod matched;
mod matching;
mod metrics;
mod plot;
mod prompts;
mod reader;
mod repeats;
mod report;
mod run_folder;
mod runs;
mod statistics;
mod stored_log;
mod study_report;
mod suite_host;
mod suites;
#[path = "../helpers/tiny_study.rs"]
mod tiny_study;
mod trials;
mod tune;
mod verdict;
