//! Gates: pure functions of recorded curves that stop a run, promote it to the next stage, or wait.
//!
//! A [`Course`] is what a rule sees of a run: its evaluations (cross-entropy alone, without auxiliary losses), its training losses and
//! its routing. [`decide`] applies the rule of [`GateOptions`] to a run as of its last evaluation; [`decide_each`] does so at each
//! evaluation, which is the dry run of a rule on finished runs. [`halving::rung`] compares all arms of a study at the end of a stage.
//! Every [`Decision`] states its reason in words and the numbers behind it, with their thresholds.
//!
//! Runs are compared at the same number of updates, never at the same position in a list. A run that had no evaluation there is not
//! compared. A control has no reference, and is never stopped by a comparison.

mod course;
pub mod early_stopping;
pub mod economy;
pub mod gap;
pub mod half_parameters;
pub mod halving;
mod read;
pub mod stop_promote;

use serde::{Deserialize, Serialize};

use crate::run::{
    exact,
    gates::{GateOptions, GateRule, Undecided},
};
pub use course::Course;

/// Losses are compared as the decimals that they are written as: differences below this are rounding.
const ROUNDING: f64 = 1e-9;

/// What becomes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It ends now.
    Stop,
    /// It continues, in the next stage.
    Promote,
    /// The rule has nothing to say yet.
    Wait,
}

/// A number behind a decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Number {
    /// What it is.
    pub name: String,
    /// Its value.
    #[serde(with = "exact")]
    pub value: f64,
    /// What it was compared with.
    #[serde(with = "exact::option", default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
}

/// A rule's decision about a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What becomes of the run.
    pub verdict: Verdict,
    /// The rule.
    pub rule: GateRule,
    /// Updates that the run had made.
    pub update: u32,
    /// Why, in words.
    pub reason: String,
    /// The numbers behind it.
    pub numbers: Vec<Number>,
}

/// A line of a study's `decisions.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// The run.
    pub run: String,
    /// The stage at whose end it was made.
    pub stage: String,
    /// The decision.
    #[serde(flatten)]
    pub decision: Decision,
    /// When it was made, in seconds since 1970; the only value that depends on the clock.
    pub time: f64,
}

impl Decision {
    fn new(verdict: Verdict, rule: GateRule, update: u32, reason: impl Into<String>, numbers: Numbers) -> Decision {
        Decision { verdict, rule, update, reason: reason.into(), numbers: numbers.0 }
    }

    /// The same, but a decision to stop becomes one to promote, for this reason.
    pub fn never_stopping(self, reason: &str) -> Decision {
        match self.verdict {
            Verdict::Stop => Decision { verdict: Verdict::Promote, reason: format!("{reason} ({})", self.reason), ..self },
            _ => self,
        }
    }

    /// Whether the run goes on to the next stage.
    pub fn continues(&self, options: &GateOptions) -> bool {
        match self.verdict {
            Verdict::Promote => true,
            Verdict::Stop => false,
            Verdict::Wait => options.undecided == Undecided::Promote,
        }
    }
}

/// The numbers of a decision, as they are collected.
#[derive(Clone, Debug, Default)]
struct Numbers(Vec<Number>);

impl Numbers {
    fn add(&mut self, name: &str, value: f64, threshold: impl Into<Option<f64>>) {
        self.0.push(Number { name: name.into(), value, threshold: threshold.into() });
    }
}

/// Decides about a run as of its last evaluation. `reference` is the run that it is compared with, of any length; a rule that compares
/// waits without one.
///
/// Halving compares all arms: see [`halving::rung`]. Here it waits.
pub fn decide(options: &GateOptions, course: &Course, reference: Option<&Course>) -> Decision {
    let update = course.evals.last().map_or(0, |eval| eval.update);
    let rule = options.rule;
    let wait = |reason: &str| Decision::new(Verdict::Wait, rule, update, reason, Numbers::default());
    let Some(last) = course.evals.last() else { return wait("there is no evaluation yet") };
    match rule {
        GateRule::Off => return wait("no rule: the run makes all its updates"),
        GateRule::Halving => return wait("the arms are compared at the end of the stage"),
        _ => {}
    }
    if !last.val_ce.is_finite() {
        return Decision::new(Verdict::Stop, rule, update, "the validation loss is not finite", Numbers::default());
    }
    match (rule, reference) {
        (GateRule::EarlyStopping, _) => early_stopping::decide(&options.early_stopping, course, last),
        (GateRule::StopPromote, _) => stop_promote::decide(options, course, last, reference),
        (GateRule::Gap, Some(reference)) => gap::decide(options, course, last, reference),
        (GateRule::HalfParameters, Some(reference)) => half_parameters::decide(&options.half_parameters, course, last, reference),
        (_, None) => wait("there is no reference to compare with"),
        (GateRule::Off | GateRule::Halving, Some(_)) => unreachable!("both have returned"),
    }
}

/// The decision at each evaluation of a run, as if the run had been watched. A decision to stop does not end the list.
pub fn decide_each(options: &GateOptions, course: &Course, reference: Option<&Course>) -> Vec<Decision> {
    course.evals.iter().map(|eval| decide(options, &course.until(eval.update), reference)).collect()
}
