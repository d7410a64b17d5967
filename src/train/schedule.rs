//! Learning-rate schedules: a multiplier on the learning rates of all optimizers.
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
//!
//! with progress p = (s - W) / (S - W), and s / W before W for all of them. Beyond S the multiplier stays what it is at S.
//! A horizon beyond the end of the run is allowed: then the floor is never reached, as in the published exp8 runs.

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
    }
}

options! {
    /// Learning-rate schedule, a factor on every learning rate.
    pub struct ScheduleOptions {
        /// Shape after the warm-up.
        kind: ScheduleKind = ScheduleKind::Cosine;
        /// What warm-up and horizon count.
        unit: Unit = Unit::Updates;
        /// Length of the warm-up: a count, or a percentage of the horizon.
        warmup: Amount = Amount::Percent(5.0) => 0..=1_000_000_000;
        /// Where the schedule ends: a count, or a percentage of the run. May lie beyond the run's end.
        #[when("schedule.kind" = "cosine" | "linear" | "step")]
        horizon: Amount = Amount::Percent(100.0) => 0..=1_000_000_000;
        /// The floor, as a share of the peak.
        #[when("schedule.kind" = "cosine" | "linear")]
        min_ratio: f64 = 0.1 => 0.0..=1.0;
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
    /// Micro-batches an update.
    pub micro_batches: u32,
}

impl Schedule {
    /// Works out the numbers for a run of `updates` updates of `micro_batches` micro-batches each.
    pub fn new(options: &ScheduleOptions, updates: u32, micro_batches: u32) -> Self {
        let ScheduleOptions { kind, unit, warmup, horizon, min_ratio } = *options;
        let run = match unit {
            Unit::Updates => updates,
            Unit::MicroSteps => updates.saturating_mul(micro_batches),
        };
        let horizon = horizon.of(run);
        Self { kind, unit, warmup: warmup.of(horizon), horizon, min_ratio, micro_batches }
    }

    /// The factor on the learning rates of the update that follows `updates_done` updates.
    pub fn at_update(&self, updates_done: u32) -> f64 {
        match self.unit {
            Unit::Updates => self.multiplier(updates_done),
            Unit::MicroSteps => self.multiplier(updates_done.saturating_mul(self.micro_batches)),
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
        };
        self.min_ratio + (1.0 - self.min_ratio) * above_floor
    }
}
