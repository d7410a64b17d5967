//! The audit of a study before and after its runs, without what needs a device (`moelab audit` makes that as well).

use anyhow::Result;
use moelab::lab::{
    audit::{self, Finding, Severity, Study, study::Measured},
    measured::MeasuredRun,
    suite::SuiteStore,
};
use moelab_native::{err, print};

use super::Opened;

/// What the audit finds in the arms of a study, and in those of its runs that are in `folders`.
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
    let mut findings = audit::before(&study);
    for finding in audit::after(&study) {
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    audit::apply_overrides(&mut findings, &opened.suite.overrides).map_err(anyhow::Error::msg)?;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(findings)
}

/// Prints refusals and warnings.
pub fn show(findings: &[Finding]) {
    for finding in findings.iter().filter(|finding| finding.severity > Severity::Note) {
        err!("{}", print::name(&finding.to_string()));
    }
}
