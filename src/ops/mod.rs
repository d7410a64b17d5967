//! The graph, and one file per op, with the op's forward, saved values and backward.

mod activation;
mod adamw;
mod add_bias;
mod attention;
mod balance;
mod broadcast_rows;
mod column_sums;
mod combine;
mod domain_counts;
mod dropout;
mod elementwise;
mod embedding;
mod expert_ffn;
mod gather_rows;
mod grad_norm;
mod gradient_norms;
mod graph;
mod grouped_matmul;
mod halves;
mod head_norm;
mod latent_heads;
mod layer_norm;
mod loss_head;
mod matmul;
mod mix_rows;
mod muon;
mod permute;
mod recompute;
mod rms_norm;
mod rope;
mod router;
mod row_ranges;
mod selection_bias;
mod self_test;
mod split_columns;
mod stacks;
mod take_heads;

pub use crate::choices::{Activation, BalanceKind, MuonScale, RopePairing, RouterScores, SoftmaxOver};
pub use adamw::{AdamW, Trained, state_range};
pub use attention::Heads;
pub use balance::{BalanceLoss, BalanceOptions};
pub use expert_ffn::{ExpertBiases, FfnWeights};
pub use grad_norm::clip_slot;
pub use graph::Graph;
pub use grouped_matmul::GroupedForm;
pub use latent_heads::LatentHeads;
pub use loss_head::LossHead;
pub use matmul::{Addend, Form};
pub use muon::Muon;
pub use permute::Permutation;
pub use rope::Rotation;
pub use router::{RouterBiases, RouterOptions, Routing, Scores};
pub use self_test::self_test;

/// Generated from `shaders/` by the build script: `Params` and one call struct per entry point.
#[allow(clippy::double_parens, clippy::manual_is_multiple_of, clippy::module_inception, reason = "expressions and names of the sources")]
pub mod kernels {
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

    /// The slot of an output that a shader names `PREFIX_NAME`, among the constants of its module; the case of `name` is free.
    pub fn slot(constants: &[(&str, u32)], prefix: &str, name: &str) -> Option<usize> {
        let is_it = |constant: &str| constant.strip_prefix(prefix).is_some_and(|rest| rest.eq_ignore_ascii_case(name));
        constants.iter().find(|(constant, _)| is_it(constant)).map(|(_, slot)| *slot as usize)
    }
}
