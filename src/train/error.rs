//! What can end training.

use thiserror::Error;

use crate::gpu::GpuError;

/// Why a trainer cannot go on.
#[derive(Clone, Debug, Error)]
pub enum TrainError {
    /// The adapter, the device or a plan.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// Too many updates in a row had no finite gradient.
    #[error(
        "the run diverged at update {update}: {in_a_row} updates in a row had a gradient that is not finite, after {rollbacks} roll-backs. Lower the learning rates (optimizer.adamw.lr, optimizer.muon.lr), lengthen schedule.warmup, or clip harder (optimizer.clip_norm)"
    )]
    Diverged {
        /// The last update.
        update: u32,
        /// Skipped updates before it, itself included.
        in_a_row: u32,
        /// Times the run had gone back before.
        rollbacks: u32,
    },
}
