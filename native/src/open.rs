//! From files and flags to a config, a device and data.

use std::path::Path;

use anyhow::{Context, Result};
use clap::ValueEnum;
use moelab::{
    config_file::{MAX_BYTES, Unreadable},
    data::{
        Corpus,
        prepare::{self, Purpose},
        tokenizer::Tokenizer,
    },
    gpu::{Capabilities, Device},
    lab::files::{EFFECTIVE_CONFIG, check_start_files},
    run::{Config, config::load},
};
pub use moelab_native::machine::{clock, name, tag};
use moelab_native::{
    corpus::{self, Files, tokenizer_file},
    input, machine, print,
    store::Directory,
};

use crate::{Common, ConfigArgs};

/// A tier on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TierName {
    Portable,
    Cpu,
    Matrices,
}

impl From<TierName> for Capabilities {
    fn from(name: TierName) -> Capabilities {
        match name {
            TierName::Portable => Capabilities::PORTABLE,
            TierName::Cpu => Capabilities::CPU,
            TierName::Matrices => Capabilities::MATRICES,
        }
    }
}

/// Reads a config with its overrides.
pub fn config(args: &ConfigArgs) -> Result<Config> {
    let (read, path) = (|path: &str| read_text(Path::new(path)), args.config.display().to_string());
    if !args.reduced {
        return Ok(load(&read, &path, &args.sets)?);
    }
    // Overrides apply to the reduced config.
    let text = load(&read, &path, &[])?.reduced().to_effective_toml();
    Ok(load(&|_| Ok(text.clone()), &format!("{path}, reduced"), &args.sets)?)
}

/// Reads the effective config of a run, with overrides.
pub fn config_of_run(run: &Path, sets: &[String]) -> Result<Config> {
    check_start_files(&Directory::read_only(run).with_context(|| print::path(run))?)?;
    config(&ConfigArgs { config: run.join(EFFECTIVE_CONFIG), sets: sets.to_vec(), reduced: false })
}

/// Reads a config's text, of limited size.
pub fn read_text(path: &Path) -> Result<String, Unreadable> {
    let bytes = input::read(path, MAX_BYTES as u64).map_err(|e| e.to_string())?;
    String::from_utf8(bytes).map_err(|e| e.to_string().into())
}

/// Opens the chosen adapter.
pub fn device(common: &Common) -> Result<Device> {
    machine::device(&common.resources().adapter)
}

/// The data of a config, and the config with its vocabulary filled in. `own` replaces the config's tokenizer.
pub fn corpus(common: &Common, config: Config, own: Option<Tokenizer>) -> Result<(Config, Corpus)> {
    corpus::announce(&config);
    Ok(prepare::corpus(config, own, Purpose::Train, &files(common))?)
}

/// Fills in the vocabulary if it follows from the tokenizer without reading any text.
pub fn fill_vocabulary(config: &mut Config) -> Result<()> {
    prepare::fill_vocabulary(config, |path| tokenizer_file(Path::new(path)))
}

/// The files of a config.
pub fn files(common: &Common) -> Files {
    Files::new(&common.cache)
}
