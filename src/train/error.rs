//! Errors that end training.

use thiserror::Error;

use crate::gpu::GpuError;

/// Why a trainer cannot continue.
#[derive(Clone, Debug, Error)]
pub enum TrainError {
    /// The adapter, the device or a plan.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// Too many consecutive updates had a non-finite gradient, or the result of an update is not finite.
    #[error(
        "the run diverged at update {update}: {what}, after {rollbacks} roll-backs. Lower the learning rates (optimizer.adamw.lr, optimizer.muon.lr), lengthen schedule.warmup, or clip harder (optimizer.clip_norm)"
    )]
    Diverged {
        /// The last update.
        update: u32,
        /// What is not finite.
        what: String,
        /// Number of roll-backs before.
        rollbacks: u32,
    },
}
