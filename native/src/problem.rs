//! Errors of a front end as problems of a session, and their exit codes.
//!
//! An error before a run starts, or of a command without a run, is mapped to the reason that a run would have had in its summary.

use moelab::{
    lab::{session::SessionError, store::StoreError, suite::SuiteError},
    run::{protocol::Problem, summary::ExitReason},
};

const TRY_AGAIN: u8 = 75;

/// Converts an error to a session's problem.
pub fn problem(error: &anyhow::Error) -> Problem {
    Problem { reason: reason(error), is_temporary: exit_code(error) == TRY_AGAIN, ..Problem::new(format!("{error:#}")) }
}

/// The exit code of the command line for an error, see [`ExitReason::exit_code`].
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(problem) = error.downcast_ref::<Problem>() {
        return problem.exit_code();
    }
    if let Some(StoreError::Busy { .. }) = store(error) { TRY_AGAIN } else { reason(error).exit_code() }
}

/// The error of a folder that another error is about.
fn store(error: &anyhow::Error) -> Option<&StoreError> {
    let of_session = || match error.downcast_ref() {
        Some(SessionError::Store(error)) => Some(error),
        _ => None,
    };
    let of_study = || match error.downcast_ref() {
        Some(SuiteError::Store(error)) => Some(error),
        _ => None,
    };
    error.downcast_ref().or_else(of_session).or_else(of_study)
}

/// The reason that a run would have ended with this error.
fn reason(error: &anyhow::Error) -> ExitReason {
    let problem = error.downcast_ref().map(|problem: &Problem| problem.reason);
    let session = error.downcast_ref().map(ExitReason::of_session);
    let store = store(error).map(ExitReason::of_store);
    let train = error.downcast_ref().map(ExitReason::of_train);
    let gpu = error.downcast_ref().map(ExitReason::of_gpu);
    problem.or(session).or(store).or(train).or(gpu).unwrap_or(ExitReason::Failed)
}
