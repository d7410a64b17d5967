//! The model: tokens -> embedding -> depth (blocks of attention and FFN or MoE, then a norm) -> head -> loss.
//!
//! Every published system is a combination of axes in the [config](crate::run::model); no system is named here.

pub use super::build::Mode;
pub use super::moe::{RouterCall, RouterState, router_states};
use super::{
    build::{Build, Weights},
    depth::depth,
    moe::{Routed, balance},
};
use crate::run::model::{ModelConfig, parameters};
use crate::{
    gpu::{DType, Tensor},
    ops::Graph,
};

/// The outputs of a recorded model.
pub struct Recorded {
    /// Cross-entropy plus the balance losses, a scalar `[1]`; gradients start here. None when sampling.
    pub loss: Option<Tensor>,
    /// Sums over the micro-batch's targets: cross-entropy in nats, targets, correct predictions `[3]`.
    pub statistics: Option<Tensor>,
    /// Logits of the requested position [1, V], when sampling.
    pub logits: Option<Tensor>,
    /// What is measured of each router call, in the order of the forward pass.
    pub routing: Vec<RouterCall>,
    /// The experts of each token, for each router call [N, K], u32.
    pub experts: Vec<Tensor>,
}

/// Records the model over `sequences` of `sequence_length` tokens (inputs `tokens` and `targets`, u32 `[N]`).
pub fn transformer(g: &mut Graph, model: &ModelConfig, mode: Mode, sequences: u32, sequence_length: u32) -> Recorded {
    let specs = parameters::parameters(model);
    let all = specs.iter().map(|s| (s.name.clone(), g.param(&s.name, s.shape.as_slice()))).collect();
    let w = Weights::new(&all);
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
    let experts = routed.iter().map(Routed::expert).collect();
    if let Mode::Sample { position } = mode {
        let last = g.embedding(position, x, 1.0); // [1, D]
        return Recorded { loss: None, statistics: None, logits: Some(g.linear(last, head)), routing: Vec::new(), experts };
    }
    let targets = g.input("targets", [sequences * sequence_length], DType::U32); // [N]
    let ce = g.loss_head(x, head, targets, mode.trains());
    let (loss, routing) = balance(g, ce.loss, &routed, &build);
    Recorded { loss: Some(loss), statistics: Some(ce.statistics), logits: None, routing, experts }
}
