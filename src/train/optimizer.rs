//! The update: gradient norm and clip over all parameters, then each parameter's own optimizer.

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
    let all: Vec<Tensor> = specs.iter().map(|s| tensor(g, &s.name)).collect();
    let clip = g.grad_norm(&all);
    let (adamw, muon) = (&config.optimizer.adamw, &config.optimizer.muon);
    let mut matrices = Vec::new();
    for (spec, w) in specs.iter().zip(all) {
        let skips_idle = config.optimizer.idle_experts == IdleExperts::Skip && spec.part == Part::Experts;
        let trained = Trained { w, assignments: skips_idle.then(|| tensor(g, &counts_of(spec))) };
        match spec.group {
            Group::Muon => matrices.push(trained),
            Group::AdamW => {
                let decays = adamw.decay_gains || !spec.is_gain_or_bias();
                let constants = AdamW {
                    beta1: adamw.beta1 as f32,
                    beta2: adamw.beta2 as f32,
                    eps: adamw.eps as f32,
                    weight_decay: if decays { adamw.weight_decay as f32 } else { 0.0 },
                };
                g.adamw(trained, clip, constants);
            }
        }
    }
    let constants = Muon { momentum: muon.momentum as f32, scale: muon.scale, weight_decay: muon.weight_decay as f32 };
    g.muon(&matrices, clip, constants);
    clip
}

/// The counts of the router that sends tokens to these experts.
fn counts_of(experts: &ParamSpec) -> String {
    let (moe, _) = experts.name.rsplit_once("experts.").expect("parameters of experts have such names");
    format!("{moe}router.counts")
}
