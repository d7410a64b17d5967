//! The cost of a model: parameters by group and part, floating-point operations per token, bytes.
//!
//! Conventions. A multiply-add is 2 FLOP. Only matrix products are counted: projections, router, the K experts of a token, the
//! head, and attention scores; not norms, activations, softmax and the embedding look-up. A causal token sees
//! (T + 1) / 2 positions on average, for q k^T and for p v. Backward takes 2 times the FLOP of a linear map (one product for
//! each operand's gradient) and 2.5 times those of the scores (five products instead of two, as the scores are recomputed).

use std::collections::BTreeMap;

use serde::Serialize;

use super::parameters::{Group, ParamSpec, Part};
use super::{Call, DepthKind, ModelConfig, Recursion};

/// Newton-Schulz iterations per Muon update.
const NEWTON_SCHULZ_STEPS: u64 = 5;

/// Numbers of parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Total.
    pub total: u64,
    /// Active per token in one pass through the blocks: K of E experts and everything else.
    pub active: u64,
    /// That a token can use at most, each counted once: a block that is applied several times may choose other experts each time, so
    /// min(E, K * applications) experts, and everything else.
    pub unique_active: u64,
    /// Weights of FFNs and experts, without biases, that a token uses in a block, on average over the blocks: 2 D K F, or 3 D K F with
    /// a gate.
    pub ffn_per_layer: u64,
    /// The same in all blocks, each application counted: 2 D K F L.
    pub ffn_over_depth: u64,
    /// Updated by Muon.
    pub muon: u64,
    /// Updated by AdamW.
    pub adamw: u64,
    /// By part; parts that the model does not have are omitted.
    pub parts: BTreeMap<Part, u64>,
}

/// Counts the parameters of a model.
pub fn counts(model: &ModelConfig, specs: &[ParamSpec]) -> Counts {
    let sum = |keep: &dyn Fn(&ParamSpec) -> bool| specs.iter().filter(|spec| keep(spec)).map(ParamSpec::len).sum::<u64>();
    let mut parts = BTreeMap::new();
    for spec in specs {
        *parts.entry(spec.part).or_insert(0) += spec.len();
    }
    let total = sum(&|_| true);
    let (e, k) = model.experts();
    let experts = parts.get(&Part::Experts).copied().unwrap_or(0);
    let (mut unused, mut ffn_over_depth, mut applications) = (0, 0, 0);
    for spec in specs {
        let calls = Calls::of(model, &spec.name).forward;
        if spec.part == Part::Experts {
            unused += spec.len() / u64::from(e) * (u64::from(e) - u64::from(e).min(u64::from(k) * calls));
        }
        if matches!(spec.part, Part::Experts | Part::Ffn) && !spec.is_gain_or_bias() {
            let used = if spec.part == Part::Experts { spec.len() / u64::from(e) * u64::from(k) } else { spec.len() };
            ffn_over_depth += used * calls;
        }
    }
    for network in model.networks() {
        applications +=
            u64::from(model.depth.layers) * if model.depth.kind == DepthKind::Shared { 1 } else { Calls::of(model, network).forward };
    }
    Counts {
        total,
        active: total - experts / u64::from(e) * u64::from(e - k),
        unique_active: total - unused,
        ffn_per_layer: ffn_over_depth / applications.max(1),
        ffn_over_depth,
        muon: sum(&|spec| spec.group == Group::Muon),
        adamw: sum(&|spec| spec.group == Group::AdamW),
        parts,
    }
}

/// Floating-point operations and bytes of f32 training.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// FLOP of one token's forward pass, at sequence length T.
    pub forward_flops_per_token: u64,
    /// FLOP of one token's backward pass, at sequence length T.
    pub backward_flops_per_token: u64,
    /// FLOP of Muon's Newton-Schulz iterations in one update.
    pub muon_flops_per_update: u64,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Bytes of their gradients.
    pub gradient_bytes: u64,
    /// Bytes of the optimizers' moments: two for AdamW, one for Muon.
    pub optimizer_bytes: u64,
}

/// The cost of training at sequence length `t`.
pub fn cost(model: &ModelConfig, specs: &[ParamSpec], t: u32) -> Cost {
    let (e, k) = model.experts();
    let weights = specs.iter().filter(|spec| !spec.is_gain_or_bias());
    let mut linear = Calls::default(); // multiply-adds
    for spec in weights {
        let once = match spec.part {
            Part::Embedding => 0,
            Part::Experts => spec.len() / u64::from(e) * u64::from(k),
            _ => spec.len(),
        };
        let calls = Calls::of(model, &spec.name);
        linear.forward += once * calls.forward;
        linear.backward += once * calls.backward;
    }
    if model.head.tied {
        let head = u64::from(model.vocabulary) * u64::from(model.width);
        linear.forward += head;
        linear.backward += head;
    }
    // q k^T and p v: 2 FLOP * width of the heads * (T + 1) / 2 positions, in every block.
    let (key_width, value_width) = model.attention_widths();
    let block_scores = u64::from(model.attention.heads * (key_width + value_width)) * (u64::from(t) + 1);
    let mut scores = Calls::default();
    for network in model.networks() {
        let calls = Calls::of(model, network);
        scores.forward += u64::from(model.depth.layers) * block_scores * calls.forward;
        scores.backward += u64::from(model.depth.layers) * block_scores * calls.backward;
    }
    let Counts { total, muon, adamw, .. } = counts(model, specs);
    Cost {
        forward_flops_per_token: 2 * linear.forward + scores.forward,
        backward_flops_per_token: 4 * linear.backward + scores.backward * 5 / 2,
        muon_flops_per_update: NEWTON_SCHULZ_STEPS * specs.iter().map(newton_schulz_flops).sum::<u64>(),
        weight_bytes: 4 * total,
        gradient_bytes: 4 * total,
        optimizer_bytes: 8 * adamw + 4 * muon,
    }
}

/// How often a forward pass uses something, and how often it receives gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Calls {
    forward: u64,
    backward: u64,
}

impl Calls {
    const ONE: Calls = Calls { forward: 1, backward: 1 };

    /// Calls of a parameter, or of the network that a prefix of parameter names denotes.
    fn of(model: &ModelConfig, name: &str) -> Calls {
        let is_block = name.starts_with("blocks.");
        match model.depth.kind {
            DepthKind::Shared if is_block => Calls { forward: model.depth.layers.into(), backward: model.depth.layers.into() },
            DepthKind::Indexed | DepthKind::Shared => Calls::ONE,
            DepthKind::Recursive => {
                let [low, high] = Calls::of_states(&model.depth.recursion);
                match () {
                    () if name.starts_with("low.") || name == "recursion.high_to_low.weight" => low,
                    () if name.starts_with("high.") || name == "recursion.low_to_high.weight" => high,
                    () if is_block || name.is_empty() => {
                        Calls { forward: low.forward + high.forward, backward: low.backward + high.backward }
                    }
                    () if name.starts_with("recursion.") => Calls::default(),
                    () => Calls::ONE,
                }
            }
        }
    }

    /// Calls that update the low and the high state.
    fn of_states(recursion: &Recursion) -> [Calls; 2] {
        let plan = recursion.plan();
        let count =
            |is_high: bool, keep: &dyn Fn(&Call) -> bool| plan.iter().filter(|call| call.is_high == is_high && keep(call)).count() as u64;
        [false, true].map(|high| Calls { forward: count(high, &|_| true), backward: count(high, &|call| call.has_gradient) })
    }
}

/// One Newton-Schulz iteration on all matrices of a parameter: X X^T, A A and B X with the shorter side first.
fn newton_schulz_flops(spec: &ParamSpec) -> u64 {
    let Some((count, rows, columns)) = spec.matrices().filter(|_| spec.group == Group::Muon) else { return 0 };
    let (short, long) = (u64::from(rows.min(columns)), u64::from(rows.max(columns)));
    u64::from(count) * (4 * short * short * long + 2 * short * short * short)
}
