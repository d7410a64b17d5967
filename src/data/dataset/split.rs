//! Splitting into training and validation by document, before any window is cut.

use std::collections::HashMap;

use super::DataError;
use crate::random::Stream;
use crate::run::config::{SplitOptions, SplitRule};

/// Streams of random numbers (see [`crate::random`]) used by the data.
pub(super) mod streams {
    pub const SPLIT: u32 = 0xda7a_0000;
    pub const ORDER: u32 = 0xda7a_0001;
}

/// The documents of each side, by index, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Trained on.
    pub training: Vec<usize>,
    /// Held out.
    pub validation: Vec<usize>,
}

impl Split {
    /// Splits documents identified by a digest. Equal ones go to the same side, that of the first of them; the fraction
    /// counts distinct documents.
    pub fn of(digests: &[[u8; 32]], options: &SplitOptions) -> Result<Self, DataError> {
        let mut number_of: HashMap<[u8; 32], usize> = HashMap::new();
        let number = |digest: &[u8; 32]| {
            let next = number_of.len();
            *number_of.entry(*digest).or_insert(next)
        };
        let numbers: Vec<usize> = digests.iter().map(number).collect();
        let distinct = number_of.len();
        if distinct < 2 {
            return Err(DataError::TooFewDocuments { documents: digests.len(), distinct });
        }
        let held_out = ((distinct as f64 * options.fraction).round() as usize).clamp(1, distinct - 1);
        let mut order: Vec<usize> = (0..distinct).collect();
        if options.rule == SplitRule::Shuffled {
            shuffle(&mut order, Stream { seed: options.seed, step: 0, stream: streams::SPLIT });
        }
        let mut is_validation = vec![false; distinct];
        order[distinct - held_out..].iter().for_each(|number| is_validation[*number] = true);
        let (validation, training) = (0..digests.len()).partition(|document| is_validation[numbers[*document]]);
        Ok(Self { training, validation })
    }
}

/// Shuffles uniformly, in place (Fisher-Yates).
pub(super) fn shuffle(items: &mut [usize], stream: Stream) {
    for last in (1..items.len()).rev() {
        let [low, high, ..] = stream.bits(last as u32);
        let bits = u64::from(low) | u64::from(high) << 32;
        items.swap(last, ((u128::from(bits) * (last as u128 + 1)) >> 64) as usize);
    }
}
