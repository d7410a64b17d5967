//! The current speed of a run.

use std::collections::VecDeque;

use crate::run::records::{RATE_LEAST_UPDATES, RATE_SECONDS, RATE_UPDATES};

/// The speed of the last updates, see [`Time::tokens_per_second`](crate::run::records::Time).
#[derive(Default)]
pub struct Rate {
    /// When updates were completed, and the tokens until then.
    updates: VecDeque<(f64, u64)>,
}

impl Rate {
    /// Records an update that was completed at `seconds`, with `tokens` in total.
    pub fn note(&mut self, seconds: f64, tokens: u64) -> Option<f64> {
        if self.updates.back().is_some_and(|(_, before)| tokens < *before) {
            // The run rolled back to a checkpoint.
            self.updates.clear();
        }
        self.updates.push_back((seconds, tokens));
        while self.updates.len() > RATE_UPDATES + 1 && seconds - self.updates[1].0 >= RATE_SECONDS {
            self.updates.pop_front();
        }
        let (then, before) = self.updates[0];
        let is_enough = self.updates.len() > RATE_LEAST_UPDATES && seconds - then >= RATE_SECONDS;
        is_enough.then(|| (tokens - before) as f64 / (seconds - then))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_over_enough_updates_and_time() {
        let mut rate = Rate::default();
        assert_eq!(rate.note(5.0, 100), None, "the time before the first update does not count");
        assert_eq!(rate.note(5.000_001, 200), None, "two results that arrive together are none");
        assert_eq!(rate.note(5.5, 300), None);
        assert_eq!(rate.note(7.0, 400), Some(150.0));
        // A pause leaves the window only with its updates.
        let later: Vec<f64> = (1..=60).filter_map(|i| rate.note(7.0 + f64::from(i), 400 + 100 * u64::from(i as u32))).collect();
        assert_eq!(later.last(), Some(&100.0), "the last fifty updates");
        assert_eq!(rate.note(68.0, 50), None, "after a roll-back it starts again");
        let mut fast = Rate::default();
        let rates: Vec<Option<f64>> = (0..400).map(|i| fast.note(f64::from(i) / 128.0, 10 * i as u64)).collect();
        assert!(rates[..128].iter().all(Option::is_none) && rates[128..].iter().all(|r| *r == Some(1280.0)), "{rates:?}");
    }
}
