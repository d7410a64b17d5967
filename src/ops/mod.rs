//! Floor 2: the graph, and one file an op. Each file holds an op's forward, what it saves, and its backward.

mod activation;
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
mod graph;
mod head_norm;
mod layer_norm;
mod latent_heads;
mod mix_rows;
mod permute;
mod loss_head;
mod matmul;
mod adamw;
mod grad_norm;
mod grouped_matmul;
mod muon;
mod rms_norm;
mod rope;
mod router;
mod split_columns;
mod take_heads;
mod selection_bias;

pub use activation::Activation;
pub use attention::Heads;
pub use balance::{BalanceKind, BalanceLoss, BalanceOptions};
pub use expert_ffn::{ExpertBiases, FfnWeights};
pub use graph::Graph;
pub use latent_heads::LatentHeads;
pub use permute::Permutation;
pub use rope::{Pairs, Rotation};
pub use router::{MAX_EXPERTS, MAX_EXPERTS_PER_TOKEN, RouterBiases, RouterOptions, Routing, Scores, SoftmaxOver};
pub use loss_head::LossHead;
pub use adamw::{AdamW, Trained};
pub use grouped_matmul::GroupedForm;
pub use matmul::{Addend, Form};
pub use muon::{Muon, MuonScale};

/// Generated from `shaders/` by the build script: `Params` and one call struct per entry point.
pub mod kernels {
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}
