//! `moelab export` and `moelab import`: model folders in the format of Hugging Face transformers. The core crate interprets their files.

mod export;
mod import;
mod model_folder;

pub use export::{ExportArgs, export};
pub use import::{ImportArgs, import};
