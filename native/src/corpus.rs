//! Files as a source of data: text, packed tokens, tokenizers, and the cache of derived data.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::{
    cache::{Cache, MAX_SHARD},
    err,
    files::Documents,
    input::{self, shown},
    ticker::Ticker,
};
use anyhow::{Context, Result};
use moelab::data::prepare::{PrepareError, Source};
use moelab::data::shards::Shard;
use moelab::data::tokenizer::{MAX_BYTES, Tokenizer};
use moelab::run::{
    Config,
    config::{Data, DataKind, TokenizerKind},
};

/// The files of a config, and a cache.
pub struct Files {
    cache: Cache,
    documents: OnceCell<Documents>,
    /// Whether the notes about them were printed.
    told: Cell<bool>,
    ticker: RefCell<Option<Ticker>>,
}

impl Files {
    /// With the cache in this folder.
    pub fn new(cache: &Path) -> Self {
        Self { cache: Cache::at(cache), documents: OnceCell::new(), told: Cell::new(false), ticker: RefCell::default() }
    }

    fn found(&self, data: &Data) -> Result<&Documents> {
        if let Some(documents) = self.documents.get() {
            return Ok(documents);
        }
        let found = Documents::find(data)?;
        Ok(self.documents.get_or_init(|| found))
    }
}

fn failed(error: anyhow::Error) -> PrepareError {
    PrepareError::Source(error.into())
}

impl Source for Files {
    fn documents(&self, data: &Data, take: &mut dyn FnMut(&str) -> Result<bool, PrepareError>) -> Result<(), PrepareError> {
        let documents = self.found(data).map_err(failed)?;
        documents.each(|text| Ok(take(text)?)).map_err(failed)?;
        if !self.told.replace(true) {
            documents.notes().for_each(|note| err!("{note}"));
        }
        Ok(())
    }

    fn stamp(&self, data: &Data) -> Result<Vec<u8>, PrepareError> {
        let stamp = || {
            let (mut text, paths) = (String::new(), data.paths.iter().map(PathBuf::from));
            let tokenizer = (data.tokenizer.kind == TokenizerKind::File).then(|| PathBuf::from(&data.tokenizer.path));
            let files = match data.kind {
                DataKind::Text => self.found(data)?.files().map(Path::to_path_buf).collect(),
                DataKind::Tokens => paths.collect(),
                DataKind::Language => Vec::new(),
            };
            for path in files {
                let found = fs::metadata(&path).with_context(|| shown(&path))?;
                writeln!(text, "{path:?} {} {:?}", found.len(), found.modified().ok())?;
            }
            // A resumed run has its own tokenizer, and this file may be gone: whoever needs it finds out by reading it.
            if let Some((path, Ok(found))) = tokenizer.map(|path| (path.clone(), fs::metadata(path))) {
                writeln!(text, "{path:?} {} {:?}", found.len(), found.modified().ok())?;
            }
            Ok(text.into_bytes())
        };
        stamp().map_err(failed)
    }

    fn shard(&self, data: &Data) -> Result<Shard, PrepareError> {
        joined_shards(data).map_err(failed)
    }

    fn tokenizer(&self, path: &str) -> Result<Tokenizer, PrepareError> {
        tokenizer_file(Path::new(path)).map_err(failed)
    }

    fn trained_tokenizer(&self, made_from: &[&[u8]]) -> Option<Tokenizer> {
        self.cache.tokenizer(made_from)
    }

    fn keep_trained_tokenizer(&self, made_from: &[&[u8]], tokenizer: &Tokenizer) {
        self.cache.keep_tokenizer(made_from, tokenizer);
    }

    fn tokens(&self, made_from: &[&[u8]], tokenizer: &Tokenizer) -> Option<Shard> {
        self.cache.tokens(made_from, tokenizer)
    }

    fn keep_tokens(&self, made_from: &[&[u8]], shard: &Shard) {
        self.cache.keep_tokens(made_from, shard);
    }

    fn begin(&self, what: &'static str, bytes: Option<u64>) {
        self.ticker.replace(Some(Ticker::new(what, bytes)));
    }

    fn advance(&self, bytes: usize) {
        if let Some(ticker) = &*self.ticker.borrow() {
            ticker.add(bytes);
        }
    }

    fn done(&self) {
        self.ticker.take();
    }

    fn warn(&self, text: String) {
        err!("warning: {text}");
    }
}

/// Tells the user that the embedded language replaces the data of a config.
pub fn announce(config: &Config) {
    if config.data.embedded {
        err!("data: the embedded language, one token per byte (data.embedded)");
    }
}

/// Reads a `tokenizer.json` of limited size.
pub fn tokenizer_file(path: &Path) -> Result<Tokenizer> {
    let bytes = input::read(path, MAX_BYTES as u64).with_context(|| shown(path))?;
    Tokenizer::from_json(&bytes).with_context(|| shown(path))
}

/// Packed tokens of one or more files, in the order of the paths.
fn joined_shards(data: &Data) -> Result<Shard> {
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
    joined.context("data.paths: expected at least one file of packed tokens")
}

#[cfg(test)]
mod tests {
    use super::*;
    use moelab::data::{
        Corpus,
        dataset::{Batch, Dataset},
        prepare::{self, Purpose},
    };

    fn dataset(config: &Config, own: Option<Tokenizer>, purpose: Purpose, cache: &Path) -> Result<Dataset> {
        let (_, corpus) = prepare::corpus(config.clone(), own, purpose, &Files::new(cache))?;
        let Corpus::Dataset(dataset) = corpus else { unreachable!("files make a dataset") };
        Ok(*dataset)
    }

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

    fn first_batch(data: &Dataset) -> Batch {
        let mut batch = Batch::default();
        data.fill_batch(0, &mut batch);
        batch
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
        let first = first_batch(&make(&config));
        assert_eq!((entries(&cache, "tokens").len(), entries(&cache, "tokenizer").len()), (1, 1));
        let kept = &entries(&cache, "tokens")[0];
        let written = fs::metadata(kept).unwrap().modified().unwrap();
        assert_eq!(first_batch(&make(&config)), first);
        assert_eq!(fs::metadata(kept).unwrap().modified().unwrap(), written, "nothing was tokenized again");
        fs::write(kept, b"damaged").unwrap();
        assert_eq!(first_batch(&make(&config)), first, "a damaged entry is created again");
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
    fn limits_apply_to_training_and_evaluation() {
        let (folder, mut config) = folder();
        let cache = folder.path().join("cache");
        config.data.max_tokens = 100;
        let all = dataset(&config, None, Purpose::Evaluate, &cache).unwrap();
        // 100 tokens and a separator around each of three documents, in windows of 8.
        assert_eq!(all.validation_windows() as u32 * all.window_targets(), 96);
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
        assert!(joined.validation_windows() > 0);
        config.data.tokenizer.kind = TokenizerKind::Bpe;
        let message = dataset(&config, None, Purpose::Train, folder.path()).err().unwrap().to_string();
        assert!(message.contains("no text to train it on"), "{message}");
        fs::write(&paths[1], b"no shard").unwrap();
        config.data.tokenizer.kind = TokenizerKind::Bytes;
        let message = format!("{:#}", dataset(&config, None, Purpose::Train, folder.path()).err().unwrap());
        assert!(message.contains(&paths[1]) && message.contains("expected at least the 96 of a header"), "{message}");
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
