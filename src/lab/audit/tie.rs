//! Metrics agree about which of two arms is better.

use super::noise::Repeats;
use super::study::{Comparison, Study, VAL_LOSS};
use super::{Check, Found, Severity, Stage, found};

pub const CHECK: Check = Check { id: "tie", stage: Stage::After, claim: "metrics agree about which arm is better", find };

const ACCURACY: &str = "val_accuracy";

fn find(study: &Study) -> Vec<Found> {
    let repeats = Repeats::of(study);
    let report = |(claim, comparison): (&super::Claim, &Comparison)| {
        if comparison.metric != VAL_LOSS {
            return None;
        }
        let by_loss = repeats.difference(comparison)?;
        let by_accuracy = repeats.difference(&Comparison { metric: ACCURACY.into(), ..comparison.clone() })?;
        let disagree = by_loss.difference * by_accuracy.difference > 0.0;
        (disagree && !by_loss.is_significant()).then(|| {
            let text = format!("TIE  {} and {}: loss and accuracy disagree.", comparison.better, comparison.than);
            found(Severity::Warn, &claim.text, text)
        })
    };
    study.comparisons().filter_map(report).collect()
}
