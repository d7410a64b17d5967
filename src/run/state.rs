//! The state that a run needs to resume, besides weights and moments.
//!
//! Everything random is a function of (seed, step, stream), so there is no generator state: the seed and the counters
//! below suffice. Floats are stored bit-exactly (see [`exact`]).

pub use super::identity::{Change, Identity};
use super::{alarms::AlarmState, exact};
use serde::{Deserialize, Serialize};

/// The counters and hashes of a run between two updates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainState {
    /// Optimizer updates finished, skipped ones included.
    pub update: u32,
    /// Micro-steps finished since the start of the run.
    pub micro_step: u64,
    /// Tokens seen since the start of the run, without padding.
    pub tokens: u64,
    /// Seed of every random stream.
    pub seed: u64,
    /// Position of the next training batch.
    pub data: DataCursor,
    /// Position of the schedules.
    pub schedule: SchedulePosition,
    /// The best evaluation so far.
    pub best: Option<BestEval>,
    /// The validation loss that last counted as an improvement, for early stopping; absent in older checkpoints.
    #[serde(with = "exact::option", default)]
    pub improved_to: Option<f64>,
    /// Evaluations since the last that counted as an improvement, for early stopping.
    pub evaluations_since_best: u32,
    /// Whether the evaluation due after this update is still to be made because the run was interrupted.
    #[serde(default)]
    pub evaluation_pending: bool,
    /// The state of the alarms.
    #[serde(default)]
    pub alarms: AlarmState,
    /// Updates that were not applied.
    pub skipped: Skipped,
    /// What the run was trained from.
    pub identity: Identity,
    /// Settings that were changed during the run, in chronological order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

impl TrainState {
    /// The state before the first update.
    pub fn new(seed: u64, identity: Identity) -> TrainState {
        TrainState {
            update: 0,
            micro_step: 0,
            tokens: 0,
            seed,
            data: DataCursor::default(),
            schedule: SchedulePosition::default(),
            best: None,
            improved_to: None,
            evaluations_since_best: 0,
            evaluation_pending: false,
            alarms: AlarmState::default(),
            skipped: Skipped::default(),
            identity,
            changes: Vec::new(),
        }
    }
}

/// Position in the training data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataCursor {
    /// Micro-batches that roll-backs skipped: micro-step m trains on batch m + offset.
    pub offset: u64,
}

/// Arguments of the learning-rate and coefficient schedules, one for each unit.
///
/// They differ from `update` and `micro_step` only if a roll-back reset the run but not its schedules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SchedulePosition {
    /// Position of schedules in `updates`.
    pub updates: u32,
    /// Position of schedules in `micro_steps`.
    pub micro_steps: u64,
}

/// The best evaluation so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BestEval {
    /// Update after which it was measured.
    pub update: u32,
    /// Validation cross-entropy, nats per token.
    #[serde(with = "exact")]
    pub val_ce: f64,
}

/// Skipped updates and roll-backs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skipped {
    /// Updates with a non-finite loss or gradient.
    pub non_finite: u64,
    /// Number of consecutive updates skipped up to now.
    pub in_a_row: u32,
    /// Roll-backs to a checkpoint because too many consecutive updates were skipped.
    pub rollbacks: u32,
}
