//! The mixture-of-experts branch of a block: router -> permute -> expert FFN -> combine, and the balance loss.

use super::{config, ffn, transformer::{Build, Weights}};
use crate::{
    gpu::Tensor,
    ops::{BalanceKind, BalanceLoss, BalanceOptions, Graph, RouterBiases, RouterOptions, Scores, SoftmaxOver},
};

/// Sends each token of `x` [N, D] (the normed stream) to its experts and adds what they give to `residual` [N, D].
pub(super) fn moe(g: &mut Graph, x: Tensor, residual: Tensor, w: &Weights, build: &Build) -> (Tensor, BalanceLoss) {
    let model = build.model;
    let options = RouterOptions {
        noise_std: build.noise(model.router.noise),
        scores: Scores::Softmax(match model.router.softmax {
            config::SoftmaxOver::Selected => SoftmaxOver::Selected,
            config::SoftmaxOver::All => SoftmaxOver::All,
        }),
        ..RouterOptions::new(model.router.top_k)
    };
    let routing = g.router(x, w.get("moe.router.weight"), RouterBiases::default(), options); // gate [N, K], probabilities [N, E]
    let permutation = g.permute(&routing);
    let rows = g.gather_rows(x, &permutation); // [A, D], A = N K
    let (weights, biases) = (ffn::weights(w, "moe.experts"), ffn::biases(w, "moe.experts"));
    let inner_dropout = build.dropout(model.dropout.ffn);
    let activation = ffn::activation(model.ffn.activation);
    let out = g.expert_ffn(rows, permutation.offsets, &weights, &biases, activation, inner_dropout); // [A, D]
    let y = g.combine(out, &routing, &permutation, Some(residual), build.dropout(model.dropout.residual)); // [N, D]
    let options = BalanceOptions { kind: BalanceKind::Switch, sequence_length: build.sequence_length };
    let balance = g.balance_loss(&routing, options);
    (y, balance)
}
