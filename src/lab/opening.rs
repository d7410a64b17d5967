//! The inputs for opening a run, and the initial files of its folder.

use std::error::Error;

use super::{
    figure::Figure,
    files::{EFFECTIVE_CONFIG, TOKENIZER},
    publisher::Clock,
    store::Store,
};
use crate::{run::summary::Baselines, train::trainer::Trainer};

/// The inputs of a session.
pub struct Opening {
    /// The trainer of the run's config, data and device, before its first update.
    pub trainer: Trainer,
    /// The store of the run folder.
    pub store: Box<dyn Store>,
    /// Distinguishes processes; valid in a file name.
    pub tag: String,
    /// Seconds since any fixed moment.
    pub clock: Clock,
    /// Reference values for the run's losses ([`Fit`](crate::data::baselines::Fit)).
    pub baselines: Option<Baselines>,
    /// Renders a figure as PNG, if the environment can.
    pub rasterize: Option<Rasterize>,
    /// The run's name, for its report.
    pub name: String,
}

/// Starts to render a figure as PNG.
pub type Rasterize = fn(Figure) -> Box<dyn Raster>;

/// A figure that is being rendered as PNG. One implementation: the native front ends', where a page has no need of one.
pub trait Raster {
    /// Continues for a few milliseconds; returns the file when it is complete.
    ///
    /// # Errors
    /// A figure that is too large, or a fault of the encoder. Not to be called again.
    fn proceed(&mut self) -> Result<Option<Vec<u8>>, RasterError>;
}

/// Why a figure cannot be rendered.
pub type RasterError = Box<dyn Error + Send + Sync>;

/// The initial files of a run folder.
pub(super) fn start_files<'a>(effective: &'a str, tokenizer: Option<&'a str>) -> Vec<(&'a str, &'a [u8])> {
    let tokenizer = tokenizer.map(|tokenizer| (TOKENIZER, tokenizer.as_bytes()));
    [(EFFECTIVE_CONFIG, effective.as_bytes())].into_iter().chain(tokenizer).collect()
}

/// The config with all defaults, after a comment with versions, adapter and hashes.
pub(super) fn effective_config(trainer: &Trainer) -> String {
    let (config, device, corpus) = (trainer.config(), trainer.device(), trainer.corpus());
    format!(
        "# Every setting of this run. Written by moelab {}; the same file trains the same run.\n# adapter    {} ({})\n# config     sha256 {}\n# data       sha256 {}\n# tokenizer  sha256 {}\n\n{}",
        env!("CARGO_PKG_VERSION"),
        device.adapter.name,
        device.adapter.driver,
        config.hash(),
        corpus.hash(),
        corpus.tokenizer_hash(),
        config.to_effective_toml()
    )
}
