//! From a config to a dataset: documents read, a tokenizer had, tokens packed and cached ([`Cache`]).
//!
//! Entries of the cache are named by the SHA-256 of all documents as read, of the tokenizer, and of the limits.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use moelab::data::dataset::{Dataset, Split, language_texts};
use moelab::data::shards::{Shard, digest};
use moelab::data::tokenizer::{LONGEST_TRAINED_WORD, MAX_BYTES, Tokenizer};
use moelab::run::Config;
use moelab::run::config::{Data, DataKind, TokenizerKind};
use moelab_native::{
    err,
    input::{self, shown},
};

use crate::cache::{Cache, MAX_SHARD};
use crate::files::Documents;
use crate::ticker::Ticker;

/// Most bytes of documents that a tokenizer is trained on: 64 MB, the first training documents.
const MAX_TRAINING_TEXT: usize = 64_000_000;

/// What the documents are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Split into training and validation.
    Train,
    /// All of them are validation.
    Evaluate,
}

/// The dataset of a config. A run's own `tokenizer` takes the place of the config's.
pub fn dataset(config: &Config, tokenizer: Option<Tokenizer>, purpose: Purpose, cache: &Path) -> Result<Dataset> {
    let (data, seed, windows) = (&config.data, config.seed, config.train.evaluation.windows);
    let (tokenizer, shard) = match data.kind {
        DataKind::Language => {
            let texts = || Ok(language_texts(&data.language, &data.split)?);
            let tokenizer = tokenizer.map_or_else(|| had(data, texts), Ok)?;
            return Ok(Dataset::from_language(tokenizer, data, seed, windows)?);
        }
        DataKind::Text => packed(data, tokenizer, &Cache::at(cache))?,
        DataKind::Tokens => {
            let no_text = || {
                bail!(
                    "data.tokenizer.kind is \"bpe\", but packed tokens have no text to train it on: name the tokenizer.json that they were made with"
                )
            };
            let tokenizer = tokenizer.map_or_else(|| had(data, no_text), Ok)?;
            let shard = shards(data)?;
            (tokenizer, shard)
        }
    };
    Ok(match purpose {
        Purpose::Train => Dataset::from_documents(&shard, tokenizer, data, seed, windows)?,
        Purpose::Evaluate => Dataset::for_evaluation(&shard, tokenizer, data, windows)?,
    })
}

/// A `tokenizer.json`, no larger than one may be.
pub fn tokenizer_file(path: &Path) -> Result<Tokenizer> {
    let bytes = input::read(path, MAX_BYTES as u64).with_context(|| shown(path))?;
    Tokenizer::from_json(&bytes).with_context(|| shown(path))
}

/// The tokenizer that a config asks for, one to be trained on `texts`.
fn had(data: &Data, texts: impl FnOnce() -> Result<Vec<String>>) -> Result<Tokenizer> {
    match data.tokenizer.kind {
        TokenizerKind::Bytes => Ok(Tokenizer::bytes()),
        TokenizerKind::File => tokenizer_file(Path::new(&data.tokenizer.path)),
        TokenizerKind::Bpe => {
            let texts = texts()?;
            let _ticker = Ticker::new("training the tokenizer", None);
            let trained = Tokenizer::train(texts.iter(), data.tokenizer.vocabulary)?;
            if trained.cut_words > 0 {
                err!(
                    "warning: {} of the text's runs of characters without a break are longer than {LONGEST_TRAINED_WORD} bytes, the longest has {}: the tokenizer \
                     was trained on them in pieces. Is this text?",
                    trained.cut_words,
                    trained.longest_word
                );
            }
            Ok(trained.tokenizer)
        }
    }
}

/// Text files, tokenized: from the cache where they are in it.
fn packed(data: &Data, tokenizer: Option<Tokenizer>, cache: &Cache) -> Result<(Tokenizer, Shard)> {
    let ticker = Ticker::new("reading the text", None);
    let documents = Documents::find(data)?;
    let (mut digests, mut bytes) = (Vec::new(), 0);
    documents.each(|text| {
        digests.push(digest(text.as_bytes()));
        ticker.add(text.len());
        bytes += text.len() as u64;
        Ok(true)
    })?;
    drop(ticker);
    documents.notes().for_each(|note| err!("{note}"));
    let all = digest(&digests.concat());
    let tokenizer = match tokenizer {
        Some(tokenizer) => tokenizer,
        None if data.tokenizer.kind == TokenizerKind::Bpe => {
            let options = format!("{} {:?}", data.tokenizer.vocabulary, data.split);
            let made_from = [&all[..], options.as_bytes()];
            match cache.tokenizer(&made_from) {
                Some(tokenizer) => tokenizer,
                None => {
                    let tokenizer = had(data, || training_texts(&documents, &digests, data))?;
                    cache.keep_tokenizer(&made_from, &tokenizer);
                    tokenizer
                }
            }
        }
        None => had(data, || bail!("only a tokenizer to be trained reads text"))?,
    };
    let made_from = [&all[..], &tokenizer.digest(), &data.max_tokens.to_le_bytes()];
    if let Some(shard) = cache.tokens(&made_from, &tokenizer) {
        return Ok((tokenizer, shard));
    }
    let mut shard = Shard::new(tokenizer.vocabulary(), tokenizer.digest());
    let most = if data.max_tokens == 0 { usize::MAX } else { data.max_tokens as usize };
    let ticker = Ticker::new("tokenizing", Some(bytes));
    documents.each(|text| {
        let mut ids = tokenizer.encode(text)?;
        ids.truncate(most - shard.tokens());
        shard.push(&ids)?;
        ticker.add(text.len());
        Ok(shard.tokens() < most)
    })?;
    drop(ticker);
    cache.keep_tokens(&made_from, &shard);
    Ok((tokenizer, shard))
}

/// The training side of the documents, as far as a tokenizer is trained on it. The split is the one that the tokens will get:
/// equal texts have equal tokens.
fn training_texts(documents: &Documents, digests: &[[u8; 32]], data: &Data) -> Result<Vec<String>> {
    let mut training = Split::of(digests, &data.split)?.training.into_iter().peekable();
    let (mut texts, mut bytes, mut index) = (Vec::new(), 0, 0);
    documents.each(|text| {
        if training.next_if_eq(&index).is_some() {
            bytes += text.len();
            texts.push(text.to_owned());
        }
        index += 1;
        Ok(bytes < MAX_TRAINING_TEXT)
    })?;
    Ok(texts)
}

/// Packed tokens of one or more files, in the order of the paths.
fn shards(data: &Data) -> Result<Shard> {
    let mut joined: Option<Shard> = None;
    for path in &data.paths {
        let path = Path::new(path);
        let name = || shown(path);
        let (file, mut header) = (input::open(path).with_context(name)?, Vec::new());
        let size = file.metadata().with_context(name)?.len();
        file.take(Shard::HEADER as u64).read_to_end(&mut header).with_context(name)?;
        Shard::check_header(&header, size).with_context(name)?;
        let shard = Shard::decode(&input::read(path, MAX_SHARD).with_context(name)?).with_context(name)?;
        match &mut joined {
            Some(joined) => joined.append(&shard).with_context(name)?,
            None => joined = Some(shard),
        }
    }
    joined.context("data.paths: wanted at least one file of packed tokens")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    /// Forty documents in one file, and where to cache them.
    fn folder() -> (tempfile::TempDir, Config) {
        let folder = tempfile::tempdir().unwrap();
        let text: String = (0..40).map(|number| format!("This is document number {number}.\nIt is short.\n\n")).collect();
        fs::write(folder.path().join("a.txt"), text).unwrap();
        let mut config = Config::default();
        config.data.kind = DataKind::Text;
        config.data.paths = vec![folder.path().join("a.txt").display().to_string()];
        config.data.sequence_length = 8;
        config.data.batch = 2;
        (folder, config)
    }

    fn entries(cache: &Path, extension: &str) -> Vec<PathBuf> {
        let files = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
    }

    #[test]
    fn text_becomes_batches_and_comes_from_the_cache_again() {
        let (folder, mut config) = folder();
        config.data.tokenizer.kind = TokenizerKind::Bpe;
        config.data.tokenizer.vocabulary = 280;
        let cache = folder.path().join("cache");
        let make = |config: &Config| dataset(config, None, Purpose::Train, &cache).unwrap();
        let first = make(&config).batch(0);
        assert_eq!((entries(&cache, "tokens").len(), entries(&cache, "tokenizer").len()), (1, 1));
        let kept = &entries(&cache, "tokens")[0];
        let written = fs::metadata(kept).unwrap().modified().unwrap();
        assert_eq!(make(&config).batch(0), first);
        assert_eq!(fs::metadata(kept).unwrap().modified().unwrap(), written, "nothing was tokenized again");
        fs::write(kept, b"damaged").unwrap();
        assert_eq!(make(&config).batch(0), first, "a damaged entry is made again");
        config.data.max_tokens = 200;
        assert_ne!(make(&config).hash(), "");
        assert_eq!(entries(&cache, "tokens").len(), 2);
        fs::write(folder.path().join("a.txt"), (0..20).map(|i| format!("Other text {i}, and more of it.\n\n")).collect::<String>())
            .unwrap();
        make(&Config { data: Data { tokenizer: Default::default(), ..config.data.clone() }, ..config });
        assert_eq!(entries(&cache, "tokens").len(), 3);
        assert!(entries(&cache, "tmp").is_empty());
    }

    #[test]
    fn limits_and_evaluation_take_what_they_say() {
        let (folder, mut config) = folder();
        let cache = folder.path().join("cache");
        config.data.max_tokens = 100;
        let all = dataset(&config, None, Purpose::Evaluate, &cache).unwrap();
        // 100 tokens and a separator around each of three documents, in windows of 8.
        assert_eq!(all.validation_targets(), 96);
    }

    #[test]
    fn packed_tokens_are_read_and_joined() {
        let (folder, mut config) = folder();
        let tokenizer = Tokenizer::bytes();
        let paths = ["one", "two"].map(|name| folder.path().join(name).display().to_string());
        for path in &paths {
            let mut shard = Shard::new(256, tokenizer.digest());
            (0..9).for_each(|number| shard.push(&tokenizer.encode(&format!("{path} {number}")).unwrap()).unwrap());
            fs::write(path, shard.encode()).unwrap();
        }
        config.data.kind = DataKind::Tokens;
        config.data.paths = paths.to_vec();
        let joined = dataset(&config, None, Purpose::Train, folder.path()).unwrap();
        assert!(joined.validation_targets() > 0);
        config.data.tokenizer.kind = TokenizerKind::Bpe;
        let told = dataset(&config, None, Purpose::Train, folder.path()).err().unwrap().to_string();
        assert!(told.contains("no text to train it on"), "{told}");
        fs::write(&paths[1], b"no shard").unwrap();
        config.data.tokenizer.kind = TokenizerKind::Bytes;
        let told = format!("{:#}", dataset(&config, None, Purpose::Train, folder.path()).err().unwrap());
        assert!(told.contains(&paths[1]) && told.contains("wanted at least the 96 of a header"), "{told}");
    }

    #[test]
    fn a_run_keeps_its_tokenizer() {
        let (folder, mut config) = folder();
        config.data.tokenizer.kind = TokenizerKind::Bpe;
        let own = Tokenizer::bytes();
        let made = dataset(&config, Some(own.clone()), Purpose::Train, &folder.path().join("cache")).unwrap();
        assert_eq!(made.tokenizer().digest(), own.digest());
    }
}
