//! Early stopping, as in exp8: a run is stopped after `patience` evaluations in a row that did not improve.
//!
//! An evaluation improves if it is more than `min_delta` below the last one that did; that loss does not change in between, so that
//! smaller gains accumulate. After an early stop, the result of the run is its best evaluation.

use super::{Course, Decision, Numbers, Verdict};
use crate::lab::evaluation::EvalPoint;
use crate::run::gates::{GateRule, PatienceOptions};

pub(super) fn decide(options: &PatienceOptions, course: &Course, last: &EvalPoint) -> Decision {
    let PatienceOptions { patience, min_delta } = *options;
    let (mut improved_to, mut waited) = (f64::INFINITY, 0);
    for eval in &course.evals {
        if eval.val_ce < improved_to - min_delta {
            (improved_to, waited) = (eval.val_ce, 0);
        } else {
            waited += 1;
        }
    }
    let mut numbers = Numbers::default();
    numbers.add("evaluations_without_improvement", f64::from(waited), f64::from(patience));
    numbers.add("improved_to", improved_to, None);
    numbers.add("val_ce", last.val_ce, None);
    let (verdict, more) = if waited >= patience {
        let best = course.best().unwrap_or(last);
        (Verdict::Stop, format!("; the result is the best evaluation, {:.4} at update {}", best.val_ce, best.update))
    } else {
        (Verdict::Wait, String::new())
    };
    let reason = format!("{waited} of {patience} evaluations without an improvement of more than {min_delta} on {improved_to:.4}{more}");
    Decision::new(verdict, GateRule::EarlyStopping, last.update, reason, numbers)
}
