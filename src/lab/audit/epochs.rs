//! How often a run sees its data, and where its epochs end.

use super::study::{DataFacts, Study};
use super::{Check, Found, Severity, Stage, found, grouped};
use crate::run::Config;

pub const CHECK: Check = Check { id: "epochs", stage: Stage::Before, claim: "how often a run sees its data is known", find };

/// Micro-batches of an epoch, and the windows of its last one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    pub micro_batches: u64,
    pub last_windows: u64,
}

/// The epochs of a config on data; `None` if they are endless or smaller than a batch.
pub fn epoch(config: &Config, data: &DataFacts) -> Option<Epoch> {
    let batch = u64::from(config.data.batch);
    let rest = data.training_windows % batch;
    let whole = data.training_windows / batch;
    match (rest, config.data.drop_last) {
        _ if data.training_windows == 0 => None,
        (0, _) | (_, true) => (whole > 0).then_some(Epoch { micro_batches: whole, last_windows: batch }),
        (rest, false) => Some(Epoch { micro_batches: whole + 1, last_windows: rest }),
    }
}

/// Passes of a config over the data.
pub fn passes(config: &Config, epoch: Epoch) -> f64 {
    let micro_steps = u64::from(config.train.updates) * u64::from(config.train.micro_batches);
    config.batch_of(micro_steps) as f64 / epoch.micro_batches as f64
}

fn find(study: &Study) -> Vec<Found> {
    let mut told = Vec::new();
    let report = |arm: &super::Arm| {
        let data = study.data_of(&arm.name)?;
        let epoch = epoch(&arm.config, &data)?;
        let passes = passes(&arm.config, epoch);
        let text = format!(
            "EPOCHS  {passes:.2} passes over {} tokens; an epoch ends every {} micro-batches.",
            grouped(data.training_tokens),
            epoch.micro_batches
        );
        if passes <= 1.0 || told.contains(&text) {
            return None;
        }
        told.push(text.clone());
        Some(found(Severity::Note, &arm.name, text))
    };
    study.arms.iter().filter_map(report).collect()
}
