//! The mixture-of-experts branch of a block: router -> permute -> expert FFN -> combine; and the losses that balance it.

use super::{
    config::{self, BalanceKind},
    ffn,
    transformer::{Build, Mode, Weights},
};
use crate::{
    gpu::Tensor,
    ops::{Graph, Permutation, RouterOptions, Routing, SoftmaxOver},
};

/// One use of a router, for the losses and the numbers that are taken from it.
pub(super) struct Routed {
    routing: Routing,
    permutation: Permutation,
    /// Gradients pass back through it: else it has no part in the loss.
    pub has_gradient: bool,
}

/// Sends each token of `x` [N, D] (the normed stream) to its experts and adds what they give to `residual` [N, D].
pub(super) fn moe(g: &mut Graph, x: Tensor, mut residual: Tensor, w: &Weights, build: &Build) -> (Tensor, Routed) {
    let model = build.model;
    let options = RouterOptions {
        experts_per_token: model.router.top_k,
        noise_std: build.noise(model.router.noise),
        softmax_over: match model.router.softmax {
            config::SoftmaxOver::Selected => SoftmaxOver::Selected,
            config::SoftmaxOver::All => SoftmaxOver::All,
        },
    };
    let dropout = build.dropout(model.dropout.residual);
    if model.ffn.shared_experts > 0 {
        let shared = ffn::dense(g, x, w, "moe.shared", build); // [N, D]
        let shared = g.dropout(shared, dropout); // [N, D]
        residual = g.add(residual, shared); // [N, D]
    }
    let routing = g.router(x, w.get("moe.router.weight"), options); // gate [N, K], probabilities [N, E]
    let permutation = g.permute(&routing);
    let rows = g.gather_rows(x, &permutation); // [A, D], A = N K
    let (weights, biases) = (ffn::weights(w, "moe.experts"), ffn::biases(w, "moe.experts"));
    let inner_dropout = build.dropout(model.dropout.ffn);
    let activation = ffn::activation(model.ffn.activation);
    let out = g.expert_ffn(rows, permutation.offsets, &weights, &biases, activation, inner_dropout); // [A, D]
    let y = g.combine(out, &routing, &permutation, Some(residual), dropout); // [N, D]
    (y, Routed { routing, permutation, has_gradient: true })
}

/// The balance losses [1] and, of every router in the order of the forward pass, its metrics.
pub(super) fn balance(g: &mut Graph, routed: &[Routed], build: &Build) -> (Vec<Tensor>, Vec<Tensor>) {
    let (mut losses, mut metrics) = (Vec::new(), Vec::new());
    for router in routed {
        let balance = g.balance_loss(&router.routing, &router.permutation);
        metrics.push(balance.metrics);
        let options = &build.model.balance;
        let is_trained = options.kind != BalanceKind::Off || options.z_coefficient > 0.0;
        if build.mode == Mode::Train && router.has_gradient && is_trained {
            losses.push(balance.loss);
        }
    }
    (losses, metrics)
}
