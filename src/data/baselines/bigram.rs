//! A smoothed bigram model, fitted in slices.

use std::mem;

/// Pairs or counts that one call of [`BigramFit::proceed`] handles: a few milliseconds, most of them for the logarithms.
const SLICE: usize = 1 << 14;

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
        let mut fit = BigramFit::new(vocabulary);
        fit.count(pairs);
        loop {
            if let Some(model) = fit.proceed() {
                return model;
            }
        }
    }

    /// ln of the probability of a pair's occurrences under strength `s`, each predicted from all others.
    fn left_out(&self, (key, count): (u64, u32), s: f64) -> f64 {
        let [count, followed] = [count, self.followed[(key >> 32) as usize]].map(f64::from);
        count * ((count - 1.0 + s * self.unigram(key as u32)) / (followed - 1.0 + s)).ln()
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

/// A [`Bigram`] that is being fitted: [`BigramFit::count`] as often as needed, then [`BigramFit::proceed`] until it returns the model.
///
/// Pairs are sorted by two counting passes, by b and then by a, because these can be interrupted anywhere.
pub(super) struct BigramFit {
    model: Bigram,
    /// a << 32 | b of each pair.
    keys: Vec<u64>,
    /// The keys in the order of the current pass.
    sorted: Vec<u64>,
    /// How often each id occurs as a target, besides the smoothing.
    targets: Vec<u32>,
    /// For each id, where its next key belongs in `sorted`.
    places: Vec<usize>,
    /// The strengths, and the logarithm of the training pairs' probability under each.
    strengths: Vec<(f64, f64)>,
    stage: Stage,
    /// Number of keys or counts that the stage has handled.
    done: usize,
}

#[derive(Clone, Copy)]
enum Stage {
    SortTargets,
    SortTokens,
    Count,
    Weigh,
}

/// The bits of the key by which a pass sorts.
fn id_of(stage: Stage, key: u64) -> usize {
    match stage {
        Stage::SortTargets => key as u32 as usize,
        _ => (key >> 32) as usize,
    }
}

impl BigramFit {
    /// Without pairs.
    pub fn new(vocabulary: u32) -> BigramFit {
        let followed = vec![0; vocabulary as usize];
        let unigram = vec![1.0; vocabulary as usize];
        BigramFit {
            targets: followed.clone(),
            model: Bigram { unigram, followed, counts: Vec::new(), strength: 1.0 },
            keys: Vec::new(),
            sorted: Vec::new(),
            places: Vec::new(),
            strengths: (-3..=8).map(|power| (4f64.powi(power), 0.0)).collect(),
            stage: Stage::SortTargets,
            done: 0,
        }
    }

    /// Number of pairs counted so far.
    pub fn pairs(&self) -> usize {
        self.keys.len()
    }

    /// Counts pairs.
    pub fn count(&mut self, pairs: impl IntoIterator<Item = (u32, u32)>) {
        for (a, b) in pairs {
            self.keys.push(u64::from(a) << 32 | u64::from(b));
            self.model.followed[a as usize] += 1;
            self.targets[b as usize] += 1;
        }
    }

    /// Continues after the last pair was counted; returns the model when it is complete.
    pub fn proceed(&mut self) -> Option<Bigram> {
        let total = if let Stage::Weigh = self.stage { self.model.counts.len() } else { self.keys.len() };
        let slice = self.done..total.min(self.done + SLICE);
        if self.done == 0 {
            self.enter();
        }
        self.done = slice.end;
        match self.stage {
            Stage::SortTargets | Stage::SortTokens => {
                for &key in &self.keys[slice] {
                    let place = &mut self.places[id_of(self.stage, key)];
                    self.sorted[*place] = key;
                    *place += 1;
                }
            }
            Stage::Count => {
                for &key in &self.keys[slice] {
                    match self.model.counts.last_mut() {
                        Some((last, count)) if *last == key => *count += 1,
                        _ => self.model.counts.push((key, 1)),
                    }
                }
            }
            Stage::Weigh => {
                for &count in &self.model.counts[slice] {
                    self.strengths.iter_mut().for_each(|(strength, sum)| *sum += self.model.left_out(count, *strength));
                }
            }
        }
        if self.done < total {
            return None;
        }
        self.done = 0;
        self.stage = match self.stage {
            Stage::SortTargets => Stage::SortTokens,
            Stage::SortTokens => Stage::Count,
            Stage::Count => Stage::Weigh,
            Stage::Weigh => return Some(self.finish()),
        };
        if !matches!(self.stage, Stage::Weigh) {
            mem::swap(&mut self.keys, &mut self.sorted);
        }
        None
    }

    /// Prepares a stage.
    fn enter(&mut self) {
        let occurrences = match self.stage {
            Stage::SortTargets => &self.targets,
            Stage::SortTokens => &self.model.followed,
            Stage::Count => {
                self.sorted = Vec::new();
                return;
            }
            Stage::Weigh => {
                let smoothed = self.keys.len() as f64 + self.model.unigram.len() as f64;
                for (probability, count) in self.model.unigram.iter_mut().zip(&self.targets) {
                    *probability = (*probability + f64::from(*count)) / smoothed;
                }
                return;
            }
        };
        self.sorted.resize(self.keys.len(), 0);
        self.places.clear();
        self.places.extend(occurrences.iter().scan(0, |before, count| {
            let place = *before;
            *before += *count as usize;
            Some(place)
        }));
    }

    fn finish(&mut self) -> Bigram {
        let empty = Bigram { unigram: Vec::new(), followed: Vec::new(), counts: Vec::new(), strength: 1.0 };
        let best = self.strengths.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        self.model.strength = best.expect("the list of strengths is not empty").0;
        mem::replace(&mut self.model, empty)
    }
}
