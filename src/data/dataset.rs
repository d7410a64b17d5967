//! Data: documents in, batches out.
//!
//! *From documents* ([`Dataset::from_documents`]): tokenized documents are split into training and validation ([`Split`]), each
//! side is joined into one stream, `E d1 E d2 .. E` with E the end-of-document id (or `d1 d2 ..` without), and the stream is
//! cut into windows ([`Windows`]). Every epoch has its own order, keyed by (seed, epoch).
//! *From the language* ([`Dataset::from_language`]): the same over a fixed number of documents, or endless. If endless, window w of
//! the run is `E d E d ..`, cut off at its end, of fresh documents keyed by (seed, w); so every window starts with a
//! document, and the known entropy of its targets is exact. Validation is a fixed set of such windows from a stream of
//! documents that no seed uses for training; all replicas share it.
//!
//! What depends neither on the seed nor on the batches is shared by the datasets of several runs ([`Dataset::for_run`]).
//!
//! *Guarantees.* A batch is a pure function of (data, seed, micro-step): a resumed run needs no cursor except its
//! micro-step. No document, and no copy of it, is on both sides. Validation windows come in a fixed order, each once, with
//! a target count that is known in advance.

mod build;
mod split;
mod windows;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use super::error::DataError;
pub use build::{ENDLESS_VALIDATION_WINDOWS, language_texts};
pub use split::Split;
pub use windows::Windows;

use super::language::Language;
use super::tokenizer::Tokenizer;
use crate::random::Stream;
use crate::run::{
    config::{Data, TargetRule},
    summary::Baselines,
};
use build::Endless;

/// Token and target ids of B sequences of T tokens, row by row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// [B, T].
    pub tokens: Vec<u32>,
    /// [B, T]: the next token for each token, or [`Batch::IGNORED`] if nothing is to be predicted.
    pub targets: Vec<u32>,
}

impl Batch {
    /// A target that is ignored by the loss.
    pub const IGNORED: u32 = u32::MAX;

    /// Copies the content of `other`, reusing the allocation.
    pub fn copy_from(&mut self, other: &Batch) {
        self.tokens.clone_from(&other.tokens);
        self.targets.clone_from(&other.targets);
    }

    /// Number of targets that are not ignored.
    pub fn target_count(&self) -> u32 {
        self.targets.iter().filter(|target| **target != Self::IGNORED).count() as u32
    }

    /// Number of sequences of `tokens` tokens up to the last one with a target, at least one: only padding has no targets.
    pub fn real_sequences(&self, tokens: u32) -> u32 {
        let last = self.targets.iter().rposition(|target| *target != Self::IGNORED).unwrap_or(0);
        last as u32 / tokens + 1
    }
}

/// The source of training windows.
enum Training {
    /// Cut from documents, epoch after epoch.
    Epochs(Windows),
    /// New documents of the language.
    Endless,
}

/// The training and validation data of a run.
pub struct Dataset {
    documents: Arc<Documents>,
    /// B.
    sequences: usize,
    shuffle: bool,
    drop_last: bool,
    seed: u64,
    /// The order of windows in the most recent epoch, cached.
    order: RefCell<Option<(u64, Vec<usize>)>>,
}

/// What runs share.
struct Documents {
    training: Training,
    /// Held-out windows, of which the first `validation_used` are evaluated.
    validation: Windows,
    validation_used: usize,
    tokenizer: Tokenizer,
    /// T.
    tokens: usize,
    rule: TargetRule,
    language: Option<Language>,
    /// The true domain of each token of the validation stream, if the documents are from the language.
    domains: Option<Vec<u32>>,
    hash: String,
    /// Those computed so far, by the seed that they depend on.
    baselines: Mutex<BTreeMap<Option<u64>, Baselines>>,
}

impl Dataset {
    /// The same documents for another run: `data` differs in its batches at most.
    ///
    /// # Errors
    /// If the training documents do not fill a batch.
    pub fn for_run(&self, data: &Data, seed: u64) -> Result<Dataset, DataError> {
        let documents = self.documents.clone();
        build::check(&documents.training, data, seed)?;
        Ok(Dataset::of(documents, data, seed))
    }

    fn of(documents: Arc<Documents>, data: &Data, seed: u64) -> Dataset {
        let Data { batch, shuffle, drop_last, .. } = *data;
        Dataset { documents, sequences: batch as usize, shuffle, drop_last, seed, order: RefCell::default() }
    }

    /// The baselines, if they were [kept](Dataset::keep_baselines) by a run that shares the documents they depend on.
    pub fn baselines(&self) -> Option<Baselines> {
        self.known_baselines().get(&self.drawn_by()).copied()
    }

    /// Keeps the baselines for the runs that share the documents.
    pub fn keep_baselines(&self, baselines: Baselines) {
        self.known_baselines().insert(self.drawn_by(), baselines);
    }

    fn known_baselines(&self) -> MutexGuard<'_, BTreeMap<Option<u64>, Baselines>> {
        self.documents.baselines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The seed, if it determines the training documents.
    fn drawn_by(&self) -> Option<u64> {
        matches!(self.documents.training, Training::Endless).then_some(self.seed)
    }

    /// Number of tokens in memory.
    pub(super) fn tokens_held(&self) -> usize {
        let training = self.training_windows().map_or(0, |windows| windows.stream().len());
        training + self.documents.validation.stream().len()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.documents.tokenizer
    }

    /// The language, if the documents are from it.
    pub fn language(&self) -> Option<&Language> {
        self.documents.language.as_ref()
    }

    /// SHA-256 over the training and validation data: documents (or the language), tokenizer, sequence length, target rule.
    /// Seed and batch size are not included: they only determine the order.
    pub fn hash(&self) -> String {
        self.documents.hash.clone()
    }

    /// Micro-batches per epoch; `None` if the documents are endless.
    pub fn batches_per_epoch(&self) -> Option<u64> {
        match &self.documents.training {
            Training::Epochs(windows) if self.drop_last => Some((windows.len() / self.sequences) as u64),
            Training::Epochs(windows) => Some(windows.len().div_ceil(self.sequences) as u64),
            Training::Endless => None,
        }
    }

    /// The training windows, in the order of the documents; `None` if the documents are endless.
    pub fn training_windows(&self) -> Option<&Windows> {
        match &self.documents.training {
            Training::Epochs(windows) => Some(windows),
            Training::Endless => None,
        }
    }

    /// Replaces the content of `batch` by the training batch of a micro-step, counted from 0 over the whole run.
    pub fn fill_batch(&self, micro_step: u64, batch: &mut Batch) {
        let Some(per_epoch) = self.batches_per_epoch() else {
            let first = micro_step * self.sequences as u64;
            let windows = self.endless_windows(first..first + self.sequences as u64);
            return self.gather(&windows, 0..self.sequences, batch);
        };
        let epoch = micro_step / per_epoch;
        let Training::Epochs(windows) = &self.documents.training else { unreachable!("only documents have epochs") };
        let mut kept = self.order.borrow_mut();
        if kept.as_ref().is_none_or(|(of, _)| *of != epoch) {
            *kept = Some((epoch, self.epoch_order(windows.len(), epoch)));
        }
        let (_, order) = kept.as_ref().expect("just made");
        self.gather(windows, order[self.rows(micro_step % per_epoch, order.len())].iter().copied(), batch);
    }

    /// Number of windows in the batch of a micro-step: fewer than its rows if the last batch of an epoch is padded.
    pub fn batch_windows(&self, micro_step: u64) -> u32 {
        match (&self.documents.training, self.batches_per_epoch()) {
            (Training::Epochs(windows), Some(per_epoch)) => self.rows(micro_step % per_epoch, windows.len()).len() as u32,
            _ => self.sequences as u32,
        }
    }

    /// Number of targets per window.
    pub fn window_targets(&self) -> u32 {
        self.documents.rule.targets(self.documents.tokens as u32)
    }

    /// The windows of batch `within` of an epoch of `windows`, in the epoch's order.
    fn rows(&self, within: u64, windows: usize) -> Range<usize> {
        let first = within as usize * self.sequences;
        first..windows.min(first + self.sequences)
    }

    /// Number of batches in the validation set.
    pub fn validation_batches(&self) -> usize {
        self.documents.validation_used.div_ceil(self.sequences)
    }

    /// A batch of the validation set; rows beyond the last window have no targets.
    pub fn validation_batch(&self, index: usize) -> Batch {
        let mut batch = Batch::default();
        self.gather(&self.documents.validation, self.validation_rows(index), &mut batch);
        batch
    }

    /// Number of windows in the whole validation set.
    pub fn validation_windows(&self) -> usize {
        self.documents.validation_used
    }

    /// The true domain of each token of a validation batch, [B, T], [`Batch::IGNORED`] in empty rows; `None` if the documents are not
    /// from the language. A separator belongs to the document that it ends, the first of a stream to the document after it.
    pub fn validation_domains(&self, index: usize) -> Option<Vec<u32>> {
        let domains = self.documents.domains.as_ref()?;
        let rows: Vec<&[u32]> = self.validation_rows(index).map(|row| &domains[self.documents.validation.range(row)]).collect();
        let mut batch = rows.concat();
        batch.resize(self.sequences * self.documents.tokens, Batch::IGNORED);
        Some(batch)
    }

    /// The validation windows, and the number of them that is used.
    pub(super) fn validation(&self) -> (&Windows, usize) {
        (&self.documents.validation, self.documents.validation_used)
    }

    /// The (token, target) pairs of training windows, in the order of the documents, or of the run if they are endless. Windows beyond
    /// the last have none.
    pub(super) fn training_pairs(&self, range: Range<usize>) -> Vec<(u32, u32)> {
        match &self.documents.training {
            Training::Epochs(windows) => {
                let end = range.end.min(windows.len());
                windows.pairs(range.start.min(end)..end).collect()
            }
            Training::Endless => self.endless_windows(range.start as u64..range.end as u64).pairs(0..range.len()).collect(),
        }
    }

    fn validation_rows(&self, batch: usize) -> Range<usize> {
        batch * self.sequences..self.documents.validation_used.min((batch + 1) * self.sequences)
    }

    fn epoch_order(&self, windows: usize, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..windows).collect();
        if self.shuffle {
            split::shuffle(&mut order, Stream { seed: self.seed, step: epoch as u32, stream: split::streams::ORDER });
        }
        order
    }

    fn endless_windows(&self, range: Range<u64>) -> Windows {
        let language = self.documents.language.as_ref().expect("endless documents are from the language");
        let separator = self.documents.tokenizer.end_of_document().expect("checked when the dataset was made");
        let source = Endless {
            language,
            tokenizer: &self.documents.tokenizer,
            separator,
            tokens: self.documents.tokens as u32,
            rule: self.documents.rule,
        };
        source.windows(self.seed, range).expect("checked when the dataset was made").0
    }

    fn gather(&self, windows: &Windows, rows: impl Iterator<Item = usize>, batch: &mut Batch) {
        let positions = self.sequences * self.documents.tokens;
        batch.tokens.clear();
        batch.targets.clear();
        rows.for_each(|row| windows.copy(row, &mut batch.tokens, &mut batch.targets));
        batch.tokens.resize(positions, 0);
        batch.targets.resize(positions, Batch::IGNORED);
    }
}
