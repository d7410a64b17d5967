//! The embedded language as a corpus: all that a run needs where there are no files, as in a browser.

use super::{
    Corpus,
    dataset::{DataError, Dataset, language_texts},
    tokenizer::Tokenizer,
};
use crate::run::{
    Config,
    config::{DataKind, TokenizerKind},
};

/// The corpus of a config that trains on the embedded language, and the config with its vocabulary filled in.
///
/// # Errors
/// If the config wants files, or a smaller vocabulary than its tokenizer has.
pub fn corpus(mut config: Config) -> Result<(Config, Corpus), DataError> {
    if config.data.kind != DataKind::Language {
        return Err(DataError::Options("data.kind: wanted \"language\": there are no files here".into()));
    }
    let tokenizer = match config.data.tokenizer.kind {
        TokenizerKind::Bytes => Tokenizer::bytes(),
        TokenizerKind::Bpe => {
            let texts = language_texts(&config.data.language, &config.data.split)?;
            Tokenizer::train(texts.into_iter(), config.data.tokenizer.vocabulary)?.tokenizer
        }
        TokenizerKind::File => {
            return Err(DataError::Options("data.tokenizer.kind: wanted \"bytes\" or \"bpe\": there are no files here".into()));
        }
    };
    let found = tokenizer.vocabulary();
    if config.model.vocabulary == 0 {
        config.model.vocabulary = found;
    }
    if config.model.vocabulary < found {
        return Err(DataError::Options(format!("model.vocabulary is {}, the tokenizer has {found} ids", config.model.vocabulary)));
    }
    let dataset = Dataset::from_language(tokenizer, &config.data, config.seed, config.train.evaluation.windows)?;
    Ok((config, Corpus::Dataset(Box::new(dataset))))
}
