//! The learning rates that were applied are those of the schedule.

use super::study::{AppliedRates, Study};
use super::{Check, Found, Severity, Stage, found};

pub const CHECK: Check = Check { id: "applied-rates", stage: Stage::After, claim: "the learning rates applied are those planned", find };

/// Largest difference, as a share of the peak: the log has f32.
const CLOSE: f64 = 1e-6;

fn find(study: &Study) -> Vec<Found> {
    let report = |run: &super::Measured| {
        let config = run.config.as_ref().or(study.arm(&run.arm).map(|arm| &arm.config))?;
        let schedule = config.learning_rates();
        let peaks = [("AdamW", config.optimizer.adamw.lr), ("Muon", config.optimizer.muon.lr)];
        let off = |rates: &AppliedRates| {
            let multiplier = schedule.at_update(rates.update.saturating_sub(1));
            peaks.into_iter().zip([rates.adamw, rates.muon]).find_map(|((name, peak), applied)| {
                let planned = peak * multiplier;
                ((applied - planned).abs() > CLOSE * peak).then_some((rates.update, name, applied, planned))
            })
        };
        let mut wrong = run.rates.iter().filter_map(off);
        let (update, name, applied, planned) = wrong.next()?;
        let more = wrong.count();
        let text = format!(
            "APPLIED RATE  {}: in update {update} {name} used {applied:.6}, the schedule says {planned:.6}; so do {more} other updates.",
            run.arm
        );
        Some(found(Severity::Refuse, &run.arm, text))
    };
    study.runs.iter().filter_map(report).collect()
}
