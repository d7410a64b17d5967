//! Every token weighs the same in its update.

use super::epochs::epoch;
use super::study::Study;
use super::{Check, Found, Severity, Stage, found};
use crate::run::config::Weighting;

pub const CHECK: Check = Check { id: "partial-batch", stage: Stage::Before, claim: "every token weighs the same in its update", find };

fn find(study: &Study) -> Vec<Found> {
    let mut told = Vec::new();
    let report = |arm: &super::Arm| {
        let config = &arm.config;
        if config.data.drop_last || config.train.weighting == Weighting::Token {
            return None;
        }
        let batch = config.data.batch;
        let text = match study.data_of(&arm.name).and_then(|data| epoch(config, &data)) {
            Some(epoch) if epoch.last_windows == u64::from(batch) => return None,
            Some(epoch) => format!(
                "PARTIAL BATCH  the last micro-batch of each epoch has {} of {batch} sequences but a full 1/{} weight of an update ({:.0}× per token).",
                epoch.last_windows,
                config.train.micro_batches,
                f64::from(batch) / epoch.last_windows as f64
            ),
            None => format!(
                "PARTIAL BATCH  the last micro-batch of each epoch may have fewer than {batch} sequences, with a full 1/{} weight of an update.",
                config.train.micro_batches
            ),
        };
        (!told.contains(&text)).then(|| {
            told.push(text.clone());
            found(Severity::Warn, &arm.name, text)
        })
    };
    study.arms.iter().filter_map(report).collect()
}
