//! The dense FFN of a block, and the weights that dense FFNs and experts have in common.

use super::build::{Build, Weights};
use crate::{
    gpu::Tensor,
    ops::{ExpertBiases, FfnWeights, Graph},
};

/// The FFN below `name` over `x` [N, D].
pub(super) fn dense(g: &mut Graph, x: Tensor, w: &Weights, name: &str, build: &Build) -> Tensor {
    let options = build.model;
    let inner_dropout = build.dropout(options.dropout.ffn);
    g.ffn(x, &weights(w, name), &biases(w, name), options.ffn.activation, inner_dropout) // [N, D]
}

/// Weights below `name`: `up`, `gate` if there is one, `down`.
pub(super) fn weights(w: &Weights, name: &str) -> FfnWeights {
    FfnWeights {
        up: w.get(&format!("{name}.up.weight")),
        gate: w.find(&format!("{name}.gate.weight")),
        down: w.get(&format!("{name}.down.weight")),
    }
}

/// Biases below `name`, if there are any.
pub(super) fn biases(w: &Weights, name: &str) -> ExpertBiases {
    ExpertBiases {
        up: w.find(&format!("{name}.up.bias")),
        gate: w.find(&format!("{name}.gate.bias")),
        down: w.find(&format!("{name}.down.bias")),
    }
}
