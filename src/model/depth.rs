//! The depth of a model: which blocks a token passes through, how often, and with which weights.
//!
//! Indexed: L blocks one after the other. Shared: one block L times (Universal Transformer, arXiv 1807.03819). Recursive: a
//! network of L blocks is called on two states as [`Recursion::plan`] lists (HRM, arXiv 2506.21734; TRM, arXiv 2510.04871;
//! HrmText of Hugging Face transformers). Reused weights are one parameter whose gradients accumulate.

use super::{
    attention::attention,
    build::{Build, Weights, add_norm, norm},
    ffn,
    moe::{Routed, moe},
};
use crate::run::model::{Carry, DepthIdentity, DepthKind, HeadReads, Injection, Networks, Recursion, RecursionStart, StateUpdate};
use crate::{
    gpu::{DType, Tensor},
    ops::Graph,
};

/// Passes the embedded tokens `x` [N, D] through the blocks; returns the normed input of the head [N, D].
pub(super) fn depth(g: &mut Graph, x: Tensor, w: &Weights, build: &Build, routed: &mut Vec<Routed>) -> Tensor {
    match build.model.depth.kind {
        DepthKind::Indexed | DepthKind::Shared => {
            let x = g.dropout(x, build.dropout(build.model.dropout.embedding)); // [N, D]
            network(g, x, w, build, routed)
        }
        DepthKind::Recursive => recursion(g, x, w, build, routed),
    }
}

/// L blocks and the norm after them.
fn network(g: &mut Graph, mut x: Tensor, w: &Weights, build: &Build, routed: &mut Vec<Routed>) -> Tensor {
    let depth = &build.model.depth;
    let is_shared = depth.kind == DepthKind::Shared;
    for layer in 0..depth.layers {
        g.scope(format!("blocks.{layer}"));
        let own = w.below(&format!("blocks.{}.", if is_shared { 0 } else { layer }));
        let step = w.below(&format!("steps.{layer}."));
        if let Some(embedding) = step.find("embedding") {
            x = g.add_bias(x, embedding); // [N, D]
        }
        let norms = if is_shared && depth.identity == DepthIdentity::Norm { &step } else { &own };
        x = block(g, x, layer, &own, norms, build, routed); // [N, D]
        g.end_scope();
    }
    norm(g, x, w, "final_norm", build)
}

/// x + attention(norm(x)), then x + ffn(norm(x)) or x + moe(norm(x)).
fn block(g: &mut Graph, x: Tensor, layer: u32, w: &Weights, norms: &Weights, build: &Build, routed: &mut Vec<Routed>) -> Tensor {
    let dropout = build.model.dropout.clone();
    let h = norm(g, x, norms, "attention_norm", build); // [N, D]
    let h = attention(g, h, w, build); // [N, D]
    let h = g.dropout(h, build.dropout(dropout.residual)); // [N, D]
    let (x, h) = add_norm(g, x, h, norms, "ffn_norm", build); // [N, D], [N, D]
    if build.model.is_moe(layer) {
        let (y, router) = moe(g, h, x, w, build);
        routed.push(router);
        y // [N, D]
    } else {
        let h = ffn::dense(g, h, w, "ffn", build); // [N, D]
        let h = g.dropout(h, build.dropout(dropout.residual)); // [N, D]
        g.add(x, h) // [N, D]
    }
}

/// The two states of a recursive model [N, D].
struct States {
    high: Tensor,
    low: Tensor,
}

/// Calls the networks in the order of the plan, each on its state and the injected input.
fn recursion(g: &mut Graph, embedded: Tensor, w: &Weights, build: &Build, routed: &mut Vec<Routed>) -> Tensor {
    let options = &build.model.depth.recursion;
    let own = w.below("recursion.");
    let mut states = start(g, embedded, &own, options);
    let carried = build.carries().then(|| resume(g, &mut states, build));
    let mut output = embedded;
    for (index, call) in options.plan().into_iter().enumerate() {
        g.scope(format!("calls.{index}"));
        let (state, other) = if call.is_high { (states.high, states.low) } else { (states.low, states.high) };
        let mut x = match options.injection {
            Injection::Sum => g.add(state, other), // [N, D]
            Injection::Projected => {
                let projection = own.get(if call.is_high { "low_to_high.weight" } else { "high_to_low.weight" });
                let other = g.linear(other, projection); // [N, D]
                g.add(state, other) // [N, D]
            }
        };
        if options.embedding_injection && !call.is_high {
            x = g.add(x, embedded); // [N, D]
        }
        if options.injection == Injection::Projected {
            let name = if call.is_high { "high_norm" } else { "low_norm" };
            let (gain, bias) = (own.get(&format!("{name}.weight")), own.get(&format!("{name}.bias")));
            x = g.layer_norm(x, gain, bias, INJECTION_EPS); // [N, D]
        }
        x = g.dropout(x, build.dropout(build.model.dropout.embedding)); // [N, D]
        let weights = match options.networks {
            Networks::Single => w.below(""),
            Networks::Separate => w.below(if call.is_high { "high." } else { "low." }),
        };
        let first = routed.len();
        output = network(g, x, &weights, build, routed); // [N, D]
        let mut updated = match options.update {
            StateUpdate::Replace => output,
            StateUpdate::Residual => g.add(state, output), // [N, D]
        };
        if !call.has_gradient {
            updated = g.detach(updated); // [N, D]
            routed[first..].iter_mut().for_each(|router| router.has_gradient = false);
        }
        if call.is_high {
            states.high = updated
        } else {
            states.low = updated
        }
        g.end_scope();
    }
    if let Some(carried) = carried {
        g.store(carried.high, states.high);
        g.store(carried.low, states.low);
    }
    match options.head {
        HeadReads::State => states.high,
        HeadReads::Call => output,
    }
}

/// eps of the norms on the injected input, PyTorch's default.
const INJECTION_EPS: f32 = 1e-5;

/// The initial states of a recursion.
fn start(g: &mut Graph, embedded: Tensor, own: &Weights, options: &Recursion) -> States {
    let [rows, _] = embedded.shape.matrix("recursion embedding");
    match options.start {
        RecursionStart::Embedding => {
            let low = g.like("low_start", embedded); // [N, D]
            g.clear(low);
            States { high: embedded, low }
        }
        RecursionStart::Learned => States {
            high: g.broadcast_rows(own.get("high_start"), rows), // [N, D]
            low: g.broadcast_rows(own.get("low_start"), rows),   // [N, D]
        },
    }
}

/// Replaces the initial states by the carried ones, except for sequences that are reset (input `fresh`, f32 `[B]`, 1 or 0).
fn resume(g: &mut Graph, states: &mut States, build: &Build) -> States {
    let [rows, width] = states.high.shape.matrix("recursion state");
    let fresh = g.input("fresh", [rows / build.sequence_length], DType::F32); // [B]
    let carried = States { high: g.carried("recursion.high", [rows, width]), low: g.carried("recursion.low", [rows, width]) };
    states.high = g.mix_rows(carried.high, states.high, fresh, build.sequence_length); // [N, D]
    states.low = g.mix_rows(carried.low, states.low, fresh, build.sequence_length); // [N, D]
    carried
}

impl Build<'_> {
    /// Whether states outlive a micro-batch. Only in training: an evaluation depends only on its own text.
    fn carries(&self) -> bool {
        self.mode.trains() && self.model.depth.recursion.carry != Carry::Dropped
    }
}
