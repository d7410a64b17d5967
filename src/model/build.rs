//! What is needed to record a model besides its config: the mode, the parameters by name, and the norm that every part uses.

use std::collections::HashMap;

use crate::run::model::{ModelConfig, NormKind};
use crate::{gpu::Tensor, ops::Graph};

/// The purpose of a recorded graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Loss and gradients, with dropout and router noise.
    Train {
        /// Routers count their assignments over the micro-batches of an update, even if the model does not use the
        /// counts: the states `<moe>.router.counts`, which the update program must clear.
        counts_assignments: bool,
    },
    /// Loss without gradients, dropout or noise.
    Evaluate {
        /// Whether the routing is measured in full: the gate weights of each expert, and its assignments by domain.
        measures_routing: bool,
        /// Number of domains of the tokens, which are then an input `domains`, u32 `[N]`; 0 if they are not known.
        domains: u32,
    },
    /// Logits of one position, as in evaluation.
    Sample {
        /// The position, a u32 tensor `[1]`.
        position: Tensor,
    },
}

impl Mode {
    /// Whether gradients are recorded.
    pub fn trains(self) -> bool {
        matches!(self, Mode::Train { .. })
    }
}

/// The context for recording a model, besides its weights.
#[derive(Clone, Copy)]
pub(super) struct Build<'a> {
    pub model: &'a ModelConfig,
    pub mode: Mode,
    /// T.
    pub sequence_length: u32,
}

impl Build<'_> {
    /// The dropout probability in this mode.
    pub fn dropout(&self, p: f64) -> f32 {
        if self.mode.trains() { p as f32 } else { 0.0 }
    }

    /// The noise level in this mode.
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
    pub fn new(all: &'a HashMap<String, Tensor>) -> Weights<'a> {
        Weights { all, prefix: String::new() }
    }

    pub fn find(&self, name: &str) -> Option<Tensor> {
        self.all.get(&format!("{}{name}", self.prefix)).copied()
    }

    pub fn get(&self, name: &str) -> Tensor {
        self.find(name).unwrap_or_else(|| panic!("the parameter tree has no {}{name}", self.prefix))
    }

    pub fn below(&self, prefix: &str) -> Weights<'a> {
        Weights { all: self.all, prefix: format!("{}{prefix}", self.prefix) }
    }

    /// The name of something that belongs to these weights but is not a parameter.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// The norm of this name over the rows of `x` [N, D].
pub(super) fn norm(g: &mut Graph, x: Tensor, w: &Weights, name: &str, build: &Build) -> Tensor {
    let eps = build.model.norm.eps as f32;
    match build.model.norm.kind {
        NormKind::LayerNorm => g.layer_norm(x, w.get(&format!("{name}.weight")), w.get(&format!("{name}.bias")), eps),
        NormKind::RmsNorm => {
            let gain = gain(g, x, w, name); // [D]
            g.rms_norm(x, gain, eps)
        }
    }
}

/// `a` + `b` [N, D], and the norm of this name over its rows.
pub(super) fn add_norm(g: &mut Graph, a: Tensor, b: Tensor, w: &Weights, name: &str, build: &Build) -> (Tensor, Tensor) {
    match build.model.norm.kind {
        NormKind::LayerNorm => {
            let x = g.add(a, b); // [N, D]
            (x, norm(g, x, w, name, build))
        }
        NormKind::RmsNorm => {
            let gain = gain(g, a, w, name); // [D]
            g.add_rms_norm(a, b, gain, build.model.norm.eps as f32)
        }
    }
}

/// The gain of the RMS norm of this name over the rows of `x` [N, D]: a parameter, or ones.
fn gain(g: &mut Graph, x: Tensor, w: &Weights, name: &str) -> Tensor {
    w.find(&format!("{name}.weight")).unwrap_or_else(|| g.ones(x.shape.last()))
}
