//! The weights of an FFN, dense or of all experts of a layer, and its non-linearity.

use super::{config, transformer::Weights};
use crate::ops::{Activation, ExpertBiases, FfnWeights};

/// Weights below `name`: `up`, `gate` where there is one, `down`.
pub(super) fn weights(w: &Weights, name: &str) -> FfnWeights {
    FfnWeights {
        up: w.get(&format!("{name}.up.weight")),
        gate: w.find(&format!("{name}.gate.weight")),
        down: w.get(&format!("{name}.down.weight")),
    }
}

/// Biases below `name`, where there are some.
pub(super) fn biases(w: &Weights, name: &str) -> ExpertBiases {
    ExpertBiases {
        up: w.find(&format!("{name}.up.bias")),
        gate: w.find(&format!("{name}.gate.bias")),
        down: w.find(&format!("{name}.down.bias")),
    }
}

/// The op's name for a config's.
pub(super) fn activation(choice: config::Activation) -> Activation {
    match choice {
        config::Activation::Silu => Activation::Silu,
        config::Activation::Gelu => Activation::Gelu,
        config::Activation::GeluTanh => Activation::GeluTanh,
        config::Activation::Relu => Activation::Relu,
        config::Activation::ReluSquared => Activation::ReluSquared,
    }
}
