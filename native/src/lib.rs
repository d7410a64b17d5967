//! The native doors of moelab: directories, the terminal, pictures. Logic lives in the core.

pub mod atomic;
pub mod fault;
pub mod raster;
pub mod store;
pub mod terminal;
