//! Every term of the loss has a gradient.

use super::study::Study;
use super::{Check, Found, Severity, Stage, found};
use crate::run::Config;
use crate::run::model::{BalanceKind, FfnKind};
use crate::run::schedule::balance_coefficient;

pub const CHECK: Check = Check { id: "constant-loss-term", stage: Stage::Either, claim: "every term of the loss has a gradient", find };

fn find(study: &Study) -> Vec<Found> {
    let mut all: Vec<Found> = study
        .arms
        .iter()
        .filter_map(|arm| {
            let value = constant_balance(&arm.config)?;
            let text = format!(
                "CONSTANT LOSS TERM  {}: the balance loss of one expert is 1 times its coefficient {value} and has no gradient.",
                arm.name
            );
            Some(found(Severity::Refuse, &arm.name, text))
        })
        .collect();
    let constant = study.runs.iter().filter_map(|run| {
        let value = run.recorded.get("constant act_penalty").filter(|value| **value != 0.0)?;
        let text = format!("CONSTANT LOSS TERM  {}: act_penalty = {value} has no gradient; it is excluded from the loss curve.", run.arm);
        Some(found(Severity::Refuse, &run.arm, text))
    });
    all.extend(constant);
    all
}

/// The largest coefficient of a balance loss over one expert.
fn constant_balance(config: &Config) -> Option<f64> {
    let model = &config.model;
    if model.ffn.kind != FfnKind::Moe || model.router.experts > 1 || model.balance.kind == BalanceKind::Off {
        return None;
    }
    let coefficients = (0..config.train.updates).map(|done| balance_coefficient(&model.balance, done, config.train.updates));
    Some(coefficients.fold(0.0, f64::max)).filter(|most| *most > 0.0)
}
