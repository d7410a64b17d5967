//! The warm-up leaves room for the run.

use super::study::Study;
use super::{Check, Found, Severity, Stage, found};

pub const CHECK: Check = Check { id: "warm-up", stage: Stage::Before, claim: "a run is longer than its warm-up", find };

/// Share of the run above which a warm-up is reported.
const LONG: f64 = 0.3;

fn find(study: &Study) -> Vec<Found> {
    let report = |arm: &super::Arm| {
        let (schedule, updates) = (arm.config.learning_rates(), arm.config.train.updates);
        let warm = (0..updates).take_while(|done| !schedule.is_warm(*done)).count() as u32;
        if warm >= updates {
            let text = format!("WARM-UP  {}: warm-up = length = {updates} updates: no decay phase.", arm.name);
            return Some(found(Severity::Refuse, &arm.name, text));
        }
        let multipliers: Vec<f64> = (0..updates).map(|done| schedule.at_update(done)).collect();
        let mean = multipliers.iter().sum::<f64>() / f64::from(updates);
        let below = multipliers.iter().filter(|multiplier| **multiplier < 0.5).count();
        if f64::from(warm) <= LONG * f64::from(updates) {
            return None;
        }
        // A warm-up that an arm changes on purpose is what the study is about.
        let severity = if arm.changes.contains_key("schedule.warmup") { Severity::Note } else { Severity::Warn };
        let text = format!(
            "WARM-UP  {}: {warm} of {updates} updates are warm-up, {below} are below half of the peak; mean LR is {mean:.2} of the peak.",
            arm.name
        );
        Some(found(severity, &arm.name, text))
    };
    study.arms.iter().filter_map(report).collect()
}
