//! A sequence of random numbers for one purpose, such as a lexicon or a document.

use crate::random::philox4x32;

/// Sequential random numbers. Counters are (element, stream low, stream high, purpose); a purpose is never 0, so no number is
/// shared with a [`crate::random::Stream`].
pub(super) struct Draws {
    key: [u32; 2],
    counter: [u32; 4],
}

/// The purpose of a sequence.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// The words of the language.
    Lexicon = 1,
    /// The seed of a stream of documents.
    Documents,
    /// A document.
    Document,
}

fn halves(value: u64) -> [u32; 2] {
    [value as u32, (value >> 32) as u32]
}

fn whole(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

impl Draws {
    /// The numbers of `stream` for `seed`.
    pub fn new(seed: u64, stream: u64, purpose: Purpose) -> Self {
        let [low, high] = halves(stream);
        Self { key: halves(seed), counter: [0, low, high, purpose as u32] }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let [low, high, ..] = philox4x32(self.counter, self.key);
        self.counter[0] = self.counter[0].wrapping_add(1);
        whole(low, high)
    }

    /// Uniform in [0, 1) in steps of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform among `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// Shuffles uniformly, in place (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}
