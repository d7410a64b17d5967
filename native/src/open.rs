//! From files and flags to a config, a device and data.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Result, bail};
use clap::ValueEnum;
use moelab::{
    config_file::MAX_BYTES,
    gpu::{Device, Tier},
    lab::session::{EFFECTIVE_CONFIG, TOKENIZER},
    train::{
        Config, Corpus,
        config::{DataKind, TokenizerKind, load},
        tokenizer::Tokenizer,
    },
};

use crate::{
    Common, ConfigArgs,
    corpus::{Purpose, dataset, tokenizer_file},
};

/// Where tokenized text is kept between runs, below the current folder.
const CACHE: &str = ".cache/tokens";

/// A tier on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TierName {
    Portable,
    Cpu,
}

impl From<TierName> for Tier {
    fn from(name: TierName) -> Tier {
        match name {
            TierName::Portable => Tier::Portable,
            TierName::Cpu => Tier::Cpu,
        }
    }
}

/// Reads a config with its changes.
pub fn config(args: &ConfigArgs) -> Result<Config> {
    let (read, path) = (|path: &str| read_text(Path::new(path)), args.config.display().to_string());
    if !args.reduced {
        return Ok(load(&read, &path, &args.sets)?);
    }
    // What is set on the command line holds for the reduced config.
    let text = load(&read, &path, &[])?.reduced().to_effective_toml();
    Ok(load(&|_| Ok(text.clone()), &path, &args.sets)?)
}

/// Reads the effective config of a run.
pub fn config_of_run(run: &Path) -> Result<Config> {
    config(&ConfigArgs { config: run.join(EFFECTIVE_CONFIG), sets: Vec::new(), reduced: false })
}

/// A config's text, no more of it than a config may have.
pub fn read_text(path: &Path) -> Result<String, String> {
    let file = fs::File::open(path).map_err(|e| e.to_string())?;
    let mut text = String::new();
    file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    Ok(text)
}

/// Opens the chosen adapter.
pub fn device(common: &Common) -> Result<Device> {
    Ok(pollster::block_on(Device::open(&common.adapter.clone().unwrap_or_default()))?)
}

/// Tells this process from others in file names.
pub fn tag() -> String {
    std::process::id().to_string()
}

/// Seconds since now.
pub fn clock() -> Box<dyn Fn() -> f64> {
    let start = Instant::now();
    Box::new(move || start.elapsed().as_secs_f64())
}

/// Fills in the vocabulary where it follows from the tokenizer and no text has to be read for it.
pub fn resolve_vocabulary(config: &mut Config) -> Result<()> {
    if config.model.vocabulary == 0 {
        config.model.vocabulary = match config.data.tokenizer.known_vocabulary() {
            Some(vocabulary) => vocabulary,
            None => tokenizer_file(Path::new(&config.data.tokenizer.path))?.vocabulary(),
        };
    }
    Ok(())
}

/// Evaluates on other text than the run's, all of it.
pub fn evaluate_on(config: &mut Config, path: &str) {
    config.data.kind = DataKind::Text;
    config.data.paths = vec![path.to_string()];
    (config.data.max_documents, config.data.max_document_characters, config.data.max_tokens) = (0, 0, 0);
    config.train.evaluation.windows = 0;
}

/// The data of a config, and the config with its vocabulary filled in. A run's own tokenizer is used where there is one.
pub fn corpus(config: Config, run: Option<&Path>, purpose: Purpose) -> Result<(Config, Corpus)> {
    let own = run.map(|run| run.join(TOKENIZER)).filter(|path| path.exists());
    let own = own.map(|path| tokenizer_file(&path)).transpose()?;
    corpus_with(config, own, purpose)
}

/// The tokenizer that a config states, which is not one that is trained.
pub fn tokenizer(config: &Config) -> Result<Tokenizer> {
    match config.data.tokenizer.kind {
        TokenizerKind::File => tokenizer_file(Path::new(&config.data.tokenizer.path)),
        TokenizerKind::Bytes => Ok(Tokenizer::bytes()),
        TokenizerKind::Bpe => bail!("data.tokenizer.kind is \"bpe\", wanted one that is there already"),
    }
}

/// As [`corpus`], with `own` in place of the config's tokenizer.
pub fn corpus_with(mut config: Config, own: Option<Tokenizer>, purpose: Purpose) -> Result<(Config, Corpus)> {
    let dataset = dataset(&config, own, purpose, Path::new(CACHE))?;
    let found = dataset.tokenizer().vocabulary();
    if config.model.vocabulary == 0 {
        config.model.vocabulary = found;
    }
    if config.model.vocabulary < found {
        bail!("model.vocabulary is {}, the tokenizer has {found} ids: leave it out to take the tokenizer's", config.model.vocabulary);
    }
    Ok((config, Corpus::Dataset(Box::new(dataset))))
}

/// The name of a run: that of its folder.
pub fn name(folder: &Path) -> String {
    let canonical: PathBuf = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
    canonical.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|| "run".into())
}
