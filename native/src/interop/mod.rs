//! `moelab export` and `moelab import`: models in folders as Hugging Face transformers has them. What their files mean is for the core.

mod export;
mod import;
mod model_folder;

pub use export::{ExportArgs, export};
pub use import::{ImportArgs, import};
