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

use super::dataset::Dataset;
use crate::run::summary::Baselines;

/// Maximum number of training pairs that are counted.
pub const MAX_PAIRS: usize = 4_000_000;
/// Number of pairs to count from an endless source.
const ENDLESS_PAIRS: usize = 1_000_000;

/// Fits on the training side of a dataset and scores its validation targets.
pub fn of(dataset: &Dataset) -> Baselines {
    let vocabulary = dataset.tokenizer().vocabulary();
    let most = if dataset.batches_per_epoch().is_some() { MAX_PAIRS } else { ENDLESS_PAIRS };
    let model = Bigram::fit(dataset.training_pairs(most), vocabulary);
    let (windows, used) = dataset.validation();
    let pairs = windows.pairs(0..used).collect::<Vec<_>>();
    let mean = |nats: &dyn Fn(u32, u32) -> f64| pairs.iter().map(|(a, b)| nats(*a, *b)).sum::<f64>() / pairs.len() as f64;
    Baselines {
        uniform: f64::from(vocabulary).ln(),
        unigram: mean(&|_, b| -model.unigram(b).ln()),
        bigram: mean(&|a, b| -model.bigram(a, b).ln()),
        entropy: entropy(dataset).filter(|nats| nats.is_finite()),
    }
}

/// True nats per validation target, if the documents are from the embedded language.
fn entropy(dataset: &Dataset) -> Option<f64> {
    let (language, (windows, used)) = (dataset.language()?, dataset.validation());
    let (stream, tokenizer) = (windows.stream(), dataset.tokenizer());
    let mut nats_of = Vec::with_capacity(stream.len());
    for piece in windows.pieces() {
        // A piece starts with a separator, which the scorer assumes when it starts.
        nats_of.push(0.0);
        let mut scorer = language.scorer();
        for id in stream.slice(piece).skip(1) {
            nats_of.push(tokenizer.spelling(id).iter().map(|byte| scorer.read(*byte)).sum::<f64>());
        }
    }
    let targets = (0..used).flat_map(|window| windows.target_range(window));
    let (sum, count) = targets.fold((0.0, 0u64), |(sum, count), at| (sum + nats_of[at], count + 1));
    Some(sum / count as f64)
}

/// A smoothed bigram model. Only pairs that occur have counts.
pub struct Bigram {
    unigram: Vec<f64>,
    /// How often each id occurs as the first of a pair.
    followed: Vec<u32>,
    /// (a << 32 | b, count), ascending.
    counts: Vec<(u64, u32)>,
    strength: f64,
}

impl Bigram {
    /// Counts (token, target) pairs, ids below `vocabulary`.
    pub fn fit(pairs: impl IntoIterator<Item = (u32, u32)>, vocabulary: u32) -> Self {
        let mut keys: Vec<u64> = pairs.into_iter().map(|(a, b)| u64::from(a) << 32 | u64::from(b)).collect();
        keys.sort_unstable();
        let total = keys.len() as f64 + f64::from(vocabulary);
        let mut unigram = vec![1.0; vocabulary as usize];
        let mut followed = vec![0; vocabulary as usize];
        let mut counts: Vec<(u64, u32)> = Vec::new();
        for key in keys {
            unigram[key as u32 as usize] += 1.0;
            followed[(key >> 32) as usize] += 1;
            match counts.last_mut() {
                Some((last, count)) if *last == key => *count += 1,
                _ => counts.push((key, 1)),
            }
        }
        unigram.iter_mut().for_each(|count| *count /= total);
        let mut model = Self { unigram, followed, counts, strength: 1.0 };
        let strengths = (-3..=8).map(|power| 4f64.powi(power));
        let best = strengths.map(|s| (s, model.left_out(s))).max_by(|a, b| a.1.total_cmp(&b.1));
        model.strength = best.expect("the list of strengths is not empty").0;
        model
    }

    /// ln of the probability of the training pairs under strength `s`, each predicted from all others.
    fn left_out(&self, s: f64) -> f64 {
        let one = |&(key, count): &(u64, u32)| {
            let [count, followed] = [count, self.followed[(key >> 32) as usize]].map(f64::from);
            count * ((count - 1.0 + s * self.unigram(key as u32)) / (followed - 1.0 + s)).ln()
        };
        self.counts.iter().map(one).sum()
    }

    /// P(b).
    pub fn unigram(&self, b: u32) -> f64 {
        self.unigram[b as usize]
    }

    /// P(b | a).
    pub fn bigram(&self, a: u32, b: u32) -> f64 {
        let key = u64::from(a) << 32 | u64::from(b);
        let count = self.counts.binary_search_by_key(&key, |(key, _)| *key).map_or(0, |at| self.counts[at].1);
        let followed = f64::from(self.followed[a as usize]);
        (f64::from(count) + self.strength * self.unigram(b)) / (followed + self.strength)
    }
}
