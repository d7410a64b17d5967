//! The study that the app shows.

use crate::{
    lab::{
        audit::Finding,
        gates::DecisionRecord,
        suite::{Judged, Progress, SuiteEvent, table},
    },
    run::protocol::Problem,
};

/// A study that is shown.
#[derive(Clone, Debug, Default)]
pub struct Study {
    /// The name of its folder.
    pub name: String,
    /// Its question.
    pub question: String,
    /// Its arms, the control first.
    pub arms: Vec<String>,
    /// Where it stands.
    pub progress: Option<Progress>,
    /// A line about it.
    pub line: String,
    /// For each run: name, updates made, training and validation loss, status.
    pub rows: Vec<Vec<String>>,
    /// What it shows.
    pub judged: Option<Judged>,
    /// What the audit found before the first run.
    pub findings: Vec<Finding>,
    /// What the gates have decided.
    pub decisions: Vec<DecisionRecord>,
    /// What happened.
    pub lines: Vec<String>,
    /// Whether its runs are being made.
    pub is_running: bool,
    /// Whether they are paused.
    pub is_paused: bool,
    /// Whether it was asked to stop.
    pub is_stopping: bool,
    /// Its report, by file name.
    pub report: Vec<(String, String)>,
    /// Why it could not be opened.
    pub problem: Option<Problem>,
}

impl Study {
    /// Takes in an event.
    pub fn take(&mut self, event: SuiteEvent) {
        if let Some(line) = table::event(&event).filter(|_| !matches!(event, SuiteEvent::Judged(_) | SuiteEvent::Audited { .. })) {
            self.lines.push(line);
        }
        match event {
            SuiteEvent::Opened { question, arms, decisions, .. } => {
                (self.question, self.arms, self.problem) = (question, arms, None);
                self.decisions = decisions;
            }
            SuiteEvent::Decided { record } => self.decisions.push(*record),
            SuiteEvent::Standing { progress, line, rows } => {
                (self.progress, self.line, self.rows) = (Some(progress), line, rows);
            }
            SuiteEvent::Audited { findings } => self.findings = findings,
            SuiteEvent::Judged(judged) => self.judged = Some(*judged),
            SuiteEvent::Paused => self.is_paused = true,
            SuiteEvent::Continued => self.is_paused = false,
            SuiteEvent::Ended { .. } => (self.is_running, self.is_paused, self.is_stopping) = (false, false, false),
            SuiteEvent::Reported { files } => self.report = files,
            SuiteEvent::Rejected { problem, .. } => {
                self.problem = Some(*problem);
                self.is_running = false;
            }
            SuiteEvent::Failed(problem) => (self.is_running, self.problem) = (false, Some(*problem)),
            _ => {}
        }
    }
}
