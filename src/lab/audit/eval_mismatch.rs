//! Values that are compared were measured in the same way.

use super::study::Study;
use super::{Check, Found, Severity, Stage, found};

pub const CHECK: Check =
    Check { id: "eval-mismatch", stage: Stage::After, claim: "values that are compared were measured in the same way", find };

fn find(study: &Study) -> Vec<Found> {
    let report = |(text, comparison): (String, super::study::Comparison)| {
        let one = study.runs_of(&comparison.better).next()?;
        let other = study.runs_of(&comparison.than).next()?;
        if one.evaluator.id() == other.evaluator.id() || !comparison.metric.contains("val") {
            return None;
        }
        let value = |run: &super::Measured| {
            let value = run.value(&comparison.metric, comparison.at).map_or("an unknown value".to_owned(), |value| value.to_string());
            format!("{value} ({})", run.evaluator.words())
        };
        let message = format!("EVAL MISMATCH  {} and {} are different measurements.", value(one), value(other));
        Some(found(Severity::Refuse, text, message))
    };
    study.pairs().into_iter().filter_map(report).collect()
}
