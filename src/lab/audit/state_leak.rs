//! No state passes from one text to an unrelated one. Without a device, this reads it from the config; `lab::audit_device` measures it.

use super::study::Study;
use super::{Check, Found, Severity, Stage, found};
use crate::run::model::{Carry, DepthKind};

pub const CHECK: Check = Check { id: "state-leak", stage: Stage::Before, claim: "no state passes between unrelated texts", find };

fn find(study: &Study) -> Vec<Found> {
    let leaks = |arm: &&super::Arm| {
        let depth = &arm.config.model.depth;
        depth.kind == DepthKind::Recursive && depth.recursion.carry == Carry::NextData && depth.recursion.halt_after > 1
    };
    let report = |arm: &super::Arm| {
        let halt = arm.config.model.depth.recursion.halt_after;
        let text = format!(
            "STATE LEAK  {}: logits of batch 2 depend on batch 1 (states are kept for {halt} batches). The carry is not tied to its data.",
            arm.name
        );
        found(Severity::Refuse, &arm.name, text)
    };
    study.arms.iter().filter(leaks).map(report).collect()
}
