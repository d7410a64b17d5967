//! A mixture of experts routes: it has more experts than a token takes.

use super::study::Study;
use super::{Check, Found, Severity, Stage, found};
use crate::run::model::FfnKind;

pub const CHECK: Check = Check { id: "dense", stage: Stage::Before, claim: "a router has a choice", find };

fn find(study: &Study) -> Vec<Found> {
    let report = |arm: &super::Arm| {
        let (e, k) = arm.config.model.experts();
        if arm.config.model.ffn.kind != FfnKind::Moe || k < e {
            return None;
        }
        let text = match e {
            1 => format!("DENSE  {} has one expert: a dense FFN with a router that has no choice.", arm.name),
            _ => format!("DENSE  {} routes every token to all {e} experts.", arm.name),
        };
        Some(found(Severity::Warn, &arm.name, text))
    };
    study.arms.iter().filter_map(report).collect()
}
