//! The native front end of moelab: folders, the terminal, images. The logic is in the core crate.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod atomic;
pub mod fault;
pub mod input;
pub mod print;
pub mod raster;
pub mod runner;
pub mod store;
pub mod terminal;
