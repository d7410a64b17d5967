//! Data shared by runs: prepared once, and the same as without sharing.

use std::cell::Cell;

use moelab::{
    data::{
        Corpus,
        prepare::{self, NoFiles, PrepareError, Purpose, Source},
        shards::Shard,
        shared::SharedData,
        tokenizer::Tokenizer,
    },
    run::{
        Config,
        config::{Data, DataKind, LanguageOptions},
        summary::Baselines,
    },
};

/// A document, read as often as `reads` says.
#[derive(Default)]
struct Text {
    reads: Cell<u32>,
    version: Cell<u8>,
}

impl Source for Text {
    fn stamp(&self, _: &Data) -> Result<Vec<u8>, PrepareError> {
        Ok(vec![self.version.get()])
    }

    fn documents(&self, _: &Data, _: &mut dyn FnMut(&str) -> Result<bool, PrepareError>) -> Result<(), PrepareError> {
        unreachable!("the data are tokens")
    }

    fn shard(&self, _: &Data) -> Result<Shard, PrepareError> {
        self.reads.set(self.reads.get() + 1);
        let tokenizer = Tokenizer::bytes();
        let mut shard = Shard::new(tokenizer.vocabulary(), tokenizer.digest());
        for document in 0..40 {
            shard.push(&tokenizer.encode(&format!("document {document} of version {}", self.version.get())).unwrap())?;
        }
        Ok(shard)
    }

    fn tokenizer(&self, _: &str) -> Result<Tokenizer, PrepareError> {
        unreachable!("the tokenizer is that of bytes")
    }

    fn warn(&self, text: String) {
        panic!("{text}");
    }
}

fn config(seed: u64) -> Config {
    let mut config = Config { seed, ..Config::default() };
    (config.data.kind, config.data.sequence_length, config.data.batch) = (DataKind::Tokens, 16, 4);
    config
}

fn batch(corpus: &Corpus) -> Vec<u32> {
    let mut batch = Default::default();
    corpus.fill_training_batch(0, &mut batch);
    batch.tokens
}

/// The same batches as without sharing, whatever was prepared before.
#[test]
fn runs_with_the_same_data_share_them() {
    let (text, mut shared) = (Text::default(), SharedData::default());
    let mut get = |config: &Config, own: Option<Tokenizer>| {
        let (_, corpus) = shared.corpus(config.clone(), own.clone(), &text).unwrap();
        let reads = text.reads.get();
        let (_, alone) = prepare::corpus(config.clone(), own, Purpose::Train, &text).unwrap();
        text.reads.set(reads);
        assert_eq!((batch(&corpus), corpus.hash()), (batch(&alone), alone.hash()));
        (batch(&corpus), reads)
    };
    let (first, reads) = get(&config(1), None);
    assert_eq!(reads, 1);
    // Another seed, another batch size, resumed with the tokenizer of its folder.
    let (second, reads) = get(&config(2), None);
    assert!(first != second && reads == 1);
    let mut wider = config(1);
    (wider.data.batch, wider.data.shuffle) = (6, false);
    assert_eq!(get(&wider, None).1, 1);
    assert_eq!(get(&config(3), Some(Tokenizer::bytes())).1, 1);
    // Other windows, and files that have changed.
    let mut longer = config(1);
    longer.data.sequence_length = 24;
    assert_eq!(get(&longer, None).1, 2);
    text.version.set(1);
    let (changed, reads) = get(&config(1), None);
    assert!(changed != first && reads == 3);
    text.version.set(0);
    assert_eq!(get(&config(1), None), (first, 3));
    // What a run cannot train on is refused as without sharing.
    let mut much = config(1);
    much.data.batch = 60_000;
    let refused = shared.corpus(much, None, &text).err().unwrap().to_string();
    assert!(refused.contains("60000"), "{refused}");
}

#[test]
fn baselines_are_kept_for_the_runs_that_have_them_in_common() {
    let mut shared = SharedData::default();
    let mut dataset = |seed: u64, documents: u32| {
        let mut config = Config { seed, ..Config::default() };
        config.data.language = LanguageOptions { documents, ..LanguageOptions::default() };
        (config.data.sequence_length, config.data.batch, config.train.evaluation.windows) = (16, 1, 2);
        match shared.corpus(config, None, &NoFiles).unwrap().1 {
            Corpus::Dataset(dataset) => *dataset,
            Corpus::Batches { .. } => unreachable!("the language is a dataset"),
        }
    };
    let known = Baselines { uniform: 5.5, ..Default::default() };
    dataset(1, 0).keep_baselines(known);
    // Endless documents are other ones for each seed.
    assert_eq!((dataset(1, 0).baselines(), dataset(2, 0).baselines()), (Some(known), None));
    dataset(1, 40).keep_baselines(known);
    assert_eq!((dataset(2, 40).baselines(), dataset(2, 41).baselines()), (Some(known), None));
}
