//! The audit of a study: with its data and on a device before the first run, which the study's folder then keeps. From configs and
//! results it is made by `moelab::lab::suite::audit`.

use anyhow::Result;
use moelab::lab::{
    audit::{self, Finding, Severity, Study},
    suite::{audit::overridden, is_started},
};
use moelab_native::{err, print};

use super::{Opened, folder::Folders};
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
    let folders = Folders::read_only(&opened.folder)?;
    for run in &opened.plan.runs {
        if is_started(&folders, &run.id)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Prints refusals and warnings.
pub fn show(findings: &[Finding]) {
    for finding in findings.iter().filter(|finding| finding.severity > Severity::Note) {
        err!("{}", print::name(&finding.to_string()));
    }
}
