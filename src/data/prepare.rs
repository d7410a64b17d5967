//! From a config to a corpus: reads documents, loads or trains a tokenizer, packs and caches tokens.
//!
//! This module decides what to derive from what; a [`Source`] opens files, caches entries and reports to the user. Cache keys are
//! the SHA-256 of all documents as read, of the tokenizer, and of the limits, so that entries are never stale.

use std::error::Error;

use super::{
    Corpus, DataError,
    dataset::{Dataset, Split, language_texts},
    shards::{Shard, digest},
    tokenizer::{LONGEST_TRAINED_WORD, Tokenizer},
};
use crate::run::{
    Config,
    config::{Data, DataKind, TokenizerKind},
};

/// Maximum bytes of text to train a tokenizer on: 64 MB, from the first training documents.
const MAX_TRAINING_TEXT: usize = 64_000_000;

/// The use of the documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Split into training and validation.
    Train,
    /// All of them are validation.
    Evaluate,
}

/// Why a corpus cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The data or their options are invalid.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The source failed.
    #[error(transparent)]
    Source(Box<dyn Error + Send + Sync>),
}

/// Provided by a front end: files, a cache, and messages to the user.
pub trait Source {
    /// Calls `take` with each document of `data.paths`, in order, until it returns false. Called twice if a tokenizer is trained.
    ///
    /// # Errors
    /// Files that cannot be read, and errors of `take`.
    fn documents(&self, data: &Data, take: &mut dyn FnMut(&str) -> Result<bool, PrepareError>) -> Result<(), PrepareError>;

    /// The packed tokens of `data.paths`, joined in order.
    ///
    /// # Errors
    /// Files that cannot be read or joined.
    fn shard(&self, data: &Data) -> Result<Shard, PrepareError>;

    /// The tokenizer in a file.
    ///
    /// # Errors
    /// A file that cannot be read or is not a tokenizer.
    fn tokenizer(&self, path: &str) -> Result<Tokenizer, PrepareError>;

    /// The state of the files of a config, if it has any: as long as it stays the same, so do their contents.
    ///
    /// # Errors
    /// Files that cannot be found.
    fn stamp(&self, _data: &Data) -> Result<Vec<u8>, PrepareError> {
        Ok(Vec::new())
    }

    /// The cached tokenizer for the key `made_from`, if there is one.
    fn trained_tokenizer(&self, _made_from: &[&[u8]]) -> Option<Tokenizer> {
        None
    }

    /// Caches a trained tokenizer, if possible.
    fn keep_trained_tokenizer(&self, _made_from: &[&[u8]], _tokenizer: &Tokenizer) {}

    /// The cached tokens of `tokenizer` for the key `made_from`, if there are any.
    fn tokens(&self, _made_from: &[&[u8]], _tokenizer: &Tokenizer) -> Option<Shard> {
        None
    }

    /// Caches tokens, if possible.
    fn keep_tokens(&self, _made_from: &[&[u8]], _shard: &Shard) {}

    /// A long operation starts, over `bytes` bytes if known; it ends when the next one starts, or with [`Source::done`].
    fn begin(&self, _what: &'static str, _bytes: Option<u64>) {}

    /// Reports progress by a number of bytes.
    fn advance(&self, _bytes: usize) {}

    /// The long operation has ended.
    fn done(&self) {}

    /// A warning for the user.
    fn warn(&self, text: String);
}

/// A source without files, for the embedded language.
pub struct NoFiles;

fn no_files<T>(key: &str, wanted: &str) -> Result<T, PrepareError> {
    Err(DataError::Options(format!("{key}: expected {wanted}, as there are no files")).into())
}

impl Source for NoFiles {
    fn documents(&self, _: &Data, _: &mut dyn FnMut(&str) -> Result<bool, PrepareError>) -> Result<(), PrepareError> {
        no_files("data.kind", "\"language\"")
    }

    fn shard(&self, _: &Data) -> Result<Shard, PrepareError> {
        no_files("data.kind", "\"language\"")
    }

    fn tokenizer(&self, _: &str) -> Result<Tokenizer, PrepareError> {
        no_files("data.tokenizer.kind", "\"bytes\" or \"bpe\"")
    }

    fn warn(&self, text: String) {
        log::warn!("{text}");
    }
}

/// The corpus of a config, and the config with its vocabulary filled in. A run's `own` tokenizer replaces that of the config.
///
/// # Errors
/// Data that cannot be read or are too small, conflicting options, or a vocabulary smaller than the tokenizer's.
pub fn corpus(config: Config, own: Option<Tokenizer>, purpose: Purpose, source: &dyn Source) -> Result<(Config, Corpus), PrepareError> {
    let dataset = dataset(&config, own, purpose, source)?;
    with_vocabulary(config, dataset, purpose, source)
}

/// Fills in the vocabulary of a config with the tokenizer's, or checks that it is large enough.
pub(super) fn with_vocabulary(
    mut config: Config,
    dataset: Dataset,
    purpose: Purpose,
    source: &dyn Source,
) -> Result<(Config, Corpus), PrepareError> {
    let found = dataset.tokenizer().vocabulary();
    if config.model.vocabulary == 0 {
        config.model.vocabulary = found;
    }
    let v = config.model.vocabulary;
    if v < found {
        let problem = format!("model.vocabulary is {v}, the tokenizer has {found} ids: leave it out to take the tokenizer's");
        return Err(DataError::Options(problem).into());
    }
    if purpose == Purpose::Train {
        unfilled_vocabulary(&config, found).into_iter().for_each(|warning| source.warn(warning));
    }
    Ok((config, Corpus::Dataset(Box::new(dataset))))
}

/// Fills in the vocabulary if it follows from the tokenizer, loaded by `tokenizer`, without reading any text.
///
/// # Errors
/// Those of `tokenizer`.
pub fn fill_vocabulary<E>(config: &mut Config, tokenizer: impl FnOnce(&str) -> Result<Tokenizer, E>) -> Result<(), E> {
    if config.model.vocabulary == 0 {
        config.model.vocabulary = match config.data.tokenizer.known_vocabulary() {
            Some(vocabulary) => vocabulary,
            None => tokenizer(&config.data.tokenizer.path)?.vocabulary(),
        };
    }
    Ok(())
}

/// The tokenizer of a config, if it need not be trained.
///
/// # Errors
/// A tokenizer file that cannot be read, or a tokenizer that must be trained.
pub fn stated_tokenizer(data: &Data, source: &dyn Source) -> Result<Tokenizer, PrepareError> {
    let trained = || Err(DataError::Options("data.tokenizer.kind is \"bpe\", expected an existing tokenizer".into()).into());
    find_tokenizer(data, source, trained)
}

pub(super) fn dataset(config: &Config, own: Option<Tokenizer>, purpose: Purpose, source: &dyn Source) -> Result<Dataset, PrepareError> {
    let (data, seed, windows) = (&config.data, config.seed, config.train.evaluation.windows);
    let (tokenizer, shard) = match data.kind {
        DataKind::Language => {
            let texts = || Ok(language_texts(&data.language, &data.split)?);
            let tokenizer = own.map_or_else(|| find_tokenizer(data, source, texts), Ok)?;
            return Ok(Dataset::from_language(tokenizer, data, seed, windows)?);
        }
        DataKind::Text => tokenized(data, own, source)?,
        DataKind::Tokens => {
            let no_text = || {
                let problem = "data.tokenizer.kind is \"bpe\", but packed tokens have no text to train it on: specify their tokenizer.json";
                Err(DataError::Options(problem.into()).into())
            };
            (own.map_or_else(|| find_tokenizer(data, source, no_text), Ok)?, source.shard(data)?)
        }
    };
    Ok(match purpose {
        Purpose::Train => Dataset::from_documents(&shard, tokenizer, data, seed, windows)?,
        Purpose::Evaluate => Dataset::for_evaluation(&shard, tokenizer, data, windows)?,
    })
}

/// Loads the tokenizer of a config, or trains it on `texts`.
fn find_tokenizer(
    data: &Data,
    source: &dyn Source,
    texts: impl FnOnce() -> Result<Vec<String>, PrepareError>,
) -> Result<Tokenizer, PrepareError> {
    match data.tokenizer.kind {
        TokenizerKind::Bytes => Ok(Tokenizer::bytes()),
        TokenizerKind::File => source.tokenizer(&data.tokenizer.path),
        TokenizerKind::Bpe => {
            let texts = texts()?;
            source.begin("training the tokenizer", None);
            let trained = Tokenizer::train(texts.iter(), data.tokenizer.vocabulary);
            source.done();
            let trained = trained?;
            if trained.cut_words > 0 {
                source.warn(format!(
                    "{} unbroken runs of characters in the text are longer than {LONGEST_TRAINED_WORD} bytes, the longest has {}: the \
                     tokenizer was trained on them in pieces. Is this text?",
                    trained.cut_words, trained.longest_word
                ));
            }
            Ok(trained.tokenizer)
        }
    }
}

/// Tokenized text, from the cache if possible.
fn tokenized(data: &Data, own: Option<Tokenizer>, source: &dyn Source) -> Result<(Tokenizer, Shard), PrepareError> {
    let (mut digests, mut bytes) = (Vec::new(), 0);
    source.begin("reading the text", None);
    let read = source.documents(data, &mut |text| {
        digests.push(digest(text.as_bytes()));
        source.advance(text.len());
        bytes += text.len() as u64;
        Ok(true)
    });
    source.done();
    read?;
    let all = digest(&digests.concat());
    let tokenizer = match own {
        Some(tokenizer) => tokenizer,
        None => tokenizer_of_text(data, &digests, &all, source)?,
    };
    let made_from = [&all[..], &tokenizer.digest(), &data.max_tokens.to_le_bytes()];
    if let Some(shard) = source.tokens(&made_from, &tokenizer) {
        return Ok((tokenizer, shard));
    }
    let mut shard = Shard::new(tokenizer.vocabulary(), tokenizer.digest());
    let most = if data.max_tokens == 0 { usize::MAX } else { data.max_tokens as usize };
    source.begin("tokenizing", Some(bytes));
    let tokenized = source.documents(data, &mut |text| {
        let mut ids = tokenizer.encode(text)?;
        ids.truncate(most - shard.tokens());
        shard.push(&ids)?;
        source.advance(text.len());
        Ok(shard.tokens() < most)
    });
    source.done();
    tokenized?;
    source.keep_tokens(&made_from, &shard);
    Ok((tokenizer, shard))
}

fn tokenizer_of_text(data: &Data, digests: &[[u8; 32]], all: &[u8], source: &dyn Source) -> Result<Tokenizer, PrepareError> {
    if data.tokenizer.kind != TokenizerKind::Bpe {
        return stated_tokenizer(data, source);
    }
    let options = format!("{} {:?}", data.tokenizer.vocabulary, data.split);
    let made_from = [all, options.as_bytes()];
    if let Some(tokenizer) = source.trained_tokenizer(&made_from) {
        return Ok(tokenizer);
    }
    let tokenizer = find_tokenizer(data, source, || training_texts(data, digests, source))?;
    source.keep_trained_tokenizer(&made_from, &tokenizer);
    Ok(tokenizer)
}

/// The training documents for the tokenizer, up to a maximum size. The split is the same as for the tokens:
/// equal texts have equal tokens.
fn training_texts(data: &Data, digests: &[[u8; 32]], source: &dyn Source) -> Result<Vec<String>, PrepareError> {
    let mut training = Split::of(digests, &data.split)?.training.into_iter().peekable();
    let (mut texts, mut bytes, mut index) = (Vec::new(), 0, 0);
    source.documents(data, &mut |text| {
        if training.next_if_eq(&index).is_some() {
            bytes += text.len();
            texts.push(text.to_owned());
        }
        index += 1;
        Ok(bytes < MAX_TRAINING_TEXT)
    })?;
    Ok(texts)
}

/// A warning if a tokenizer learned fewer ids than requested.
fn unfilled_vocabulary(config: &Config, found: u32) -> Option<String> {
    let (asked, v) = (config.data.tokenizer.vocabulary, config.model.vocabulary);
    if config.data.tokenizer.kind != TokenizerKind::Bpe || found >= asked {
        return None;
    }
    Some(format!(
        "the tokenizer has {found} of the {asked} ids that data.tokenizer.vocabulary requests: no more pairs occur twice in the text. \
         The model has V = {v}; its other {} ids never occur in text and are never sampled. The uniform baseline is over the tokenizer's ids, \
         ln {found} = {:.4}; an untrained model starts at about ln {v} = {:.4}. Set data.tokenizer.vocabulary = {found} for a smaller model",
        v - found,
        f64::from(found).ln(),
        f64::from(v).ln()
    ))
}
