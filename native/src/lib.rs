//! The native doors of moelab: directories, the terminal, pictures. Logic lives in the core.
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod atomic;
pub mod fault;
pub mod input;
pub mod print;
pub mod raster;
pub mod runner;
pub mod store;
pub mod terminal;
