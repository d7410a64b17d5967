//! A gradient reaches every parameter. Without a device, this finds those that the config cuts off; `lab::audit_device` finds the rest.

use super::study::Study;
use super::{Check, Found, Severity, Stage, found, grouped};
use crate::run::Config;
use crate::run::model::{DepthKind, RecursionStart};

pub const CHECK: Check = Check { id: "dead-parameter", stage: Stage::Before, claim: "a gradient reaches every parameter", find };

fn find(study: &Study) -> Vec<Found> {
    let mut told = Vec::new();
    let report = |arm: &super::Arm| {
        let dead = dead(&arm.config);
        if dead.is_empty() || told.contains(&dead) {
            return None;
        }
        told.push(dead.clone());
        let lines: Vec<String> = dead.iter().map(|(name, values)| format!("{name} ({} values)", grouped(*values))).collect();
        let verb = if lines.len() == 1 { "has" } else { "have" };
        let text = format!("DEAD PARAMETER  {} {verb} no path to the loss.", lines.join(", "));
        Some(found(Severity::Refuse, &arm.name, text))
    };
    study.arms.iter().filter_map(report).collect()
}

/// Parameters that no gradient reaches, as far as the config states it, by group, with their numbers of values.
fn dead(config: &Config) -> Vec<(String, u64)> {
    let recursion = &config.model.depth.recursion;
    if config.model.depth.kind != DepthKind::Recursive {
        return Vec::new();
    }
    let first_has_gradient = recursion.plan().first().is_some_and(|call| call.has_gradient);
    let is_cut_off = recursion.start == RecursionStart::Learned && !first_has_gradient;
    let sum = |part: &str| config.parameters().iter().filter(|spec| spec.name.contains(part)).map(|spec| spec.len()).sum::<u64>();
    let mut dead = Vec::new();
    if recursion.halting_head {
        dead.push(("recursion.halting".to_owned(), sum("recursion.halting")));
    }
    if is_cut_off {
        dead.push(("recursion's learned initial states".to_owned(), sum("_start")));
    }
    dead
}
