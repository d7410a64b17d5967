//! Baselines: the cross-entropy of simple predictors on the validation targets, in nats per token.
//!
//! - *uniform*: ln V of the tokenizer. A model with more ids than its tokenizer starts higher, at about ln of its own V.
//! - *unigram*: P(b) = (c(b) + 1) / (N + V), counted over training targets.
//! - *bigram*: P(b | a) = (c(a, b) + s P(b)) / (c(a) + s) with the unigram as prior (MacKay & Peto 1995, "A hierarchical
//!   Dirichlet language model"). The strength s is chosen from 4^-3 .. 4^8 to maximise the leave-one-out likelihood of the
//!   training pairs, without using validation data.
//! - *entropy*: for the embedded language, the true `-ln p` of the same targets, which no model beats in expectation
//!   (see [`crate::data::language`] for the conditioning).
//!
//! Counts are over at most [`MAX_PAIRS`] training pairs, the first in the order of the documents. With a tokenizer that merges
//! bytes the entropy is only a bound: an id at which a window cuts its document is scored as its bytes.

mod bigram;

use super::dataset::Dataset;
use crate::run::summary::Baselines;
pub use bigram::Bigram;
use bigram::BigramFit;

/// Maximum number of training pairs that are counted.
pub const MAX_PAIRS: usize = 4_000_000;
/// Number of pairs to count from an endless source.
const ENDLESS_PAIRS: usize = 1_000_000;

/// Tokens or pairs that one call of [`Fit::proceed`] handles, if a window or a document has no more.
const SLICE: usize = 1 << 11;

/// Baselines that are being computed: fitted on the training side of a dataset, scored on its validation targets.
pub struct Fit {
    most: usize,
    stage: Stage,
    /// The bigram model, once it is fitted.
    model: Option<Bigram>,
    /// Sums over the validation pairs so far: unigram, bigram.
    sums: [f64; 2],
    pairs: usize,
    /// True nats of each token of the validation stream so far, and its pieces so far.
    nats_of: Vec<f64>,
    pieces: usize,
    /// True nats of the validation targets so far, and their number.
    entropy: (f64, u64),
}

/// The windows that were handled so far.
enum Stage {
    Counting(usize, Box<BigramFit>),
    Fitting(Box<BigramFit>),
    Scoring(usize),
    /// The validation stream is scored by the language.
    Language,
    Summing(usize),
}

impl Fit {
    /// Starts. The dataset is passed to each call.
    pub fn new(dataset: &Dataset) -> Fit {
        Fit {
            most: if dataset.batches_per_epoch().is_some() { MAX_PAIRS } else { ENDLESS_PAIRS },
            stage: Stage::Counting(0, Box::new(BigramFit::new(dataset.tokenizer().vocabulary()))),
            model: None,
            sums: [0.0; 2],
            pairs: 0,
            nats_of: Vec::new(),
            pieces: 0,
            entropy: (0.0, 0),
        }
    }

    /// Continues for a few milliseconds; returns the baselines when they are complete.
    pub fn proceed(&mut self, dataset: &Dataset) -> Option<Baselines> {
        let (windows, used) = dataset.validation();
        // Windows of a slice.
        let slice = |first: usize| first..first + SLICE.div_ceil(dataset.window_targets().max(1) as usize);
        let stage = std::mem::replace(&mut self.stage, Stage::Language);
        self.stage = match stage {
            Stage::Counting(first, mut fit) => {
                let range = slice(first);
                let (end, before) = (range.end, fit.pairs());
                fit.count(dataset.training_pairs(range).into_iter().take(self.most - before));
                if fit.pairs() > before && fit.pairs() < self.most { Stage::Counting(end, fit) } else { Stage::Fitting(fit) }
            }
            Stage::Fitting(mut fit) => {
                self.model = fit.proceed();
                if self.model.is_none() { Stage::Fitting(fit) } else { Stage::Scoring(0) }
            }
            Stage::Scoring(first) => {
                let range = first..slice(first).end.min(used);
                let end = range.end;
                for (a, b) in windows.pairs(range) {
                    let Some(model) = &self.model else { break };
                    self.sums[0] += -model.unigram(b).ln();
                    self.sums[1] += -model.bigram(a, b).ln();
                    self.pairs += 1;
                }
                match dataset.language() {
                    _ if end < used => Stage::Scoring(end),
                    Some(_) => Stage::Language,
                    None => return Some(self.finish(dataset)),
                }
            }
            Stage::Language => {
                self.score(dataset);
                if self.nats_of.len() < windows.stream().len() { Stage::Language } else { Stage::Summing(0) }
            }
            Stage::Summing(first) => {
                let nats_of = &self.nats_of;
                let range = first..slice(first).end.min(used);
                let end = range.end;
                let targets = range.flat_map(|window| windows.target_range(window));
                self.entropy = targets.fold(self.entropy, |(sum, count), at| (sum + nats_of[at], count + 1));
                if end == used {
                    return Some(self.finish(dataset));
                }
                Stage::Summing(end)
            }
        };
        None
    }

    /// Scores the next documents of the validation stream. A slice ends after a document, where the scorer starts anew anyway.
    fn score(&mut self, dataset: &Dataset) {
        let (Some(language), (windows, _)) = (dataset.language(), dataset.validation()) else { return };
        let (tokenizer, end) = (dataset.tokenizer(), self.nats_of.len() + SLICE);
        let (mut scorer, mut is_between) = (language.scorer(), true);
        for piece in windows.pieces().skip(self.pieces) {
            let rest = piece.start.max(self.nats_of.len())..piece.end;
            if !is_between {
                scorer = language.scorer();
            }
            for at in rest {
                is_between = false;
                let id = windows.stream().get(at);
                // A piece starts with a separator, which the scorer assumes when it starts.
                let nats = |byte: &u8| scorer.read(*byte);
                self.nats_of.push(if at == piece.start { 0.0 } else { tokenizer.spelling(id).iter().map(nats).sum::<f64>() });
                if Some(id) == tokenizer.end_of_document() {
                    is_between = true;
                    if self.nats_of.len() >= end {
                        self.pieces += usize::from(at + 1 == piece.end);
                        return;
                    }
                }
            }
            self.pieces += 1;
        }
    }

    fn finish(&self, dataset: &Dataset) -> Baselines {
        let mean = |sum: f64| sum / self.pairs as f64;
        let entropy = dataset.language().map(|_| self.entropy.0 / self.entropy.1 as f64);
        Baselines {
            uniform: f64::from(dataset.tokenizer().vocabulary()).ln(),
            unigram: mean(self.sums[0]),
            bigram: mean(self.sums[1]),
            entropy: entropy.filter(|nats| nats.is_finite()),
        }
    }
}
