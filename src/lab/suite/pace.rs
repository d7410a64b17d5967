//! How fast a study proceeds, and when it will be done.

use serde::{Deserialize, Serialize};

/// Where a study stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Runs that have ended, whatever became of them.
    pub over: usize,
    /// Of these, those that failed or diverged.
    pub failed: usize,
    /// Runs under way.
    pub active: usize,
    /// Planned runs. Adaptive repeats add some.
    pub runs: usize,
    /// Share of the planned floating-point operations that is done.
    pub done: f64,
    /// Estimated seconds until the planned runs are made; `None` before there is a sound estimate.
    pub seconds_left: Option<f64>,
    /// Mean seconds that a run took beyond its training: opening, checkpoints at its end, report.
    pub overhead_seconds: Option<f64>,
    /// The same as a share of the training time.
    pub overhead_share: Option<f64>,
}

/// The pace of the runs made so far.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    /// Seconds of training, and the floating-point operations made in them.
    training: f64,
    flop: f64,
    /// Seconds of slots beyond training, and the number of runs.
    overhead: f64,
    runs: u32,
}

/// Seconds of training before an estimate is sound: the first updates are slow.
const SOUND_SECONDS: f64 = 3.0;

impl Pace {
    /// Notes training: an update took so many seconds for so many operations.
    pub fn train(&mut self, seconds: f64, flop: f64) {
        if seconds > 0.0 {
            self.training += seconds;
            self.flop += flop;
        }
    }

    /// Notes the end of a run: the seconds that its slot spent on it beyond training.
    pub fn end(&mut self, overhead: f64) {
        self.overhead += overhead.max(0.0);
        self.runs += 1;
    }

    /// Mean seconds of a run beyond training, and their share of the training time.
    pub fn overhead(&self) -> Option<(f64, f64)> {
        (self.runs > 0).then(|| (self.overhead / f64::from(self.runs), self.overhead / self.training.max(f64::MIN_POSITIVE)))
    }

    /// Estimated seconds for so many operations in so many runs, on `slots` slots.
    pub fn seconds_for(&self, flop: f64, runs: usize, slots: usize) -> Option<f64> {
        let per_flop = (self.training >= SOUND_SECONDS && self.flop > 0.0).then(|| self.training / self.flop)?;
        let overhead = self.overhead().map_or(0.0, |(seconds, _)| seconds);
        Some((flop * per_flop + runs as f64 * overhead) / slots.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_is_made_from_what_was_measured() {
        let mut pace = Pace::default();
        assert_eq!((pace.seconds_for(1e9, 1, 1), pace.overhead()), (None, None));
        pace.train(2.0, 4e9);
        assert_eq!(pace.seconds_for(1e9, 1, 1), None, "too early");
        pace.train(2.0, 4e9);
        assert_eq!(pace.seconds_for(1e9, 3, 1), Some(0.5));
        pace.end(1.0);
        pace.end(3.0);
        assert_eq!(pace.overhead(), Some((2.0, 1.0)));
        assert_eq!(pace.seconds_for(1e9, 3, 2), Some((0.5 + 6.0) / 2.0));
    }
}
