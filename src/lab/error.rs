//! Why a run cannot be opened, or its end not be written.

use super::store::StoreError;
use crate::{run::identity::Refused, train::TrainError};

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// Device, data or divergence.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The run's folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run is over, and the folder cannot even take the summary.
    #[error("the run {ended}, and its summary could not be written: {error}")]
    Unwritten {
        /// Why it ended, in words.
        ended: String,
        /// Why it cannot be written.
        error: Box<StoreError>,
    },
    /// The folder's checkpoint is of another run.
    #[error("this run cannot be resumed: {0}")]
    Mismatch(String),
    /// What was found is not what the run was made from.
    #[error(transparent)]
    Refused(#[from] Refused),
}
