//! From errors to exit codes.

use std::process::ExitCode;

use moelab::{config_file::Problems, gpu::GpuError, train::TrainError};
use moelab_native::{err, print};

/// Bad input, or any fault that is not one of the others.
const BAD_INPUT: u8 = 2;
const DIVERGED: u8 = 3;
const DEVICE_LOST: u8 = 4;
/// As in sysexits.h: an error of input or output.
const NOT_WRITTEN: u8 = 74;
/// As in sysexits.h: the same command may succeed later.
const TRY_AGAIN: u8 = 75;

/// Someone else holds what is needed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Busy(pub String);

/// Prints the error, if any, and gives the exit code.
pub fn report(outcome: anyhow::Result<()>) -> ExitCode {
    let Err(error) = outcome else {
        return match print::lost_output() {
            None => ExitCode::SUCCESS,
            Some(error) => {
                err!("error: the result could not be written to stdout: {error}");
                ExitCode::from(NOT_WRITTEN)
            }
        };
    };
    if let Some(problems) = error.downcast_ref::<Problems>() {
        err!("{problems}");
    } else {
        err!("error: {error:#}");
    }
    ExitCode::from(code(&error))
}

fn code(error: &anyhow::Error) -> u8 {
    let gpu = error.downcast_ref::<GpuError>().or(match error.downcast_ref::<TrainError>() {
        Some(TrainError::Gpu(gpu)) => Some(gpu),
        _ => None,
    });
    if gpu.is_some_and(GpuError::is_lost) {
        return DEVICE_LOST;
    }
    if matches!(error.downcast_ref::<TrainError>(), Some(TrainError::Diverged { .. })) {
        return DIVERGED;
    }
    if error.downcast_ref::<Busy>().is_some() { TRY_AGAIN } else { BAD_INPUT }
}
