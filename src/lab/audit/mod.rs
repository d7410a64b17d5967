//! The audit of a study: which of its conclusions its configs, data, probes and results cannot carry.
//!
//! A study may be sound in every run and still conclude what does not follow: arms that differ in nothing, a schedule in the wrong
//! unit, differences smaller than those between repeats, a validation set that was trained on. Each check holds one claim and reports
//! what violates it as [`Finding`]s with a [`Severity`]: *refuse* where no conclusion may be drawn unless the user overrides it with a
//! reason, which the result then carries ([`apply_overrides`]); *warn* where one is to be doubted; *note* for information. A suite prints
//! no winner while a refusal is [`unresolved`].
//!
//! [`before`] looks at configs and data, `lab::audit_device` at the data and at single updates of the models, [`after`] at results. Published
//! results are read by [`import`]; [`standing`] lists which conclusions about them remain.
//!
//! The mistakes that are known from published studies, and what finds each. A test of `tests/audit/faults.rs` plants every one of them
//! beside a sound twin, `tests/audit/clean.rs` holds that sound studies raise no alarm, and `tests/audit/published.rs` lists what stands of the
//! four published studies:
//!
//! | # | mistake | when | check (`file` if it differs; `device` is `lab::audit_device`) |
//! |---|---|---|---|
//! | 1 | a swept setting does nothing | before, device | `inert-knob` (`inert_knob`, `device`) |
//! | 2 | differences below the noise of repeats are ranked | after | `noise` |
//! | 3 | an epoch's end is read as an effect of optimisation; a partial batch weighs too much | before, after | `epochs`, `partial-batch`, `epoch-boundary` |
//! | 4 | a schedule counted in the wrong unit | before, after | `schedule-unit`, `similar-schedules`, `applied-rates` |
//! | 5 | the declared run is not the run that was made | after | `stale-result` (`stale`) |
//! | 6 | a correlation that cannot be recomputed or hangs on one point | after | `fragile-statistic` (`fragile`) |
//! | 7 | active parameters that count no expert | with a claim | `active-count` |
//! | 8 | the same arm twice, a mixture without a choice, a stale derived width, more changes than declared | before | `identical-arms`, `dense`, `stale-derived-field` (`stale_derived`), `undeclared-change` (`undeclared`) |
//! | 9 | a loss in coarse steps is ranked | after | `quantised-metric` (`quantised`) |
//! | 10 | parameters, loss terms or decisions that never act | before, device, after | `dead-parameter`, `constant-loss-term` (`constant_term`), `degenerate-decision` (`degenerate`) |
//! | 11 | state passes between unrelated texts; a loss term is dropped | before, device | `state-leak`, `sequence-leak`, `dropped-term` (`device`) |
//! | 12 | validation text was trained on | before, on the data | `split-leak` |
//! | 13 | attention sees the future | device | `not-causal` (`device`) |
//! | 14 | the named component is not in the model | with a claim, device | `component-mismatch` (`component`), `parameter-count` (`device`) |
//! | 15 | metrics contradict each other | after | `inconsistent`, `tie` |
//! | 16 | conclusions from failed runs | after | `no-evidence` |
//! | 17 | auxiliary terms in the evaluation loss | after | `eval-contains-aux`; moelab's own evaluations record the cross-entropy alone |
//! | 18 | a difference is attributed to one of several causes | after | `confounded` |
//! | 19 | ignored settings | loading, before | `unread-field` (`unread`); unknown keys and keys that do not apply are errors of the config |
//! | 20 | tokens that do not mix, targets equal to inputs, losses too good for the text | before, device, after | `no-token-mixing` (`device`), `copy-task` |
//! | 21 | half precision zeroes small gradients | – | cannot occur: gradients of parameters, moments and Newton-Schulz are f32, and where operands are f16 all gradients are scaled by the tokens of a micro-batch. What it did to experts, their starvation, is `starved-expert` (`starved`) |
//! | 22 | two evaluators in one column | after | `eval-mismatch` |
//! | 23 | matched runs that are not matched | with a claim | `not-matched` (`matched`) |
//! | 24 | a warm-up as long as the run | before | `warm-up` |
//!
//! Beside them `memory` compares what a run needs with what the adapter has, and the other structure probes check that experts with equal
//! weights equal a dense FFN and that shared weights are shared. What no program sees: errors in code that computes the same numbers
//! under another name, and conclusions that are only in the prose.

pub mod import;
pub mod study;

mod active_count;
mod applied_rates;
mod claims;
mod component;
mod confounded;
mod constant_term;
mod copy_task;
mod dead_parameter;
mod degenerate;
mod dense;
mod epoch_boundary;
mod epochs;
mod eval_contains_aux;
mod eval_mismatch;
mod fragile;
mod identical_arms;
mod inconsistent;
mod inert_knob;
mod matched;
mod memory;
mod no_evidence;
mod noise;
mod partial_batch;
mod quantised;
mod results;
mod schedule_unit;
mod similar_schedules;
mod split_leak;
mod stale;
mod stale_derived;
mod starved;
mod state_leak;
mod tie;
mod undeclared;
mod unread;
mod warm_up;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::measured::MeasuredRun;
pub use copy_task::target_shift;
pub use split_leak::overlap;
pub use study::{Arm, Claim, Measured, Study};

/// What a finding prevents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For information.
    Note,
    /// A reason to doubt a conclusion.
    Warn,
    /// No conclusion may be drawn, unless it is overridden with a reason.
    Refuse,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Refuse => "refuse",
        })
    }
}

/// A violated claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// Id of the check, for example `inert-knob`.
    pub check: String,
    /// What it prevents.
    pub severity: Severity,
    /// What was found, in words and numbers.
    pub message: String,
    /// The arm, run, key or claim that it is about.
    pub subject: String,
    /// Why it does not matter, if the user says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overridden: Option<String>,
}

impl Finding {
    /// Whether it prevents a conclusion.
    pub fn is_unresolved(&self) -> bool {
        self.severity == Severity::Refuse && self.overridden.is_none()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:6}  {}: {}", self.severity, self.check, self.message)?;
        self.overridden.as_ref().map_or(Ok(()), |reason| write!(f, " (overridden: {reason})"))
    }
}

/// When a check can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Before a run: configs, data and the plan.
    Before,
    /// Before a run from its config, afterwards from its result.
    Either,
    /// When runs have ended and are compared.
    After,
}

/// A check of a study.
#[derive(Clone, Copy)]
pub struct Check {
    /// Its id.
    pub id: &'static str,
    /// When it runs.
    pub stage: Stage,
    /// What holds if it finds nothing.
    pub claim: &'static str,
    /// The findings, with severity, subject and message.
    find: fn(&Study) -> Vec<Found>,
}

/// A finding without its check.
struct Found {
    severity: Severity,
    subject: String,
    message: String,
}

/// A finding of a check.
fn found(severity: Severity, subject: impl Into<String>, message: impl Into<String>) -> Found {
    Found { severity, subject: subject.into(), message: message.into() }
}

/// Every check that needs no device, in the order in which they report.
pub const CHECKS: [Check; 32] = [
    inert_knob::CHECK,
    identical_arms::CHECK,
    undeclared::CHECK,
    unread::CHECK,
    dense::CHECK,
    stale_derived::CHECK,
    schedule_unit::CHECK,
    similar_schedules::CHECK,
    warm_up::CHECK,
    epochs::CHECK,
    partial_batch::CHECK,
    split_leak::CHECK,
    copy_task::CHECK,
    dead_parameter::CHECK,
    constant_term::CHECK,
    state_leak::CHECK,
    memory::CHECK,
    active_count::CHECK,
    component::CHECK,
    matched::CHECK,
    no_evidence::CHECK,
    stale::CHECK,
    applied_rates::CHECK,
    eval_contains_aux::CHECK,
    eval_mismatch::CHECK,
    inconsistent::CHECK,
    quantised::CHECK,
    noise::CHECK,
    tie::CHECK,
    confounded::CHECK,
    fragile::CHECK,
    epoch_boundary::CHECK,
];

/// Checks of single runs after they have ended.
pub const OF_RUNS: [Check; 2] = [degenerate::CHECK, starved::CHECK];

/// Every check that needs no device.
pub fn checks() -> impl Iterator<Item = &'static Check> {
    CHECKS.iter().chain(&OF_RUNS)
}

impl Check {
    /// Runs the check.
    pub fn run(&self, study: &Study) -> Vec<Finding> {
        let finding =
            |Found { severity, subject, message }: Found| Finding { check: self.id.into(), severity, message, subject, overridden: None };
        (self.find)(study).into_iter().map(finding).collect()
    }
}

/// Findings before any run, without those that need a device.
pub fn before(study: &Study) -> Vec<Finding> {
    checks().filter(|check| check.stage != Stage::After).flat_map(|check| check.run(study)).collect()
}

/// Findings from the results of runs.
pub fn after(study: &Study) -> Vec<Finding> {
    checks().filter(|check| check.stage != Stage::Before).flat_map(|check| check.run(study)).collect()
}

/// Every finding that needs neither data nor a device, once.
pub fn all(study: &Study) -> Vec<Finding> {
    let mut findings = before(study);
    for finding in after(study) {
        if !findings.contains(&finding) {
            findings.push(finding);
        }
    }
    findings
}

/// Every finding about a run by itself that needs neither data nor a device, the most severe first. That it has no result yet is none.
pub fn of_run(run: &MeasuredRun) -> Vec<Finding> {
    let arm = Arm { name: run.arm.clone(), config: run.config.clone(), changes: BTreeMap::new() };
    let mut findings = all(&Study { arms: vec![arm], runs: vec![Measured::from(run)], ..Study::default() });
    findings.retain(|finding| run.summary.is_some() || finding.check != no_evidence::CHECK.id);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}

/// Why a reason does not override a finding.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OverrideError {
    /// No check has this id.
    #[error("no check is called `{check}`; the checks are {}", known.join(", "))]
    Unknown {
        /// As given.
        check: String,
        /// The ids of all checks.
        known: Vec<&'static str>,
    },
    /// A finding is not overridden without a reason.
    #[error("an override needs a reason: {target}=REASON")]
    NoReason {
        /// The check, or check and subject.
        target: String,
    },
}

/// Notes the user's reasons, by check, or by check and subject as `CHECK:SUBJECT`, in the findings that they are about.
///
/// # Errors
/// A reason for something that no check is called.
pub fn apply_overrides(findings: &mut [Finding], reasons: &BTreeMap<String, String>) -> Result<(), OverrideError> {
    for (target, reason) in reasons {
        let (check, subject) = target.split_once(':').map_or((target.as_str(), None), |(check, subject)| (check, Some(subject)));
        let known: Vec<&str> = checks().map(|check| check.id).chain(PROBED).collect();
        if !known.contains(&check) {
            return Err(OverrideError::Unknown { check: check.to_owned(), known });
        }
        if reason.trim().is_empty() {
            return Err(OverrideError::NoReason { target: target.clone() });
        }
        let is_meant = |finding: &&mut Finding| finding.check == check && subject.is_none_or(|subject| finding.subject == subject);
        findings.iter_mut().filter(is_meant).for_each(|finding| finding.overridden = Some(reason.clone()));
    }
    Ok(())
}

/// Ids of the checks that only a device can make.
pub const PROBED: [&str; 9] = [
    "not-causal",
    "no-token-mixing",
    "sequence-leak",
    "dropped-term",
    "one-expert",
    "equal-experts",
    "all-experts",
    "weight-sharing",
    "parameter-count",
];

/// Whether a refusal stands that nobody has overridden: no winner may be printed.
pub fn unresolved(findings: &[Finding]) -> bool {
    findings.iter().any(Finding::is_unresolved)
}

/// The arms, of which the first is the control, about which no verdict may be printed: those that a refusal is about; all of them if it is
/// about the control, or about what they have in common.
pub fn without_verdict<'a>(findings: &[Finding], arms: &[&'a str]) -> Vec<&'a str> {
    let Some((control, others)) = arms.split_first() else { return Vec::new() };
    let is_about = |subject: &str, arm: &str| {
        subject == arm || subject.strip_suffix(control).and_then(|rest| rest.strip_suffix(" against ")) == Some(arm)
    };
    let refused = |finding: &&Finding| finding.is_unresolved();
    let of_all = |finding: &Finding| !others.iter().any(|arm| is_about(&finding.subject, arm));
    if findings.iter().filter(refused).any(of_all) {
        return arms.to_vec();
    }
    let is_refused = |arm: &&&str| findings.iter().filter(refused).any(|finding| is_about(&finding.subject, arm));
    others.iter().filter(is_refused).copied().collect()
}

/// The most severe finding that is not overridden.
pub fn worst(findings: &[Finding]) -> Option<Severity> {
    findings.iter().filter(|finding| finding.overridden.is_none()).map(|finding| finding.severity).max()
}

/// Whether a claim stands: the remarks that go with it, or the reasons why it does not.
pub type Standing = Result<Vec<String>, Vec<String>>;

/// What stands of the claims about a study.
pub fn standing<'a>(study: &'a Study, findings: &[Finding]) -> Vec<(&'a Claim, Standing)> {
    let judged = |claim: &'a Claim| {
        let arms: Vec<&str> = claim.comparisons().iter().map(|comparison| comparison.better.as_str()).collect();
        let others: Vec<&str> = claim.comparisons().iter().map(|comparison| comparison.than.as_str()).collect();
        // A refusal before the runs concerns an arm; whether it was run as planned, and differs from another at all, decides claims about it.
        let of_arm = |finding: &&Finding| {
            let subject = finding.subject.as_str();
            ["inert-knob", "identical-arms", "stale-result", "degenerate-decision"].contains(&finding.check.as_str())
                && (arms.contains(&subject) || others.contains(&subject))
        };
        let of_claim = |finding: &&Finding| finding.subject == claim.text;
        // A figure that is wrong does not stand, however mild the finding.
        let is_figure = claim.comparisons().is_empty();
        let refuses = |finding: &&Finding| match of_claim(finding) {
            true => finding.is_unresolved() || is_figure && finding.severity > Severity::Note && finding.overridden.is_none(),
            false => finding.is_unresolved() && of_arm(finding),
        };
        let refusals: Vec<String> = findings.iter().filter(refuses).map(|finding| finding.message.clone()).collect();
        if !refusals.is_empty() {
            return (claim, Err(refusals));
        }
        (claim, Ok(findings.iter().filter(of_claim).map(|finding| finding.message.clone()).collect()))
    };
    study.claims.iter().map(judged).collect()
}

/// 79059840 as 79,059,840.
fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let first = digits.len() % 3;
    let (head, tail) = digits.split_at(first);
    let parts = tail.as_bytes().chunks(3).map(|part| String::from_utf8_lossy(part).into_owned());
    let parts: Vec<String> = Some(head.to_owned()).filter(|head| !head.is_empty()).into_iter().chain(parts).collect();
    parts.join(",")
}
