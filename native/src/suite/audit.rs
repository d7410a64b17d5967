//! The audit of a study: with its data and on a device before the first run, which the study's folder then keeps; from configs and results
//! whenever it is reported.

use anyhow::{Context, Result};
use moelab::lab::{
    audit::{self, Finding, Severity, Study, study::Measured},
    measured::MeasuredRun,
    suite::{SuiteStore, is_started},
};
use moelab_native::{err, print};

use super::{
    Opened,
    folder::{BEFORE, Folders},
};
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
    finished(opened, findings)
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

fn finished(opened: &Opened, mut findings: Vec<Finding>) -> Result<Vec<Finding>> {
    audit::apply_overrides(&mut findings, &opened.suite.overrides).map_err(anyhow::Error::msg)?;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(findings)
}

/// What the audit finds in the arms of a study, and in those of its runs that are in `folders`; and what it found before the first run.
///
/// # Errors
/// An override of something that is no check.
pub fn findings(opened: &Opened, folders: Option<&impl SuiteStore>) -> Result<Vec<Finding>> {
    let mut study = Study { arms: opened.plan.arms.clone(), ..Study::default() };
    for run in folders.iter().flat_map(|folders| opened.plan.runs.iter().map(move |run| (folders, run))) {
        let (folders, run) = run;
        // A run that cannot be read, or has no result yet, is not audited.
        let Ok(Some(store)) = folders.run(&run.id) else { continue };
        if let Ok(measured) = MeasuredRun::read(&*store, &run.id, &run.arm) {
            study.runs.push(Measured::from(&measured));
        }
    }
    let mut findings = audit::all(&study);
    for finding in folders.map(earlier).transpose()?.into_iter().flatten() {
        // Epochs are known better from the runs of each arm.
        let is_known = ["epochs", "partial-batch"].contains(&finding.check.as_str()) || findings.contains(&finding);
        findings.extend((!is_known).then_some(finding));
    }
    finished(opened, findings)
}

/// The findings before the first run, as the study's folder has them, without overrides: the study may state others by now.
fn earlier(folders: &impl SuiteStore) -> Result<Vec<Finding>> {
    let Some(bytes) = folders.root().read(BEFORE)? else { return Ok(Vec::new()) };
    let text = String::from_utf8_lossy(&bytes);
    let finding = |line: &str| -> Result<Finding> { Ok(Finding { overridden: None, ..serde_json::from_str(line).context(BEFORE)? }) };
    text.lines().map(finding).collect()
}

/// Prints refusals and warnings.
pub fn show(findings: &[Finding]) {
    for finding in findings.iter().filter(|finding| finding.severity > Severity::Note) {
        err!("{}", print::name(&finding.to_string()));
    }
}
