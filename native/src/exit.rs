//! Exit codes of the process.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | success; for a run: it made all its updates or stopped early; for an audit: nothing above a note |
//! | 1 | an audit found reasons to doubt, but none to refuse a conclusion |
//! | 2 | invalid input, or any other error; an audit refuses a conclusion |
//! | 3 | the run diverged |
//! | 4 | the device was lost |
//! | 74 | the last checkpoint, the summary or a result could not be written (as `EX_IOERR` in sysexits.h) |
//! | 75 | the same command, or `moelab resume`, may succeed later: the run was interrupted, or its folder is locked (as `EX_TEMPFAIL`) |
//! | 130 | terminated by a second Ctrl-C or SIGTERM |
//!
//! The exit code of a run is that of the reason in its summary ([`ExitReason::exit_code`]). An error before a run starts, or of
//! another command, is mapped to the reason that a run would have had.

use std::process::ExitCode;

use moelab::{config_file::Problems, lab::audit::Severity, run::summary::ExitReason};
use moelab_native::{err, print, problem::exit_code};

/// Prints the error, if any, and returns the exit code.
pub fn report(outcome: anyhow::Result<ExitReason>) -> ExitCode {
    let error = match outcome {
        Ok(reason) => return ExitCode::from(reason.exit_code()),
        Err(error) => error,
    };
    if let Some(problems) = error.downcast_ref::<Problems>() {
        err!("{problems}");
    } else {
        // Untrusted names may contain line feeds: continuation lines are indented.
        err!("error: {}", format!("{error:#}").replace('\n', "\n  "));
    }
    ExitCode::from(exit_code(&error))
}

/// Prints the error, if any, and returns the exit code of an audit: that of its most severe finding.
pub fn audited(outcome: anyhow::Result<Option<Severity>>) -> ExitCode {
    let code = match &outcome {
        Ok(None | Some(Severity::Note)) => 0,
        Ok(Some(Severity::Warn)) => 1,
        Ok(Some(Severity::Refuse)) => 2,
        Err(_) => return report(outcome.map(|_| ExitReason::Completed)),
    };
    match report(result(())) {
        written if written == ExitCode::SUCCESS => ExitCode::from(code),
        lost => lost,
    }
}

/// The exit code of a successful command other than a run: fails if the result could not be written.
pub fn result((): ()) -> anyhow::Result<ExitReason> {
    if let Some(error) = print::lost_output() {
        err!("error: the result could not be written to stdout: {error}");
        return Ok(ExitReason::SaveFailed);
    }
    Ok(ExitReason::Completed)
}
