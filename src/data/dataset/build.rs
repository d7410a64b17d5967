//! Building a dataset from tokenized documents or from the language.

use std::{
    ops::Range,
    sync::{Arc, Mutex},
};

use sha2::{Digest, Sha256};

use super::{DataError, Dataset, Documents, Split, Training, Windows};
use crate::data::language::Language;
use crate::data::shards::{Shard, Tokens, digest};
use crate::data::tokenizer::Tokenizer;
use crate::run::config::{Data, DataKind, LanguageOptions, SplitOptions, TargetRule};
use crate::run::digest::hex;

/// Default number of validation windows for endless documents.
pub const ENDLESS_VALIDATION_WINDOWS: u32 = 256;

/// Streams of the language's documents; training uses the stream of its seed, which is smaller.
const VALIDATION_DOCUMENTS: u64 = u64::MAX;
const STATED_DOCUMENTS: u64 = u64::MAX - 1;
const TOKENIZER_STREAM: u64 = u64::MAX - 2;
/// Number of documents for training a tokenizer.
const TOKENIZER_DOCUMENTS: usize = 4096;
/// Document indices reserved per endless window: more than fit into it, as each document has at least one token.
const DOCUMENTS_A_WINDOW: u64 = 1 << 20;

impl Dataset {
    /// Splits, joins and cuts tokenized documents as `data` states. `seed` determines the order of the training windows;
    /// validation uses its first `validation_windows` windows, or all if that is 0.
    pub fn from_documents(shard: &Shard, tokenizer: Tokenizer, data: &Data, seed: u64, validation_windows: u32) -> Result<Self, DataError> {
        let documents = documents(shard, tokenizer, data, seed, validation_windows)?;
        Ok(Dataset::of(Arc::new(documents), data, seed))
    }

    /// Uses all documents for validation, to evaluate a model.
    pub fn for_evaluation(shard: &Shard, tokenizer: Tokenizer, data: &Data, validation_windows: u32) -> Result<Self, DataError> {
        let validation = (0..shard.documents()).collect();
        let split = Split { training: Vec::new(), validation };
        Ok(Dataset::of(Arc::new(of_split(shard, &split, tokenizer, data, None, validation_windows)?), data, 0))
    }

    /// The documents of `data.language`: a fixed number, or endless. `seed` determines the order of the windows, or which
    /// endless documents the run uses. Endless ones have [`ENDLESS_VALIDATION_WINDOWS`] validation windows if
    /// `validation_windows` is 0.
    pub fn from_language(tokenizer: Tokenizer, data: &Data, seed: u64, validation_windows: u32) -> Result<Self, DataError> {
        let language = Language::new(&data.language);
        let Some(separator) = separator(&tokenizer, data)? else {
            return Err(DataError::Options("the language needs an end-of-document token: set data.end_of_document = true".into()));
        };
        check_seed(seed)?;
        if data.language.documents > 0 {
            let documents = stated_documents(language, tokenizer, data, seed, validation_windows)?;
            return Ok(Dataset::of(Arc::new(documents), data, seed));
        }
        let count = if validation_windows == 0 { ENDLESS_VALIDATION_WINDOWS } else { validation_windows };
        let (tokens, rule) = (data.sequence_length, data.targets);
        let source = Endless { language: &language, tokenizer: &tokenizer, separator, tokens, rule };
        let (validation, domains) = source.windows(VALIDATION_DOCUMENTS, 0..u64::from(count))?;
        let mut hash = Sha256::new_with_prefix(b"moelab endless\0");
        hash.update(serde_json::to_vec(language.options()).expect("plain options are JSON"));
        let documents = assemble(Training::Endless, validation, tokenizer, data, count, hash);
        let documents = Documents { domains: Some(domains), language: Some(language), ..documents };
        Ok(Dataset::of(Arc::new(documents), data, seed))
    }
}

/// Checks that a run can train on documents: its seed, and that they fill a batch.
pub(super) fn check(training: &Training, data: &Data, seed: u64) -> Result<(), DataError> {
    if data.kind == DataKind::Language {
        check_seed(seed)?;
    }
    let Training::Epochs(windows) = training else { return Ok(()) };
    let least = if data.drop_last { data.batch as usize } else { 1 };
    let advice = "Add text, or lower data.sequence_length or data.batch";
    enough(windows, "training", least, data, advice)
}

/// Other streams of the language are reserved.
fn check_seed(seed: u64) -> Result<(), DataError> {
    if seed >= TOKENIZER_STREAM {
        return Err(DataError::Options(format!("the seed is {seed}, expected at most {}", TOKENIZER_STREAM - 1)));
    }
    Ok(())
}

/// Tokenized documents, split as `data` states.
fn documents(shard: &Shard, tokenizer: Tokenizer, data: &Data, seed: u64, validation_windows: u32) -> Result<Documents, DataError> {
    let split = Split::of(&shard.digests(), &data.split)?;
    of_split(shard, &split, tokenizer, data, Some(seed), validation_windows)
}

/// Joins and cuts both sides of a split. `seed` is that of a run that trains on them.
fn of_split(
    shard: &Shard,
    split: &Split,
    tokenizer: Tokenizer,
    data: &Data,
    seed: Option<u64>,
    validation_windows: u32,
) -> Result<Documents, DataError> {
    let separator = separator(&tokenizer, data)?;
    if shard.tokenizer() != tokenizer.digest() {
        let problem = "it was made with another tokenizer: create it again, or specify the tokenizer that it was made with";
        return Err(DataError::Shard(problem.into()));
    }
    let training = Training::Epochs(Windows::cut(join(shard, &split.training, separator), data.sequence_length, data.targets));
    let validation = Windows::cut(join(shard, &split.validation, separator), data.sequence_length, data.targets);
    seed.map_or(Ok(()), |seed| check(&training, data, seed))?;
    let (side, advice) = match split.training.is_empty() {
        true => ("evaluated", "Add text: the model was trained on windows of this length"),
        false => ("validation", "Add text, or raise data.split.fraction, or lower data.sequence_length"),
    };
    enough(&validation, side, 1, data, advice)?;
    let mut hash = Sha256::new_with_prefix(b"moelab documents\0");
    if let Training::Epochs(windows) = &training {
        windows.stream().hash_into(&mut hash);
    }
    Ok(assemble(training, validation, tokenizer, data, validation_windows, hash))
}

/// A fixed number of documents of the language.
fn stated_documents(
    language: Language,
    tokenizer: Tokenizer,
    data: &Data,
    seed: u64,
    validation_windows: u32,
) -> Result<Documents, DataError> {
    let mut shard = Shard::new(tokenizer.vocabulary(), tokenizer.digest());
    let mut domain_of = Vec::new();
    for index in 0..data.language.documents {
        let document = language.document(STATED_DOCUMENTS, index.into());
        shard.push(&tokenizer.encode(&document.text)?)?;
        domain_of.push(document.domain);
    }
    let Split { validation, .. } = Split::of(&shard.digests(), &data.split)?;
    let documents = documents(&shard, tokenizer, data, seed, validation_windows)?;
    // In the layout of `join`: a separator, then each document followed by a separator.
    let mut domains = vec![domain_of[validation[0]]];
    for document in validation {
        domains.resize(domains.len() + shard.document(document).count() + 1, domain_of[document]);
    }
    Ok(Documents { domains: Some(domains), language: Some(language), ..documents })
}

fn assemble(
    training: Training,
    windows: Windows,
    tokenizer: Tokenizer,
    data: &Data,
    validation_windows: u32,
    mut hash: Sha256,
) -> Documents {
    let used = if validation_windows == 0 { windows.len() } else { windows.len().min(validation_windows as usize) };
    hash.update(tokenizer.digest());
    hash.update(format!("{} {:?} {used}\0", data.sequence_length, data.targets));
    windows.stream().hash_into(&mut hash);
    let hash = hex(&hash.finalize());
    Documents {
        training,
        validation: windows,
        validation_used: used,
        tokenizer,
        tokens: data.sequence_length as usize,
        rule: data.targets,
        language: None,
        domains: None,
        hash,
        baselines: Mutex::default(),
    }
}

/// Documents of the language to train a tokenizer on, at most `TOKENIZER_DOCUMENTS`: the training documents, or a separate
/// stream if documents are endless.
pub fn language_texts(options: &LanguageOptions, split: &SplitOptions) -> Result<Vec<String>, DataError> {
    let language = Language::new(options);
    if options.documents == 0 {
        return Ok((0..TOKENIZER_DOCUMENTS as u64).map(|index| language.document(TOKENIZER_STREAM, index).text).collect());
    }
    let texts: Vec<String> = (0..options.documents).map(|index| language.document(STATED_DOCUMENTS, index.into()).text).collect();
    let digests: Vec<[u8; 32]> = texts.iter().map(|text| digest(text.as_bytes())).collect();
    let training = Split::of(&digests, split)?.training;
    Ok(training.into_iter().take(TOKENIZER_DOCUMENTS).map(|index| texts[index].clone()).collect())
}

/// Endless new documents, window by window.
pub(super) struct Endless<'a> {
    pub language: &'a Language,
    pub tokenizer: &'a Tokenizer,
    pub separator: u32,
    pub tokens: u32,
    pub rule: TargetRule,
}

impl Endless<'_> {
    /// The windows `range` of stream `stream`, and the domain of each of their tokens.
    pub fn windows(&self, stream: u64, range: Range<u64>) -> Result<(Windows, Vec<u32>), DataError> {
        let reach = Windows::reach(self.tokens, self.rule);
        let mut tokens = Tokens::new(self.tokenizer.vocabulary());
        let mut domains = Vec::new();
        for window in range {
            let (mut row, mut row_domains) = (vec![self.separator], Vec::new());
            let mut index = window * DOCUMENTS_A_WINDOW;
            while row.len() < reach {
                let document = self.language.document(stream, index);
                row.extend(self.tokenizer.encode(&document.text)?);
                row.push(self.separator);
                row_domains.resize(row.len(), document.domain);
                index += 1;
            }
            tokens.extend(row.into_iter().take(reach));
            domains.extend(row_domains.into_iter().take(reach));
        }
        Ok((Windows::separate(tokens, self.tokens, self.rule), domains))
    }
}

/// The separator between documents.
fn separator(tokenizer: &Tokenizer, data: &Data) -> Result<Option<u32>, DataError> {
    let separator = tokenizer.end_of_document();
    if data.end_of_document && separator.is_none() {
        let problem = match data.kind {
            DataKind::Language => {
                "the tokenizer has no end-of-document token, which the embedded language needs: train on text (data.kind = \"text\")"
            }
            _ => "the tokenizer has no end-of-document token: set data.end_of_document = false",
        };
        return Err(DataError::Options(problem.into()));
    }
    Ok(separator.filter(|_| data.end_of_document))
}

/// `E d1 E d2 .. E`, or `d1 d2 ..` without a separator.
fn join(shard: &Shard, documents: &[usize], separator: Option<u32>) -> Tokens {
    let mut stream = Tokens::new(shard.vocabulary());
    stream.extend(separator);
    for &document in documents {
        stream.extend(shard.document(document).chain(separator));
    }
    stream
}

fn enough(windows: &Windows, side: &'static str, wanted_windows: usize, data: &Data, advice: &'static str) -> Result<(), DataError> {
    if windows.len() >= wanted_windows {
        return Ok(());
    }
    let [tokens, windows] = [windows.stream().len(), windows.len()];
    let wanted_tokens = Windows::reach(data.sequence_length, data.targets);
    Err(DataError::TooShort { side, tokens, windows, wanted_tokens, wanted_windows, advice })
}
