//! Auxiliary losses of a router: load balance in the established conventions, and z-loss (Zoph et al., arXiv
//! 2202.08906), and the routing metrics that a run logs.
//!
//! The coefficients are per-step scalars, so a schedule may change them. The load is a count: the router gets gradients only
//! through the probabilities and the logsumexp. The selection is [`Routing`]'s, including noise. Regardless of the loss that is
//! trained, [`BalanceLoss::metrics`] has the inputs of every convention. Everything is over the step's real tokens; rows that pad
//! a micro-batch do not contribute and have a gradient of zero.

use std::ops::Range;

use super::{
    Graph,
    kernels::{
        balance::{Backward, BackwardBalance, BackwardZ, BlockSums, CONSTANTS, Forward, ForwardLayers, Params, PoolLayer, ROWS, SCALARS},
        slot,
    },
    router::Routing,
};
use crate::{choices::BalanceKind, gpu::Tensor};

/// The auxiliary losses of a layer's router.
#[derive(Clone, Copy, Debug)]
pub struct BalanceOptions {
    /// The kind of load-balancing loss; each is 1 at balance. `HfMixtral`, one loss for all layers, is
    /// [`Graph::balance_loss_over_layers`]: here it is the same as `Off`, which leaves the z-loss.
    pub kind: BalanceKind,
    /// For `GlobalBatch`: f `[E]` over the update's micro-batches so far, see [`Graph::count_assignments`].
    pub running_load: Option<Tensor>,
    /// T: the N tokens are consecutive whole sequences.
    pub sequence_length: u32,
    /// Whether the metrics include the gate weights of each expert (slot `gate`), else zeros.
    pub measures_gates: bool,
}

/// The auxiliary loss of one layer.
#[derive(Clone, Copy, Debug)]
pub struct BalanceLoss {
    /// balance_coefficient * balance + z_coefficient * z, plus the loss that it was added to, a scalar `[1]`.
    pub loss: Tensor,
    /// Routing metrics, without coefficients, in the slots of [`BalanceLoss::slot`].
    pub metrics: Tensor,
}

impl BalanceLoss {
    /// The range of a slot in `metrics` of this length: the constants `METRIC_*` of the shader, and its `ROW_*`, with one value per
    /// expert. `None` if there is no such slot.
    pub fn slot(name: &str, length: usize) -> Option<Range<usize>> {
        let experts = length.saturating_sub(SCALARS as usize) / ROWS as usize;
        let row = |row: usize| SCALARS as usize + row * experts..SCALARS as usize + (row + 1) * experts;
        slot(CONSTANTS, "ROW_", name).map(row).or_else(|| slot(CONSTANTS, "METRIC_", name).map(|index| index..index + 1))
    }

    /// The values of a slot in the metrics; empty if there is no such slot.
    pub fn values<'a, T>(metrics: &'a [T], slot: &str) -> &'a [T] {
        Self::slot(slot, metrics.len()).and_then(|slot| metrics.get(slot)).unwrap_or_default()
    }
}

impl Graph {
    /// The auxiliary loss of one layer's routing, added to the loss `before` `[1]` if there is one.
    ///
    /// # Panics
    /// If N is not a multiple of T.
    pub fn balance_loss(&mut self, routing: &Routing, options: BalanceOptions, before: Option<Tensor>) -> BalanceLoss {
        let BalanceOptions { running_load, sequence_length, .. } = options;
        let Routing { expert, gate, probabilities, logsumexp, entropy, .. } = *routing;
        let params = Params { has_before: before.is_some().into(), ..params(routing, options) };
        let Params { tokens, experts, blocks_per_sequence, .. } = params;
        let sequences = tokens / sequence_length; // B
        let sums = self.tensor("balance.sums", [sequences * blocks_per_sequence, 2 * experts + 2 + params.has_gate * experts]);
        self.dispatch(BlockSums { params, probabilities, logsumexp, entropy, expert, gate, sums });
        let loss = self.tensor("balance.loss", [1]);
        let metrics = self.tensor("balance.metrics", [SCALARS + ROWS * experts]);
        let rows = if params.by_sequence == 0 { 1 } else { sequences };
        let load = self.tensor("balance.load", [rows, experts]);
        let running_load = running_load.unwrap_or(sums); // Not read if absent.
        let added_to = before.unwrap_or(sums); // Not read if absent.
        self.dispatch(Forward { params, saved_sums: sums, running_load, before: added_to, loss, metrics, load });
        self.on_backward(loss, move |g, d_loss| {
            let d_logsumexp = g.like("d_router.logsumexp", logsumexp); // [N]
            if params.balances == 0 {
                g.dispatch(BackwardZ { params, logsumexp, d_loss, d_logsumexp });
            } else {
                let d_probabilities = g.like("d_router.probabilities", probabilities); // [N, E]
                g.dispatch(Backward { params, logsumexp, saved_load: load, d_loss, d_probabilities, d_logsumexp });
                g.add_grad(probabilities, d_probabilities);
            }
            g.add_grad(logsumexp, d_logsumexp);
            if let Some(before) = before {
                g.add_grad(before, d_loss);
            }
        });
        BalanceLoss { loss, metrics }
    }

    /// One load-balancing loss, a scalar `[1]`, over the tokens of all layers together, the K choices summed:
    /// balance_coefficient E sum_e (K mean_l f_{l,e}) (mean_l P_{l,e}), as in `load_balancing_loss_func` of Hugging Face
    /// transformers; K at balance. The layers' own losses should be [`BalanceKind::Off`].
    ///
    /// # Panics
    /// If there is no layer, or their shapes differ.
    pub fn balance_loss_over_layers(&mut self, layers: &[(Routing, BalanceLoss)]) -> Tensor {
        let (first, _) = layers.first().expect("balance_loss_over_layers: wanted at least one layer");
        let [tokens, experts, experts_per_token] = first.dims();
        let count = layers.len() as u32;
        let params = Params { tokens, experts, experts_per_token, sequence_length: tokens, layers: count, ..Default::default() };
        let pooled = self.tensor_in_parts("balance.pooled", [count, 2 * experts], count);
        for (layer, (routing, balance)) in (0..).zip(layers) {
            assert_eq!(routing.dims(), first.dims(), "balance_loss_over_layers: layer {layer}");
            let params = Params { layer, ..params };
            self.dispatch(PoolLayer { params, saved_metrics: balance.metrics, pooled });
        }
        let loss = self.tensor("balance.loss_over_layers", [1]);
        let load = self.tensor("balance.load", [1, experts]);
        self.dispatch(ForwardLayers { params, saved_pooled: pooled, loss, load });
        let probabilities: Vec<Tensor> = layers.iter().map(|(routing, _)| routing.probabilities).collect();
        self.on_backward(loss, move |g, d_loss| {
            for probabilities in probabilities {
                let d_probabilities = g.like("d_router.probabilities", probabilities); // [N, E]
                g.dispatch(BackwardBalance { params, saved_load: load, d_loss, d_probabilities });
                g.add_grad(probabilities, d_probabilities);
            }
        });
        loss
    }
}

/// Blocks of at least 32 tokens, about 256 of them, and none across sequences.
fn params(routing: &Routing, options: BalanceOptions) -> Params {
    let BalanceOptions { kind, running_load, sequence_length, measures_gates } = options;
    let [tokens, experts, experts_per_token] = routing.dims();
    assert!(
        sequence_length > 0 && tokens.is_multiple_of(sequence_length),
        "balance_loss: {tokens} tokens in sequences of {sequence_length}"
    );
    assert_eq!(kind == BalanceKind::GlobalBatch, running_load.is_some(), "balance_loss: {kind:?} and a running load go together");
    let block = tokens.div_ceil(256).max(32);
    Params {
        tokens,
        experts,
        experts_per_token,
        sequence_length,
        block,
        blocks_per_sequence: sequence_length.div_ceil(block),
        balances: (!matches!(kind, BalanceKind::Off | BalanceKind::HfMixtral)).into(),
        by_sequence: matches!(kind, BalanceKind::Sequence).into(),
        has_running_load: (kind == BalanceKind::GlobalBatch).into(),
        has_gate: measures_gates.into(),
        ..Default::default()
    }
}
