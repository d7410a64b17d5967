//! The model: tokens -> embedding -> L blocks -> norm -> head.
//!
//! Every published system is a choice of axes in [`config`](super::config); nothing here knows a system by name.
//! Pre-norm residual blocks: x + attention(norm(x)), then x + ffn(norm(x)) or x + moe(norm(x)).

use std::collections::HashMap;

use super::{
    attention::attention,
    config::{BalanceKind, FfnKind, ModelConfig},
    ffn,
    moe::moe,
    params,
};
use crate::{
    gpu::{DType, Tensor},
    ops::Graph,
};

/// What a graph is recorded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Loss and gradients, with dropout and router noise.
    Train,
    /// Loss without gradients, dropout or noise.
    Evaluate,
    /// Logits of one position, as in evaluation.
    Sample {
        /// Which, a u32 tensor [1].
        position: Tensor,
    },
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
        if self.mode == Mode::Train { p as f32 } else { 0.0 }
    }

    /// A noise level of this mode.
    pub fn noise(&self, std: f64) -> f32 {
        if self.mode == Mode::Train { std as f32 } else { 0.0 }
    }
}

/// The parameters of a model on a graph, or those below a prefix.
pub(super) struct Weights<'a> {
    all: &'a HashMap<String, Tensor>,
    prefix: String,
}

impl Weights<'_> {
    pub fn find(&self, name: &str) -> Option<Tensor> {
        self.all.get(&format!("{}{name}", self.prefix)).copied()
    }

    pub fn get(&self, name: &str) -> Tensor {
        self.find(name).unwrap_or_else(|| panic!("the parameter tree has no {}{name}", self.prefix))
    }

    fn block(&self, layer: u32) -> Weights<'_> {
        Weights { all: self.all, prefix: format!("blocks.{layer}.") }
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
    let eps = model.norm.eps as f32;
    let tokens = g.input("tokens", [sequences * sequence_length], DType::U32); // [N]

    let mut x = g.embedding(tokens, w.get("embedding.weight"), model.embedding_scale()); // [N, D]
    x = g.dropout(x, build.dropout(model.dropout.embedding)); // [N, D]
    let mut balance_losses = Vec::new();
    let mut routing = Vec::new();
    for layer in 0..model.depth.layers {
        let w = w.block(layer);
        g.scope(format!("blocks.{layer}"));
        let h = g.rms_norm(x, w.get("attention_norm.weight"), eps); // [N, D]
        let h = attention(g, h, &w, &build); // [N, D]
        let h = g.dropout(h, build.dropout(model.dropout.residual)); // [N, D]
        x = g.add(x, h); // [N, D]
        let h = g.rms_norm(x, w.get("ffn_norm.weight"), eps); // [N, D]
        match model.ffn.kind {
            FfnKind::Moe => {
                let (y, balance) = moe(g, h, x, &w, &build);
                x = y; // [N, D]
                balance_losses.push(balance.loss);
                routing.push(balance.metrics);
            }
            FfnKind::Dense => {
                let activation = ffn::activation(model.ffn.activation);
                let h = g.ffn(h, &ffn::weights(&w, "ffn"), activation, build.dropout(model.dropout.ffn)); // [N, D]
                let h = g.dropout(h, build.dropout(model.dropout.residual)); // [N, D]
                x = g.add(x, h); // [N, D]
            }
        }
        g.end_scope();
    }
    x = g.rms_norm(x, w.get("final_norm.weight"), eps); // [N, D]
    x = g.dropout(x, build.dropout(model.dropout.head)); // [N, D]
    let head = w.get(if model.head.tied { "embedding.weight" } else { "head.weight" }); // [V, D]
    if let Mode::Sample { position } = mode {
        let last = g.embedding(position, x, 1.0); // [1, D]
        return Recorded { loss: None, statistics: None, logits: Some(g.linear(last, head)), routing };
    }
    let targets = g.input("targets", [sequences * sequence_length], DType::U32); // [N]
    let ce = g.loss_head(x, head, targets, mode == Mode::Train);
    let mut losses = vec![ce.loss];
    if mode == Mode::Train && model.balance.kind == BalanceKind::Switch {
        losses.extend(balance_losses);
    }
    Recorded { loss: Some(g.add_losses(&losses)), statistics: Some(ce.statistics), logits: None, routing }
}
