//! Learning-rate schedules: a multiplier on the learning rates of all optimizers; and the balance schedule, the factor on the
//! load-balancing loss.
//!
//! s is the number of units (updates or micro-steps) completed *before* the update that uses the multiplier: the
//! first update has s = 0, and with a warm-up a learning rate of 0. W is the warm-up, S the horizon, m the floor:
//!
//! | kind | multiplier at s >= W |
//! |---|---|
//! | constant | 1 |
//! | cosine | m + (1 - m) (1 + cos(pi p)) / 2 |
//! | linear | m + (1 - m) (1 - p) |
//! | step | 0.5 ^ floor((s - W) / floor(S / 4)) |
//! | hold_then_linear | 1 until S - decay, then m + (1 - m) (S - s) / decay |
//! | range | m ^ (1 - p), rising from m to 1 |
//!
//! with progress p = (s - W) / (S - W). Except in a range, a clamped floor uses max(m, the same with m = 0) instead. Before W, the
//! multiplier is s / W for all kinds. Beyond S it keeps its value at S.
//! A horizon beyond the end of the run is allowed: then the floor is never reached, as in the published exp8 runs.

use super::model::{Balance, BalanceKind, BalanceSchedule, BalanceScheduleKind};
use crate::config_file::Amount;
use crate::{choices, options};

choices! {
    /// The unit of a number of steps.
    pub enum Unit {
        /// optimizer updates.
        Updates = "updates",
        /// micro-batches: forward and backward passes, an update may have several.
        MicroSteps = "micro_steps",
    }
}

choices! {
    /// Shape of the schedule after the warm-up.
    pub enum ScheduleKind {
        /// stays at 1.
        Constant = "constant",
        /// decays to the floor along half a cosine.
        Cosine = "cosine",
        /// decays linearly to the floor.
        Linear = "linear",
        /// halves after each quarter of the horizon.
        Step = "step",
        /// stays at 1, then decays linearly to the floor (warm-up, stable, decay).
        HoldThenLinear = "hold_then_linear",
        /// rises exponentially from the floor to 1, to find a learning rate (range test).
        Range = "range",
    }
}

choices! {
    /// How the floor affects the curve of a schedule.
    pub enum Floor {
        /// the curve is rescaled to end at the floor.
        Reached = "reached",
        /// the curve decays to 0 and is clamped at the floor.
        Clamped = "clamped",
    }
}

options! {
    /// Learning-rate schedule, a factor on every learning rate.
    pub struct ScheduleOptions: optimisation {
        /// Shape after the warm-up.
        kind: ScheduleKind = ScheduleKind::Cosine;
        /// Unit of warm-up and horizon.
        unit: Unit = Unit::Updates;
        /// Length W of the warm-up: a count, or a percentage of the horizon. The rate rises from 0, in the run's first
        /// update, in W steps of 1 / W; with 0 the first update has the full rate.
        warmup: Amount = Amount::Percent(5.0) => 0..=1_000_000_000;
        /// End of the schedule: a count, or a percentage of the run. It may be beyond the end of the run.
        #[when("schedule.kind" = "cosine" | "linear" | "step" | "hold_then_linear" | "range")]
        horizon: Amount = Amount::Percent(100.0) => 0..=1_000_000_000;
        /// The floor, as a share of the peak.
        #[when("schedule.kind" = "cosine" | "linear" | "hold_then_linear" | "range")]
        min_ratio: f64 = 0.1 => 0.0..=1.0;
        /// How the floor affects the curve.
        #[when("schedule.kind" = "cosine" | "linear" | "hold_then_linear")]
        floor: Floor = Floor::Reached;
        /// Length of the final decay: a count, or a percentage of the horizon.
        #[when("schedule.kind" = "hold_then_linear")]
        decay: Amount = Amount::Percent(20.0) => 0..=1_000_000_000;
    }
}

/// A schedule with its numbers resolved.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Shape after the warm-up.
    pub kind: ScheduleKind,
    /// Unit of warm-up, horizon and s.
    pub unit: Unit,
    /// W.
    pub warmup: u32,
    /// S.
    pub horizon: u32,
    /// m.
    pub min_ratio: f64,
    /// How m affects the curve.
    pub floor: Floor,
    /// Length of the decay of hold_then_linear.
    pub decay: u32,
    /// Micro-batches per update.
    pub micro_batches: u32,
}

impl Schedule {
    /// Resolves the numbers for a run of `updates` updates of `micro_batches` micro-batches each.
    pub fn new(options: &ScheduleOptions, updates: u32, micro_batches: u32) -> Self {
        let ScheduleOptions { kind, unit, warmup, horizon, min_ratio, floor, decay } = *options;
        let run = match unit {
            Unit::Updates => updates,
            Unit::MicroSteps => updates.saturating_mul(micro_batches),
        };
        let horizon = horizon.of(run);
        Self { kind, unit, warmup: warmup.of(horizon), horizon, min_ratio, floor, decay: decay.of(horizon), micro_batches }
    }

    /// The factor on the learning rates of the update that follows `updates_done` updates.
    pub fn at_update(&self, updates_done: u32) -> f64 {
        self.multiplier(self.position(updates_done))
    }

    /// Whether the warm-up is over in the update that follows `updates_done` updates.
    pub fn is_warm(&self, updates_done: u32) -> bool {
        self.position(updates_done) >= self.warmup
    }

    /// The updates after which the curve has a corner, with a word: the end of the warm-up, the start of the decay, the horizon.
    pub fn corners(&self) -> Vec<(u32, &'static str)> {
        let per_update = match self.unit {
            Unit::Updates => 1,
            Unit::MicroSteps => self.micro_batches.max(1),
        };
        let has_horizon = self.kind != ScheduleKind::Constant;
        let mut corners = Vec::new();
        if self.warmup > 0 {
            corners.push((self.warmup, "warm-up ends"));
        }
        if self.kind == ScheduleKind::HoldThenLinear {
            corners.push((self.horizon.saturating_sub(self.decay), "decay starts"));
        }
        if has_horizon {
            corners.push((self.horizon, "schedule ends"));
        }
        corners.into_iter().map(|(at, word)| (at.div_ceil(per_update), word)).collect()
    }

    /// s after `updates_done` updates.
    fn position(&self, updates_done: u32) -> u32 {
        match self.unit {
            Unit::Updates => updates_done,
            Unit::MicroSteps => updates_done.saturating_mul(self.micro_batches),
        }
    }

    /// The multiplier at s, in the schedule's own unit.
    pub fn multiplier(&self, s: u32) -> f64 {
        if s < self.warmup {
            return f64::from(s) / f64::from(self.warmup);
        }
        let since = s.min(self.horizon).saturating_sub(self.warmup);
        let span = self.horizon.saturating_sub(self.warmup).max(1);
        let progress = f64::from(since) / f64::from(span);
        let above_floor = match self.kind {
            ScheduleKind::Constant => return 1.0,
            ScheduleKind::Range => return self.min_ratio.powf(1.0 - progress),
            ScheduleKind::Step => return 0.5f64.powf(f64::from(since / (self.horizon / 4).max(1))),
            ScheduleKind::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            ScheduleKind::Linear => 1.0 - progress,
            ScheduleKind::HoldThenLinear => {
                let left = self.horizon.saturating_sub(s);
                (f64::from(left) / f64::from(self.decay.max(1))).min(1.0)
            }
        };
        match self.floor {
            Floor::Reached => self.min_ratio + (1.0 - self.min_ratio) * above_floor,
            Floor::Clamped => above_floor.max(self.min_ratio),
        }
    }
}

/// The factor on the load-balancing loss before an update, after `updates_done` of `updates` (rnn-transformer's schedule: constant,
/// then linear).
///
/// A percentage is of the whole run, rounded; so a resumed run continues where it stopped.
pub fn balance_coefficient(balance: &Balance, updates_done: u32, updates: u32) -> f64 {
    let BalanceSchedule { kind, end, hold, decay_end } = balance.schedule;
    if balance.kind == BalanceKind::Off {
        return 0.0;
    }
    if kind == BalanceScheduleKind::Constant {
        return balance.coefficient;
    }
    let rounded = |amount: Amount| match amount {
        Amount::Count(count) => count,
        Amount::Percent(percent) => (f64::from(updates) * percent / 100.0).round() as u32,
    };
    let hold = rounded(hold);
    let span = rounded(decay_end).saturating_sub(hold);
    if span == 0 || updates_done <= hold {
        return balance.coefficient;
    }
    let progress = (f64::from(updates_done - hold) / f64::from(span)).min(1.0);
    balance.coefficient + (end - balance.coefficient) * progress
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_are_where_the_slope_changes() {
        let options = ScheduleOptions { warmup: Amount::Percent(10.0), ..ScheduleOptions::default() };
        for kind in [ScheduleKind::Cosine, ScheduleKind::Linear, ScheduleKind::HoldThenLinear, ScheduleKind::Constant] {
            for (unit, micro_batches) in [(Unit::Updates, 1), (Unit::MicroSteps, 4)] {
                let schedule =
                    Schedule::new(&ScheduleOptions { kind, unit, horizon: Amount::Percent(80.0), ..options }, 1000, micro_batches);
                let corners: Vec<u32> = schedule.corners().iter().map(|(at, _)| *at).collect();
                let bend = |at: u32| (schedule.at_update(at + 1) - 2.0 * schedule.at_update(at) + schedule.at_update(at - 1)).abs();
                // Half a cosine bends everywhere, but a hundred times less than at the end of its warm-up; it is flat at both of its ends.
                let found: Vec<u32> = (2..1000).filter(|at| bend(*at) > 1e-3).collect();
                let sharp: Vec<u32> = corners.iter().copied().filter(|at| kind != ScheduleKind::Cosine || *at < 400).collect();
                assert_eq!(found, sharp, "{kind:?} in {unit:?}: {corners:?}");
            }
        }
    }
}
