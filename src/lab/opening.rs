//! The inputs for opening a run: its config and tokenizer, and the initial files of its folder.

use std::error::Error;

use super::{
    figure::Figure,
    files::{EFFECTIVE_CONFIG, TOKENIZER, check_start_files},
    publisher::Clock,
    store::{Store, StoreError},
};
use crate::{
    config_file::Unreadable,
    data::{Corpus, tokenizer::Tokenizer},
    run::{Config, config, protocol::Problem, summary::Baselines},
    train::{generate::Prompt, trainer::Trainer},
};

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

/// Name of a config in problems with it.
const CONFIG: &str = "config.toml";

/// The config in a text, with changes to single keys of it.
pub(super) fn sent_config(text: &str, sets: &[String]) -> Result<Config, Problem> {
    let reader = |path: &str| match path {
        CONFIG => Ok(text.to_string()),
        _ => Err(Unreadable::from("the config must refer to no other file")),
    };
    Ok(config::load(&reader, CONFIG, sets)?)
}

/// The config of a run, with changes to single keys of it.
pub(super) fn own_config(store: &dyn Store, sets: &[String]) -> Result<Config, Problem> {
    check_start_files(store)?;
    let bytes = store.read(EFFECTIVE_CONFIG)?.ok_or(StoreError::Unstarted { missing: EFFECTIVE_CONFIG })?;
    sent_config(&String::from_utf8_lossy(&bytes), sets)
}

/// The tokenizer in a run folder, if it has one.
pub(super) fn own_tokenizer(store: &dyn Store, run: &str) -> Result<Option<Tokenizer>, Problem> {
    let Some(bytes) = store.read(TOKENIZER)? else { return Ok(None) };
    match Tokenizer::from_json(&bytes) {
        Ok(tokenizer) => Ok(Some(tokenizer)),
        Err(error) => Err(Problem { place: Some(TOKENIZER.into()), ..Problem::new(format!("{run}/{TOKENIZER}: {error}")) }),
    }
}

/// Refuses prompts that could not be sampled from at the end of the run.
pub(super) fn check_prompts(config: &Config, corpus: &Corpus) -> Result<(), Problem> {
    let Some(tokenizer) = corpus.tokenizer() else { return Ok(()) };
    let problem = |(at, text): (usize, &String)| Prompt::new(config, tokenizer, text).err().map(|e| format!("sample.prompts[{at}]: {e}"));
    let problems: Vec<_> = config.sample.prompts.iter().enumerate().filter_map(problem).collect();
    if problems.is_empty() { Ok(()) } else { Err(Problem::new(problems.join("\n       "))) }
}
