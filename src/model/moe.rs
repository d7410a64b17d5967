//! The mixture-of-experts branch of a block: router -> permute -> expert FFN -> combine; and its balancing losses.

use super::{
    build::{Build, Mode, Weights},
    ffn,
};
use crate::run::model::{BalanceKind, SelectionBias};
use crate::{
    gpu::{DType, Tensor},
    ops::{BalanceLoss, BalanceOptions, Graph, RouterBiases, RouterOptions, Routing, Scores},
};

/// One call of a router, for its losses and metrics.
pub(super) struct Routed {
    routing: Routing,
    /// The router's weight [E, D].
    weight: Tensor,
    /// Each expert's share of the assignments over the update's micro-batches so far `[E]`, if it is counted.
    running_load: Option<Tensor>,
    /// Whether it receives gradients; otherwise it does not contribute to the loss.
    pub has_gradient: bool,
}

impl Routed {
    /// The experts of each token, the largest selection score first [N, K], u32.
    pub fn expert(&self) -> Tensor {
        self.routing.expert
    }
}

/// The states of a router that persist between updates, besides its weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RouterState {
    /// Bias on the selection of experts `[E]`.
    pub selection_bias: Option<Tensor>,
    /// Assignments over the update's micro-batches so far, u32 `[E]`.
    pub counts: Tensor,
}

/// Routes each token of `x` [N, D] (the normed stream) to its experts and adds their outputs to `residual` [N, D].
pub(super) fn moe(g: &mut Graph, x: Tensor, mut residual: Tensor, w: &Weights, build: &Build) -> (Tensor, Routed) {
    let model = build.model;
    let dropout = build.dropout(model.dropout.residual);
    if model.ffn.shared_experts > 0 {
        let shared = ffn::dense(g, x, w, "moe.shared", build); // [N, D]
        let shared = g.dropout(shared, dropout); // [N, D]
        residual = g.add(residual, shared); // [N, D]
    }
    let w = w.below("moe.");
    let selection = match model.router.selection_bias {
        SelectionBias::Off => None,
        SelectionBias::LossFree => Some(selection_bias(g, &w, build)),
    };
    let biases = RouterBiases { logits: w.find("router.bias"), selection };
    let weight = w.get("router.weight"); // [E, D]
    let routing = g.router(x, weight, biases, options(build)); // gate [N, K], probabilities [N, E]
    let permutation = g.permute(&routing);
    let running_load = counts(g, &w, build).map(|counts| g.count_assignments(counts, &permutation)); // [E]
    let rows = g.gather_rows(x, &permutation); // [A, D], A = N K
    let (weights, biases) = (ffn::weights(&w, "experts"), ffn::biases(&w, "experts"));
    let inner_dropout = build.dropout(model.dropout.ffn);
    let activation = model.ffn.activation;
    let out = g.expert_ffn(rows, permutation.offsets, &weights, &biases, activation, inner_dropout); // [A, D]
    let y = g.combine(out, &routing, &permutation, Some(residual), dropout); // [N, D]
    (y, Routed { routing, weight, running_load, has_gradient: true })
}

fn options(build: &Build) -> RouterOptions {
    let router = &build.model.router;
    RouterOptions {
        experts_per_token: router.top_k,
        noise_std: build.noise(router.noise),
        scores: Scores { kind: router.scores, softmax: router.softmax, normalize: router.normalize },
        scale: router.scale as f32,
        force_balance: router.force_balance,
        groups: router.groups,
        kept_groups: router.kept_groups,
    }
}

/// The selection bias of a router `[E]`; one for all calls of the router.
fn selection_bias(g: &mut Graph, w: &Weights, build: &Build) -> Tensor {
    let name = w.name("router.selection_bias");
    g.find(&name).unwrap_or_else(|| g.state(&name, [build.model.router.experts]))
}

/// The counts of a router u32 `[E]`, if they are used.
fn counts(g: &mut Graph, w: &Weights, build: &Build) -> Option<Tensor> {
    let model = build.model;
    let Mode::Train { counts_assignments } = build.mode else { return None };
    let is_followed = model.router.selection_bias == SelectionBias::LossFree || model.balance.kind == BalanceKind::GlobalBatch;
    if !counts_assignments && !is_followed {
        return None;
    }
    let name = w.name("router.counts");
    Some(g.find(&name).unwrap_or_else(|| g.state_u32(&name, [model.router.experts])))
}

/// The routers with persistent states in a recorded training program, each once.
pub fn router_states(g: &Graph) -> Vec<RouterState> {
    let tensors = g.program().tensors.iter();
    let routers = tensors.filter(|t| t.dtype == DType::U32).filter_map(|t| t.name.strip_suffix("router.counts"));
    let state = |prefix: &str| RouterState {
        selection_bias: g.find(&format!("{prefix}router.selection_bias")),
        counts: g.find(&format!("{prefix}router.counts")).expect("its name was just read"),
    };
    routers.map(state).collect()
}

/// What is measured of a router call.
#[derive(Clone, Copy, Debug)]
pub struct RouterCall {
    /// The router's weight [E, D].
    pub weight: Tensor,
    /// See [`BalanceLoss::metrics`].
    pub metrics: Tensor,
    /// See [`Graph::domain_counts`].
    pub domain_counts: Option<Tensor>,
}

/// `loss` `[1]` plus the balance losses, and what is measured of every router call, in the order of the forward pass.
pub(super) fn balance(g: &mut Graph, mut loss: Tensor, routed: &[Routed], build: &Build) -> (Tensor, Vec<RouterCall>) {
    let (measures_gates, domains) = match build.mode {
        Mode::Evaluate { measures_routing: true, domains } => (true, domains),
        _ => (false, 0),
    };
    let tokens = routed.first().map_or(0, |router| router.routing.dims()[0]);
    let domain = (tokens > 0 && domains > 0).then(|| g.input("domains", [tokens], DType::U32)); // [N]
    let options = &build.model.balance;
    let mut balanced = Vec::new();
    for router in routed {
        // Hugging Face's is one loss for all layers. Outside of training nothing is counted.
        let kind = match (options.kind, router.running_load) {
            (BalanceKind::GlobalBatch, None) => BalanceKind::Off,
            (kind, _) => kind,
        };
        let running_load = router.running_load.filter(|_| kind == BalanceKind::GlobalBatch);
        let sequence_length = build.sequence_length;
        let has_loss = options.kind != BalanceKind::Off || options.z_coefficient > 0.0;
        let is_trained = build.mode.trains() && router.has_gradient && has_loss;
        let options = BalanceOptions { kind, running_load, sequence_length, measures_gates };
        let balance = g.balance_loss(&router.routing, options, is_trained.then_some(loss));
        if is_trained {
            loss = balance.loss;
        }
        balanced.push((router.routing, balance, router.has_gradient));
    }
    let trained: Vec<(Routing, BalanceLoss)> = balanced.iter().filter(|b| b.2).map(|b| (b.0, b.1)).collect();
    if build.mode.trains() && options.kind == BalanceKind::HfMixtral && !trained.is_empty() {
        let over_layers = g.balance_loss_over_layers(&trained); // [1]
        loss = g.add(loss, over_layers); // [1]
    }
    let call = |(router, (routing, balance, _)): (&Routed, &(Routing, BalanceLoss, bool))| RouterCall {
        weight: router.weight,
        metrics: balance.metrics,
        domain_counts: domain.map(|domain| g.domain_counts(routing, domain, domains)),
    };
    (loss, routed.iter().zip(&balanced).map(call).collect())
}
