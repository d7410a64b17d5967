//! Data shared by the runs of an environment: what they have in common is prepared once.

use std::{cell::RefCell, rc::Rc};

use super::{
    Corpus,
    dataset::Dataset,
    prepare::{self, PrepareError, Purpose, Source},
    tokenizer::Tokenizer,
};
use crate::run::{Config, config::Data};

/// Most tokens kept for later runs, unless the newest run alone has more: 128 MB.
const MOST_TOKENS: usize = 1 << 25;

/// The data of the newest runs, prepared for training. Clones share them.
#[derive(Clone, Default)]
pub struct SharedData {
    /// The newest first.
    entries: Rc<RefCell<Vec<Entry>>>,
}

struct Entry {
    /// With the values in [`without_batches`].
    data: Data,
    windows: u32,
    /// See [`Source::stamp`].
    stamp: Vec<u8>,
    /// Whether the tokenizer is a run's own, not that of `data`.
    has_own_tokenizer: bool,
    dataset: Dataset,
}

impl SharedData {
    /// Like [`prepare::corpus`] for training, but data that an earlier run had are shared with it.
    ///
    /// # Errors
    /// Those of [`prepare::corpus`].
    pub fn corpus(&mut self, config: Config, own: Option<Tokenizer>, source: &dyn Source) -> Result<(Config, Corpus), PrepareError> {
        let stamp = source.stamp(&config.data)?;
        let mut entries = self.entries.borrow_mut();
        let found = entries.iter().position(|entry| entry.fits(&config, own.as_ref(), &stamp));
        let entry = match found {
            Some(place) => entries.remove(place),
            None => Entry {
                data: without_batches(&config.data),
                windows: config.train.evaluation.windows,
                stamp,
                has_own_tokenizer: own.is_some(),
                dataset: prepare::dataset(&config, own, Purpose::Train, source)?,
            },
        };
        let dataset = entry.dataset.for_run(&config.data, config.seed);
        entries.insert(0, entry);
        let mut tokens = 0;
        entries.retain(|entry| {
            let is_newest = tokens == 0;
            tokens += entry.dataset.tokens_held();
            is_newest || tokens <= MOST_TOKENS
        });
        prepare::with_vocabulary(config, dataset?, Purpose::Train, source)
    }
}

impl Entry {
    fn fits(&self, config: &Config, own: Option<&Tokenizer>, stamp: &[u8]) -> bool {
        let tokenizer = match own {
            Some(own) => own.digest() == self.dataset.tokenizer().digest(),
            None => !self.has_own_tokenizer,
        };
        tokenizer && self.stamp == stamp && self.windows == config.train.evaluation.windows && self.data == without_batches(&config.data)
    }
}

/// The settings of the data without those that [`Dataset::for_run`] takes from each run.
fn without_batches(data: &Data) -> Data {
    let Data { batch, shuffle, drop_last, .. } = Data::default();
    Data { batch, shuffle, drop_last, ..data.clone() }
}
