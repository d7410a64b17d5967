//! A finding of the audit, as a report shows it.

/// What a finding prevents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For information.
    Note,
    /// A reason to doubt a conclusion.
    Warn,
    /// No conclusion may be drawn, unless it is overridden with a reason.
    Refuse,
}

/// A violated claim.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    pub overridden: Option<String>,
}

impl Finding {
    /// Whether it prevents a conclusion.
    pub fn is_unresolved(&self) -> bool {
        self.severity == Severity::Refuse && self.overridden.is_none()
    }
}
