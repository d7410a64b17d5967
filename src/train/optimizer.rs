//! The update: gradient norm and clip over all parameters, then each parameter's own optimizer.

use std::collections::{HashMap, HashSet};

use crate::run::config::{Config, IdleExperts};
use crate::{
    gpu::Tensor,
    ops::{AdamW, Graph, Muon, Trained},
    run::model::parameters::{Group, ParamSpec, Part},
};

/// Records the update after a recorded backward. Returns `clip`, u32 [4]: see [`Graph::grad_norm`].
///
/// Every parameter is in exactly one group. Counts of assignments are not cleared.
pub fn record(g: &mut Graph, config: &Config) -> Tensor {
    g.begin_update();
    let specs = config.parameters();
    let tensor = |g: &Graph, name: &str| g.find(name).unwrap_or_else(|| panic!("the recorded model has no {name}"));
    let each = specs.iter().map(|spec| {
        let skips_idle = config.optimizer.idle_experts == IdleExperts::Skip && spec.part == Part::Experts;
        let trained = Trained { w: tensor(g, &spec.name), assignments: skips_idle.then(|| tensor(g, &counts_of(spec))) };
        (trained, adamw_of(spec, config))
    });
    let targets = stacked(g, each.collect());
    let all: Vec<Tensor> = targets.iter().map(|(trained, _)| trained.w).collect();
    let clip = g.grad_norm(&all);
    for (trained, adamw) in &targets {
        if let Some(constants) = adamw {
            g.adamw(*trained, clip, *constants);
        }
    }
    let matrices: Vec<Trained> = targets.iter().filter(|(_, adamw)| adamw.is_none()).map(|(trained, _)| *trained).collect();
    let muon = &config.optimizer.muon;
    let constants = Muon { momentum: muon.momentum as f32, scale: muon.scale, weight_decay: muon.weight_decay as f32 };
    g.muon(&matrices, clip, constants);
    clip
}

/// AdamW's constants for a parameter; `None` if Muon trains it.
fn adamw_of(spec: &ParamSpec, config: &Config) -> Option<AdamW> {
    let adamw = &config.optimizer.adamw;
    let decays = adamw.decay_gains || !spec.is_gain_or_bias();
    (spec.group == Group::AdamW).then_some(AdamW {
        beta1: adamw.beta1 as f32,
        beta2: adamw.beta2 as f32,
        eps: adamw.eps as f32,
        weight_decay: if decays { adamw.weight_decay as f32 } else { 0.0 },
    })
}

/// Parameters with AdamW's constants; `None`: Muon's.
type Target = (Trained, Option<AdamW>);

/// Stacks what one launch can update: parameters of equal constants, unless single experts are left unchanged. A stack stands where its
/// first part was.
fn stacked(g: &mut Graph, targets: Vec<Target>) -> Vec<Target> {
    let mut classes: Vec<(Option<AdamW>, Vec<Tensor>)> = Vec::new();
    for (trained, adamw) in targets.iter().filter(|(trained, _)| trained.assignments.is_none()) {
        match classes.iter_mut().find(|(class, _)| class == adamw) {
            Some((_, parameters)) => parameters.push(trained.w),
            None => classes.push((*adamw, vec![trained.w])),
        }
    }
    let mut stack_of = HashMap::new();
    for (adamw, parameters) in classes {
        let stacks = if adamw.is_some() { g.stack_parameters(&parameters) } else { g.stack_matrices(&parameters) };
        stack_of.extend(parameters.iter().map(|w| w.id).zip(stacks));
    }
    let mut seen = HashSet::new();
    let held =
        targets.into_iter().map(|(trained, adamw)| (Trained { w: *stack_of.get(&trained.w.id).unwrap_or(&trained.w), ..trained }, adamw));
    held.filter(|(trained, _)| seen.insert(trained.w.id)).collect()
}

/// The counts of the router that sends tokens to these experts.
fn counts_of(experts: &ParamSpec) -> String {
    let (moe, _) = experts.name.rsplit_once("experts.").expect("parameters of experts have such names");
    format!("{moe}router.counts")
}
