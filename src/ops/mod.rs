//! Floor 2: the graph, and one file an op. Each file holds an op's forward, what it saves, and its backward.

mod activation;
mod adamw;
mod add_bias;
mod attention;
mod balance;
mod broadcast_rows;
mod combine;
mod dropout;
mod elementwise;
mod embedding;
mod expert_ffn;
mod gather_rows;
mod grad_norm;
mod graph;
mod grouped_matmul;
mod head_norm;
mod latent_heads;
mod layer_norm;
mod loss_head;
mod matmul;
mod mix_rows;
mod muon;
mod permute;
mod rms_norm;
mod rope;
mod router;
mod selection_bias;
mod split_columns;
mod take_heads;

pub use activation::Activation;
pub use adamw::{AdamW, Trained, state_range};
pub use attention::Heads;
pub use balance::{BalanceKind, BalanceLoss, BalanceOptions};
pub use expert_ffn::{ExpertBiases, FfnWeights};
pub use graph::Graph;
pub use grouped_matmul::GroupedForm;
pub use latent_heads::LatentHeads;
pub use loss_head::{LossHead, rows_per_chunk};
pub use matmul::{Addend, Form};
pub use muon::{Muon, MuonScale};
pub use permute::Permutation;
pub use rope::{Pairs, Rotation};
pub use router::{MAX_EXPERTS, MAX_EXPERTS_PER_TOKEN, RouterBiases, RouterOptions, Routing, Scores, SoftmaxOver};

/// Generated from `shaders/` by the build script: `Params` and one call struct per entry point.
pub mod kernels {
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}
