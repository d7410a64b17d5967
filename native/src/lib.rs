//! The native front end of moelab: folders, the terminal, images. The logic is in the core crate.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod atomic;
mod cache;
pub mod corpus;
#[cfg(feature = "app")]
pub mod desk;
pub mod door;
pub mod fault;
mod files;
pub mod folders;
pub mod input;
mod json_rows;
pub mod machine;
#[cfg(feature = "parquet")]
mod parquet_rows;
mod paths;
pub mod places;
pub mod print;
pub mod problem;
pub mod raster;
pub mod runner;
pub mod store;
pub mod terminal;
mod ticker;
