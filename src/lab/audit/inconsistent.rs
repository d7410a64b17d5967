//! A perplexity is the exponential of its loss.

use super::study::{Study, VAL_LOSS};
use super::{Check, Found, Severity, Stage, found};

pub const CHECK: Check = Check { id: "inconsistent", stage: Stage::After, claim: "a perplexity is the exponential of its loss", find };

/// Relative difference that rounding explains.
const ROUNDING: f64 = 0.005;

fn find(study: &Study) -> Vec<Found> {
    let report = |run: &super::Measured| {
        let (loss, perplexity) = (run.metrics.get(VAL_LOSS)?, run.metrics.get("val_perplexity")?);
        let own = loss.exp();
        ((perplexity / own - 1.0).abs() > ROUNDING).then(|| {
            let text = format!("INCONSISTENT  {}: ppl {perplexity} ≠ exp({loss:.4}) = {own:.4}.", run.arm);
            found(Severity::Warn, &run.arm, text)
        })
    };
    study.runs.iter().filter_map(report).collect()
}
