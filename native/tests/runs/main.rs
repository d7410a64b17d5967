//! Runs on a real disk, pictures, and what the terminal says.

#[path = "../../../tests/lab/runs.rs"]
mod runs;

mod directory;
mod raster;
mod terminal;
