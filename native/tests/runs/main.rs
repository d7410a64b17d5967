//! Runs on a real disk, on a thread of their own and behind a server, pictures, and what the terminal says.

#[path = "../../../tests/helpers/checkpoints.rs"]
mod checkpoints;
#[path = "../../../tests/helpers/log.rs"]
mod log;
#[path = "../../../tests/lab/runs.rs"]
mod runs;

mod archive;
mod device_loss;
mod directory;
mod long_run;
mod raster;
mod runner;
mod serve;
mod terminal;
mod workspace;
