//! A setting that an arm is said to change reaches the run.
//!
//! Without a device: the value in the effective config, the schedules, and rules about settings that cannot act in this config
//! ([`without_effect`]). A device settles the rest (`lab::audit_device::liveness`).

use std::collections::BTreeMap;

use super::study::{Study, has_group, value};
use super::{Check, Found, Severity, Stage, found};
use crate::run::Config;
use crate::run::config::{DataKind, SplitRule};
use crate::run::model::parameters::Group;
use crate::run::model::{DepthKind, FfnKind, RecursionGradient};
use crate::run::schedule::{Floor, ScheduleKind};

pub const CHECK: Check = Check { id: "inert-knob", stage: Stage::Before, claim: "every setting that an arm changes has an effect", find };

/// An arm's value of a setting, and why it does nothing.
struct Use<'a> {
    arm: &'a str,
    wanted: &'a str,
    reason: String,
}

fn find(study: &Study) -> Vec<Found> {
    let Some(control) = study.arms.first() else { return Vec::new() };
    let mut knobs: BTreeMap<&str, Vec<Use>> = BTreeMap::new();
    for arm in study.arms.iter().skip(1) {
        for (key, wanted) in &arm.changes {
            // A sweep contains its control's value.
            if is_equal(value(&control.config, key).as_deref(), wanted) {
                continue;
            }
            let effective = value(&arm.config, key);
            let reason = match is_equal(effective.as_deref(), wanted) {
                // A run of another length than declared is a stale result.
                false if key == "train.updates" => None,
                false => Some(format!("it is {} in its run", effective.as_deref().unwrap_or("unknown"))),
                true => without_effect(&arm.config).into_iter().find(|(inert, _)| inert == key).map(|(_, why)| why),
            };
            if let Some(reason) = reason {
                knobs.entry(key).or_default().push(Use { arm: &arm.name, wanted, reason });
            }
        }
    }
    let report = |(key, uses): (&str, Vec<Use>)| {
        let base = value(&control.config, key).unwrap_or_default();
        let values: Vec<&str> = std::iter::once(base.as_str()).chain(uses.iter().map(|arm| arm.wanted)).collect();
        let text = format!(
            "INERT KNOB  {key} in {{{}}}: {}. These {} runs would be replicas, not ablations.",
            values.join(", "),
            uses[0].reason,
            values.len()
        );
        uses.into_iter().map(move |of| found(Severity::Refuse, of.arm, text.clone())).collect::<Vec<_>>()
    };
    knobs.into_iter().flat_map(report).collect()
}

/// Whether two TOML values are equal, as numbers if they are numbers.
fn is_equal(one: Option<&str>, other: &str) -> bool {
    let number = |text: &str| text.parse::<f64>().ok();
    one.is_some_and(|one| one == other || number(one).is_some() && number(one) == number(other))
}

/// Settings that cannot act in this config whatever their value, with the reason. Settings that do not apply are refused when a config
/// is loaded; these apply, but nothing follows from them.
pub fn without_effect(config: &Config) -> Vec<(&'static str, String)> {
    let mut inert: Vec<(&'static str, String)> = Vec::new();
    let mut add = |keys: &[&'static str], why: String| inert.extend(keys.iter().map(|key| (*key, why.clone())));
    if !has_group(config, Group::Muon) {
        let keys = ["optimizer.muon.lr", "optimizer.muon.momentum", "optimizer.muon.scale", "optimizer.muon.weight_decay"];
        add(&keys, "Muon updates no parameter".into());
    }
    let data = &config.data;
    let is_endless = data.kind == DataKind::Language && data.language.documents == 0;
    if is_endless {
        let keys = ["data.split.fraction", "data.split.rule", "data.split.seed", "data.shuffle", "data.drop_last"];
        add(&keys, "the documents are endless".into());
    } else if data.split.rule == SplitRule::Last {
        add(&["data.split.seed"], "the last documents are held out, whatever the seed".into());
    }
    if data.drop_last || is_endless {
        add(&["train.weighting"], "every micro-batch is equally full".into());
    }
    if config.train.early_stopping.patience == 0 {
        add(&["train.early_stopping.min_delta"], "early stopping is off".into());
    }
    let evaluations = (1..=config.train.updates).filter(|done| config.evaluation_due(*done)).count();
    if config.train.early_stopping.patience as usize >= evaluations {
        let why = format!("the run has {evaluations} evaluations, so a patience of {} never ends", config.train.early_stopping.patience);
        add(&["train.early_stopping.patience"], why);
    }
    let model = &config.model;
    let router = &model.router;
    if model.ffn.kind == FfnKind::Moe && router.experts == 1 {
        let keys = ["model.router.noise", "model.balance.kind", "model.balance.coefficient", "model.router.selection_bias"];
        add(&keys, "there is one expert, which every token takes".into());
    }
    let recursion = &model.depth.recursion;
    let steps_in_reach = recursion.low_gradient_steps >= recursion.low_cycles && recursion.gradient == RecursionGradient::LowSteps;
    if model.depth.kind == DepthKind::Recursive && steps_in_reach {
        add(&["model.depth.recursion.low_gradient_steps"], format!("a cycle has only {} low steps", recursion.low_cycles));
    }
    let schedule = &config.schedule;
    if schedule.kind == ScheduleKind::Linear && schedule.min_ratio == 0.0 {
        add(&["schedule.floor"], "a floor of 0 is reached and never clamped".into());
    }
    if schedule.kind == ScheduleKind::HoldThenLinear && schedule.floor == Floor::Reached && schedule.min_ratio == 1.0 {
        add(&["schedule.decay"], "the floor is the peak".into());
    }
    inert
}
