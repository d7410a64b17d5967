//! Learning-rate schedules: a multiplier on the learning rates of all optimizers; and the balance schedule, the factor on the
//! load-balancing loss.
//!
//! s counts what the schedule's unit says, updates or micro-steps, done *before* the update that uses the multiplier: the
//! first update has s = 0, and with a warm-up a learning rate of 0. W is the warm-up, S the horizon, m the floor:
//!
//! | kind | multiplier at s >= W |
//! |---|---|
//! | constant | 1 |
//! | cosine | m + (1 - m) (1 + cos(pi p)) / 2 |
//! | linear | m + (1 - m) (1 - p) |
//! | step | 0.5 ^ floor((s - W) / floor(S / 4)) |
//! | hold_then_linear | 1 until S - decay, then m + (1 - m) (S - s) / decay |
//!
//! with progress p = (s - W) / (S - W). A clamped floor gives max(m, the same with m = 0) instead. And s / W before W for all of them. Beyond S the multiplier stays what it is at S.
//! A horizon beyond the end of the run is allowed: then the floor is never reached, as in the published exp8 runs.

use super::model::{Balance, BalanceKind, BalanceSchedule, BalanceScheduleKind};
use crate::config_file::Amount;
use crate::{choices, options};

choices! {
    /// What a number of steps counts.
    pub enum Unit {
        /// optimizer updates.
        Updates = "updates",
        /// micro-batches: forward and backward passes, several of which may make one update.
        MicroSteps = "micro_steps",
    }
}

choices! {
    /// Shape of the schedule after the warm-up.
    pub enum ScheduleKind {
        /// stays at 1.
        Constant = "constant",
        /// falls along half a cosine to the floor.
        Cosine = "cosine",
        /// falls along a line to the floor.
        Linear = "linear",
        /// halves after each quarter of the horizon.
        Step = "step",
        /// stays at 1, then falls along a line to the floor (warm-up, stable, decay).
        HoldThenLinear = "hold_then_linear",
    }
}

choices! {
    /// What the floor does to a schedule's curve.
    pub enum Floor {
        /// the curve is squeezed, so that it ends there.
        Reached = "reached",
        /// the curve runs to 0, and is cut off there.
        Clamped = "clamped",
    }
}

options! {
    /// Learning-rate schedule, a factor on every learning rate.
    pub struct ScheduleOptions: optimisation {
        /// Shape after the warm-up.
        kind: ScheduleKind = ScheduleKind::Cosine;
        /// What warm-up and horizon count.
        unit: Unit = Unit::Updates;
        /// Length W of the warm-up: a count, or a percentage of the horizon. The rate rises from 0, which is that of the run's first
        /// update, in W steps of 1 / W; with 0 the first update has the full rate.
        warmup: Amount = Amount::Percent(5.0) => 0..=1_000_000_000;
        /// Where the schedule ends: a count, or a percentage of the run. May lie beyond the run's end.
        #[when("schedule.kind" = "cosine" | "linear" | "step" | "hold_then_linear")]
        horizon: Amount = Amount::Percent(100.0) => 0..=1_000_000_000;
        /// The floor, as a share of the peak.
        #[when("schedule.kind" = "cosine" | "linear" | "hold_then_linear")]
        min_ratio: f64 = 0.1 => 0.0..=1.0;
        /// What the floor does to the curve.
        #[when("schedule.kind" = "cosine" | "linear" | "hold_then_linear")]
        floor: Floor = Floor::Reached;
        /// Length of the fall at the end: a count, or a percentage of the horizon.
        #[when("schedule.kind" = "hold_then_linear")]
        decay: Amount = Amount::Percent(20.0) => 0..=1_000_000_000;
    }
}

/// A schedule with its numbers worked out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Shape after the warm-up.
    pub kind: ScheduleKind,
    /// What warm-up, horizon and s count.
    pub unit: Unit,
    /// W.
    pub warmup: u32,
    /// S.
    pub horizon: u32,
    /// m.
    pub min_ratio: f64,
    /// What m does to the curve.
    pub floor: Floor,
    /// Length of the fall of hold_then_linear.
    pub decay: u32,
    /// Micro-batches an update.
    pub micro_batches: u32,
}

impl Schedule {
    /// Works out the numbers for a run of `updates` updates of `micro_batches` micro-batches each.
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

    /// Whether the warm-up lies before the update that follows `updates_done` updates.
    pub fn is_warm(&self, updates_done: u32) -> bool {
        self.position(updates_done) >= self.warmup
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

/// The factor on the load-balancing loss before an update, after `updates_done` of `updates` (rnn-transformer's schedule: it holds,
/// then moves along a line).
///
/// A percentage is of the whole run, rounded; so a resumed run goes on where it was.
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
