//! Why a run cannot be opened or finished.

use super::store::StoreError;
use crate::{
    data::DataError,
    gpu::GpuError,
    run::{identity::Refused, protocol::Problem, summary::ExitReason},
    train::TrainError,
};

/// Why a session cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// An error of the device or the data, or divergence.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The run's folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run has ended, but its summary could not be written.
    #[error("the run {ended}, and its summary could not be written: {error}")]
    Unwritten {
        /// Why it ended, as text.
        ended: String,
        /// Why it cannot be written.
        error: Box<StoreError>,
    },
    /// The folder's checkpoint is of another run.
    #[error("this run cannot be resumed: {0}")]
    Mismatch(String),
    /// The run has no checkpoint.
    #[error("{run}: there is no checkpoint yet: resume the run, which saves one")]
    Unsaved {
        /// The run.
        run: String,
    },
    /// Config or data do not match the run.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl From<SessionError> for Problem {
    fn from(error: SessionError) -> Problem {
        let reason = ExitReason::of_session(&error);
        match error {
            SessionError::Train(TrainError::Gpu(error)) => error.into(),
            SessionError::Store(error) => error.into(),
            error => Problem { reason, ..Problem::new(error.to_string()) },
        }
    }
}

impl From<TrainError> for Problem {
    fn from(error: TrainError) -> Problem {
        SessionError::from(error).into()
    }
}

impl From<GpuError> for Problem {
    fn from(error: GpuError) -> Problem {
        let problem = Problem { reason: ExitReason::of_gpu(&error), ..Problem::new(error.to_string()) };
        match error {
            GpuError::NoAdapter { wanted, found } => Problem { wanted: Some(wanted.into()), found: Some(found.into()), ..problem },
            GpuError::Limit { what, wanted, found, remedy, .. } => Problem {
                place: Some(what.into()),
                wanted: Some(wanted.to_string().into()),
                found: Some(found.to_string().into()),
                remedy: Some(remedy.into()),
                ..problem
            },
            GpuError::NoMatrices { adapter, .. } => Problem {
                place: Some("train.precision".into()),
                wanted: Some("an adapter with cooperative matrices".into()),
                found: Some(adapter.into()),
                remedy: Some("set it to \"f32\"".into()),
                ..problem
            },
            GpuError::UnknownKernels { name } => Problem {
                place: Some("kernels.without".into()),
                wanted: Some("modules of kernels that others can replace".into()),
                found: Some(name.into()),
                remedy: Some("measure again with `moelab tune`".into()),
                ..problem
            },
            GpuError::Lost { adapter, reason: found } => Problem {
                place: Some(adapter.into()),
                found: Some(found.into()),
                remedy: Some("resume the run: its last checkpoint is intact (`moelab resume`)".into()),
                ..problem
            },
            GpuError::Refused { adapter, reason: found, .. } | GpuError::Fault { adapter, message: found } => {
                Problem { place: Some(adapter.into()), found: Some(found.into()), ..problem }
            }
            GpuError::Timeout { adapter, .. } => Problem { place: Some(adapter.into()), ..problem },
        }
    }
}

impl From<DataError> for Problem {
    fn from(error: DataError) -> Problem {
        Problem::new(error.to_string())
    }
}
