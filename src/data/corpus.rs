//! The data of a run: a dataset, or batches in memory.

use super::{
    dataset::{Batch, Dataset},
    tokenizer::Tokenizer,
};

/// Training batches by micro-step, and the validation set in order. Both are pure functions of their index.
pub enum Corpus {
    /// Tokenized text, cut into windows.
    Dataset(Box<Dataset>),
    /// Batches in memory; training repeats them.
    Batches {
        /// By micro-step.
        training: Vec<Batch>,
        /// In order.
        validation: Vec<Batch>,
    },
}

impl Corpus {
    /// Replaces the content of `batch` by the batch of a micro-step.
    pub fn fill_training_batch(&self, micro_step: u64, batch: &mut Batch) {
        match self {
            Corpus::Dataset(data) => data.fill_batch(micro_step, batch),
            Corpus::Batches { training, .. } => batch.copy_from(in_turn(training, micro_step)),
        }
    }

    /// Number of targets in the batch of a micro-step.
    pub fn training_targets(&self, micro_step: u64) -> u64 {
        match self {
            Corpus::Dataset(data) => u64::from(data.batch_windows(micro_step)) * u64::from(data.window_targets()),
            Corpus::Batches { training, .. } => in_turn(training, micro_step).target_count().into(),
        }
    }

    /// Number of sequences of `tokens` tokens in the batch of a micro-step, without padding.
    pub fn training_sequences(&self, micro_step: u64, tokens: u32) -> u32 {
        match self {
            Corpus::Dataset(data) => data.batch_windows(micro_step),
            Corpus::Batches { training, .. } => in_turn(training, micro_step).real_sequences(tokens),
        }
    }

    /// Number of batches in the validation set.
    pub fn validation_batches(&self) -> usize {
        match self {
            Corpus::Dataset(data) => data.validation_batches(),
            Corpus::Batches { validation, .. } => validation.len(),
        }
    }

    /// A batch of the validation set.
    pub fn validation_batch(&self, index: usize) -> Batch {
        match self {
            Corpus::Dataset(data) => data.validation_batch(index),
            Corpus::Batches { validation, .. } => validation[index].clone(),
        }
    }

    /// The domain of each token of a batch of the validation set, where it is known; see [`Dataset::validation_domains`].
    pub fn validation_domains(&self, index: usize) -> Option<Vec<u32>> {
        self.dataset()?.validation_domains(index)
    }

    /// Number of sequences of `tokens` tokens in the validation set, without padding.
    pub fn validation_sequences(&self, tokens: u32) -> u64 {
        match self {
            Corpus::Dataset(data) => data.validation_windows() as u64,
            Corpus::Batches { validation, .. } => validation.iter().map(|batch| u64::from(batch.real_sequences(tokens))).sum(),
        }
    }

    /// SHA-256 of the data; empty for batches in memory.
    pub fn hash(&self) -> String {
        self.dataset().map(Dataset::hash).unwrap_or_default()
    }

    /// SHA-256 of the tokenizer; empty for batches in memory.
    pub fn tokenizer_hash(&self) -> String {
        self.tokenizer().map(Tokenizer::hash).unwrap_or_default()
    }

    /// The tokenizer, if there is text.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.dataset().map(Dataset::tokenizer)
    }

    /// The dataset, if there is text.
    pub fn dataset(&self) -> Option<&Dataset> {
        match self {
            Corpus::Dataset(data) => Some(data),
            Corpus::Batches { .. } => None,
        }
    }
}

/// The batch of a micro-step, cycling through the list.
fn in_turn(training: &[Batch], micro_step: u64) -> &Batch {
    &training[(micro_step % training.len() as u64) as usize]
}
