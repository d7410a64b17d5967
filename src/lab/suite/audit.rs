//! The audit of a study before and after its runs, without what needs a device (`moelab audit` makes that as well).

use serde::{Deserialize, Serialize};

use super::{
    folder::{SuiteError, SuiteStore, lines},
    outcome::Outcome,
    table,
};
use crate::{
    lab::{
        audit::{self, Finding, Study, study::Measured},
        measured::MeasuredRun,
    },
    run::suite::{Plan, Suite},
};

/// Name of the file with what the audit found before the first run, a finding a line, if it was made with a device.
pub const BEFORE: &str = "audit.jsonl";

/// What a study shows, and what the audit finds in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The judgement at the end of the study, then those of stages at which arms were stopped.
    pub outcomes: Vec<Outcome>,
    /// What the audit found.
    pub findings: Vec<Finding>,
    /// Arms about which the audit refuses a conclusion.
    pub without_verdict: Vec<String>,
    /// The judgement in sentences.
    pub text: String,
}

impl Judged {
    /// The judgement with what the audit finds.
    pub(super) fn new(outcomes: Vec<Outcome>, findings: Vec<Finding>, plan: &Plan) -> Judged {
        let arms: Vec<&str> = plan.arms.iter().map(|arm| arm.name.as_str()).collect();
        let withheld = audit::without_verdict(&findings, &arms);
        let text = table::outcomes(&outcomes, &withheld);
        let without_verdict = withheld.into_iter().map(str::to_string).collect();
        Judged { outcomes, findings, without_verdict, text }
    }
}

/// What the audit finds in the arms of a study, and in those of its runs that are in `folders`, and what it found before the first run;
/// the most severe first.
///
/// # Errors
/// An override of something that is no check; a line of [`BEFORE`] that is no finding.
pub fn findings<S: SuiteStore>(suite: &Suite, plan: &Plan, folders: Option<&S>) -> Result<Vec<Finding>, SuiteError> {
    let mut study = Study { arms: plan.arms.clone(), ..Study::default() };
    for run in folders.iter().flat_map(|folders| plan.runs.iter().map(move |run| (folders, run))) {
        let (folders, run) = run;
        // A run that cannot be read, or has no result yet, is not audited.
        let Ok(Some(store)) = folders.run(&run.id) else { continue };
        if let Ok(measured) = MeasuredRun::read(&*store, &run.id, &run.arm) {
            study.runs.push(Measured::from(&measured));
        }
    }
    let mut findings = audit::all(&study);
    for finding in folders.map(|folders| lines::<Finding>(folders.root(), BEFORE)).transpose()?.into_iter().flatten() {
        // The study may state other overrides by now.
        let finding = Finding { overridden: None, ..finding };
        // Epochs are known better from the runs of each arm.
        let is_known = ["epochs", "partial-batch"].contains(&finding.check.as_str()) || findings.contains(&finding);
        findings.extend((!is_known).then_some(finding));
    }
    overridden(suite, findings)
}

/// Findings with the study's overrides, the most severe first.
///
/// # Errors
/// An override of something that is no check.
pub fn overridden(suite: &Suite, mut findings: Vec<Finding>) -> Result<Vec<Finding>, SuiteError> {
    audit::apply_overrides(&mut findings, &suite.overrides).map_err(|error| SuiteError::Override(error.to_string()))?;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(findings)
}

/// Why a study with these findings must not run, if a refusal is among them that the study does not override.
pub fn refusal(findings: &[Finding]) -> Option<String> {
    let refused = || findings.iter().filter(|finding| finding.is_unresolved());
    let first = refused().next()?;
    Some(format!(
        "the audit refuses this study for {} reasons, above: correct it, or state in its [overrides] why each does not matter, \
         for example {} = \"...\"",
        refused().count(),
        first.check
    ))
}
