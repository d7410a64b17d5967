//! Two schedules that are compared differ.

use super::study::Study;
use super::{Check, Found, Severity, Stage, found};

pub const CHECK: Check = Check { id: "similar-schedules", stage: Stage::Before, claim: "schedules that are compared differ", find };

/// Largest difference between two schedules that counts as none, as a share of the peak.
const ALIKE: f64 = 0.05;

fn find(study: &Study) -> Vec<Found> {
    let report = |(arm, control): (&super::Arm, &super::Arm)| {
        if !arm.changes.keys().any(|key| key.starts_with("schedule.")) || arm.config.train.updates != control.config.train.updates {
            return None;
        }
        let [one, other] = [arm, control].map(|arm| arm.config.learning_rates());
        let apart = (0..arm.config.train.updates).map(|done| (one.at_update(done) - other.at_update(done)).abs()).fold(0.0, f64::max);
        (apart < ALIKE).then(|| {
            let text = format!(
                "SIMILAR SCHEDULES  {} and {}: the multipliers differ by at most {apart:.3} of the peak in all {} updates.",
                arm.name, control.name, arm.config.train.updates
            );
            found(Severity::Refuse, &arm.name, text)
        })
    };
    study.against_control().filter_map(report).collect()
}
