//! Rates the loss that a smaller model pays for its size: the increase of the validation loss over the reference's, as a share of it,
//! at the same number of updates.
//!
//! The bounds were stated for models of about half of the reference's parameters; the reason gives the actual share. An excellent or
//! good model is promoted, a weak one is stopped, a marginal one waits.

use serde::{Deserialize, Serialize};

use super::{Course, Decision, Numbers, ROUNDING, Verdict};
use crate::lab::evaluation::EvalPoint;
use crate::run::gates::{GateRule, HalfParameterOptions};

/// The rating of a smaller model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rating {
    /// Below 3 %.
    Excellent,
    /// Up to 7 %.
    Good,
    /// Up to 10 %.
    Marginal,
    /// Beyond.
    Weak,
}

impl Rating {
    /// Of an increase of the loss as a share of the reference's.
    pub fn of(increase: f64, options: &HalfParameterOptions) -> Rating {
        match () {
            () if increase < options.excellent - ROUNDING => Rating::Excellent,
            () if increase <= options.good + ROUNDING => Rating::Good,
            () if increase <= options.marginal + ROUNDING => Rating::Marginal,
            () => Rating::Weak,
        }
    }

    /// As text.
    pub fn words(self) -> &'static str {
        match self {
            Rating::Excellent => "excellent",
            Rating::Good => "good",
            Rating::Marginal => "marginal",
            Rating::Weak => "weak",
        }
    }
}

pub(super) fn decide(options: &HalfParameterOptions, course: &Course, last: &EvalPoint, reference: &Course) -> Decision {
    let rule = GateRule::HalfParameters;
    let mut numbers = Numbers::default();
    let Some(at) = reference.at(last.update) else {
        let reason = format!("{} has no evaluation at update {}", reference.name, last.update);
        return Decision::new(Verdict::Wait, rule, last.update, reason, numbers);
    };
    let increase = last.val_ce / at.val_ce - 1.0;
    let rating = Rating::of(increase, options);
    let (verdict, bound) = match rating {
        Rating::Excellent => (Verdict::Promote, options.excellent),
        Rating::Good => (Verdict::Promote, options.good),
        Rating::Marginal => (Verdict::Wait, options.marginal),
        Rating::Weak => (Verdict::Stop, options.marginal),
    };
    numbers.add("val_ce", last.val_ce, None);
    numbers.add("reference_val_ce", at.val_ce, None);
    numbers.add("increase", increase, bound);
    let size = match (course.parameters, reference.parameters) {
        (Some(own), Some(other)) => {
            let share = own as f64 / other as f64;
            numbers.add("parameter_share", share, None);
            format!("with {:.1} % of its parameters", 100.0 * share)
        }
        _ => "with an unknown share of its parameters".into(),
    };
    let percent = 100.0 * increase;
    let reason = format!("{}: the loss is {percent:+.2} % to that of {} at update {}, {size}", rating.words(), reference.name, last.update);
    Decision::new(verdict, rule, last.update, reason, numbers)
}
