//! The model that ran is the one that is named.

use super::study::{Statement, Study};
use super::{Check, Found, Severity, Stage, found, grouped};
use crate::run::model::FfnKind;
use crate::run::model::cost;

pub const CHECK: Check =
    Check { id: "component-mismatch", stage: Stage::Either, claim: "the model that ran is the one that is named", find };

fn find(study: &Study) -> Vec<Found> {
    let report = |claim: &super::Claim| {
        let Statement::Model { arm, declared, total } = &claim.says else { return None };
        let config = &study.arm(arm)?.config;
        let own = cost::counts(&config.model, &config.parameters()).total;
        if own == *total {
            return None;
        }
        let (e, k) = config.model.experts();
        let router = if config.model.ffn.kind == FfnKind::Moe { format!("(E={e}, K={k})") } else { String::new() };
        let layers = u64::from(config.model.depth.layers);
        let rest = match total.checked_sub(own) {
            Some(more) if more % layers == 0 => format!("{} parameters per layer are in no declared component", grouped(more / layers)),
            Some(more) => format!("{} parameters are in no declared component", grouped(more)),
            None => format!("{} parameters of it are missing", grouped(own - total)),
        };
        let text = format!(
            "COMPONENT MISMATCH  declared {declared}{router} has {} parameters, the result has {}: {rest}.",
            grouped(own),
            grouped(*total)
        );
        Some(found(Severity::Refuse, &claim.text, text))
    };
    study.claims.iter().filter_map(report).collect()
}
