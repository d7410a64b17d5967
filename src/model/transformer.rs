//! The model: tokens -> embedding -> depth (blocks of attention and FFN or MoE, then a norm) -> head -> loss.
//!
//! Every published system is a choice of axes in [`config`](super::config); nothing here knows a system by name.

use std::collections::HashMap;

use super::{
    config::{ModelConfig, NormKind},
    depth::depth,
    moe::balance,
    params,
};
pub use super::moe::{RouterState, router_states};
use crate::{
    gpu::{DType, Tensor},
    ops::Graph,
};

/// What a graph is recorded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Loss and gradients, with dropout and router noise.
    Train {
        /// Routers count their assignments over the micro-batches of an update, whether the model follows the counts or
        /// not: the states `<moe>.router.counts`, which the update program must clear.
        counts_assignments: bool,
    },
    /// Loss without gradients, dropout or noise.
    Evaluate,
    /// Logits of one position, as in evaluation.
    Sample {
        /// Which, a u32 tensor [1].
        position: Tensor,
    },
}

impl Mode {
    /// Whether gradients are wanted.
    pub fn trains(self) -> bool {
        matches!(self, Mode::Train { .. })
    }
}

/// What the recording of a model needs to know besides its weights.
#[derive(Clone, Copy)]
pub(super) struct Build<'a> {
    pub model: &'a ModelConfig,
    pub mode: Mode,
    /// T.
    pub sequence_length: u32,
}

impl Build<'_> {
    /// A dropout probability of this mode.
    pub fn dropout(&self, p: f64) -> f32 {
        if self.mode.trains() { p as f32 } else { 0.0 }
    }

    /// A noise level of this mode.
    pub fn noise(&self, std: f64) -> f32 {
        if self.mode.trains() { std as f32 } else { 0.0 }
    }
}

/// The parameters of a model on a graph, or those below a prefix.
pub(super) struct Weights<'a> {
    all: &'a HashMap<String, Tensor>,
    prefix: String,
}

impl<'a> Weights<'a> {
    pub fn find(&self, name: &str) -> Option<Tensor> {
        self.all.get(&format!("{}{name}", self.prefix)).copied()
    }

    pub fn get(&self, name: &str) -> Tensor {
        self.find(name).unwrap_or_else(|| panic!("the parameter tree has no {}{name}", self.prefix))
    }

    pub fn below(&self, prefix: &str) -> Weights<'a> {
        Weights { all: self.all, prefix: format!("{}{prefix}", self.prefix) }
    }

    /// The name of something that belongs to these weights but is no parameter.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// What a recorded model gives.
pub struct Recorded {
    /// Cross-entropy plus the balance losses, a scalar [1]; gradients start here. None when sampling.
    pub loss: Option<Tensor>,
    /// Sums over the micro-batch's targets: cross-entropy in nats, targets, correct predictions [3].
    pub statistics: Option<Tensor>,
    /// Logits of the position asked for [1, V], when sampling.
    pub logits: Option<Tensor>,
    /// For each MoE layer its routing in numbers [4 + 2E]: see `BalanceLoss::metrics`.
    pub routing: Vec<Tensor>,
}

/// Records the model over `sequences` of `sequence_length` tokens (inputs `tokens` and `targets`, u32 [N]).
pub fn transformer(g: &mut Graph, model: &ModelConfig, mode: Mode, sequences: u32, sequence_length: u32) -> Recorded {
    let specs = params::parameters(model);
    let all = specs.iter().map(|s| (s.name.clone(), g.param(&s.name, s.shape.as_slice()))).collect();
    let w = Weights { all: &all, prefix: String::new() };
    let build = Build { model, mode, sequence_length };
    let tokens = g.input("tokens", [sequences * sequence_length], DType::U32); // [N]

    let mut x = g.embedding(tokens, w.get("embedding.weight"), model.embedding_scale()); // [N, D]
    if let Some(positions) = w.find("positions.weight") {
        x = g.add_positions(x, positions, sequence_length); // [N, D]
    }
    let mut routed = Vec::new();
    x = depth(g, x, &w, &build, &mut routed); // [N, D]
    x = g.dropout(x, build.dropout(model.dropout.head)); // [N, D]
    let head = w.get(if model.head.tied { "embedding.weight" } else { "head.weight" }); // [V, D]
    if let Mode::Sample { position } = mode {
        let last = g.embedding(position, x, 1.0); // [1, D]
        return Recorded { loss: None, statistics: None, logits: Some(g.linear(last, head)), routing: Vec::new() };
    }
    let targets = g.input("targets", [sequences * sequence_length], DType::U32); // [N]
    let ce = g.loss_head(x, head, targets, mode.trains());
    let (balance, routing) = balance(g, &routed, &build);
    let losses: Vec<_> = std::iter::once(ce.loss).chain(balance).collect();
    Recorded { loss: Some(g.add_losses(&losses)), statistics: Some(ce.statistics), logits: None, routing }
}

/// The norm of this name over the rows of `x` [N, D].
pub(super) fn norm(g: &mut Graph, x: Tensor, w: &Weights, name: &str, build: &Build) -> Tensor {
    let (eps, gain) = (build.model.norm.eps as f32, w.find(&format!("{name}.weight")));
    match (build.model.norm.kind, gain) {
        (NormKind::LayerNorm, Some(gain)) => g.layer_norm(x, gain, w.get(&format!("{name}.bias")), eps),
        (_, Some(gain)) => g.rms_norm(x, gain, eps),
        (_, None) => {
            let ones = g.ones(x.shape.last()); // [D]
            g.rms_norm(x, ones, eps)
        }
    }
}
