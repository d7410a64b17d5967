//! The audit of a study: with its data and on a device before the first run, which the study's folder then keeps. From configs and
//! results it is made by `moelab::lab::suite::audit`.

use anyhow::{Result, bail};
use moelab::lab::{
    audit::{self, Finding, Study},
    suite::{
        audit::{overridden, refusal},
        is_started, table,
    },
};
use moelab_native::err;

use super::Opened;
use crate::Common;

/// What the audit finds in a study before its first run: in its configs and data, and in single updates on the device. A study of tiny
/// runs takes some seconds for it, one of long runs less than for the shortest of them.
///
/// # Errors
/// An override of something that is no check; a device that cannot be opened.
pub fn before_first_run(common: &Common, opened: &Opened) -> Result<Vec<Finding>> {
    let mut study = Study { arms: opened.plan.arms.clone(), ..Study::default() };
    let mut findings = crate::audit::with_device(common, &mut study)?;
    findings.extend(audit::all(&study));
    Ok(overridden(&opened.suite, findings)?)
}

/// Whether no run of a study was started yet.
///
/// # Errors
/// A folder that cannot be read.
pub fn is_new(opened: &Opened) -> Result<bool> {
    if !opened.folder.is_dir() {
        return Ok(true);
    }
    let folders = opened.folders()?;
    for run in &opened.plan.runs {
        if is_started(&folders, &run.id)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Prints refusals and warnings.
pub fn show(findings: &[Finding]) {
    if let Some(text) = table::findings(findings) {
        err!("{text}");
    }
}

/// Prints refusals and warnings before runs are made.
///
/// # Errors
/// A refusal that the study does not override.
pub fn check(findings: &[Finding]) -> Result<()> {
    show(findings);
    match refusal(findings) {
        Some(refusal) => bail!("{refusal}"),
        None => Ok(()),
    }
}
