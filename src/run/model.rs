//! A decoder language model as data, along independent axes.
//!
//! Each axis is a separate table; a published system is a TOML file that sets some of them. A new variant is a new choice
//! or a new table here, its parameters in [`parameters`], and a branch where the model is recorded.
//! Defaults are System A, the 8-expert decoder of the exp8 study.
//!
//! Long because it lists every axis with its keys, choices, defaults and ranges.
//!
//! Notation: D width, L layers, H heads, F FFN or expert width, E experts, K experts per token, V vocabulary size.

pub mod cost;
pub mod parameters;
mod recursion;
mod rules;
mod tree;

pub use crate::choices::{Activation, BalanceKind, RopePairing, RouterScores, SoftmaxOver};
use crate::{
    choices,
    config_file::Amount,
    limits::{MAX_EXPERTS, MAX_EXPERTS_PER_TOKEN},
    options,
};
pub use recursion::{Call, Carry, HeadReads, Injection, Networks, Recursion, RecursionGradient, RecursionStart, StateUpdate};

options! {
    /// A decoder language model: embedding, L blocks of attention and FFN with residuals, norm, head.
    pub struct ModelConfig: model {
        /// Vocabulary size V; 0 for that of the tokenizer.
        vocabulary: u32 = 0 => 0..=1_048_576;
        /// Width D of the residual stream.
        width: u32 = 384 => 2..=16_384;
        /// Maximum context length in tokens.
        context: u32 = 512 => 2..=131_072;
        /// Depth: how blocks are stacked.
        depth: Depth;
        /// Token embedding.
        embedding: Embedding;
        /// Norms before attention, before the FFN and before the head.
        norm: Norm;
        /// Positional encoding.
        positions: Positions;
        /// Attention.
        attention: Attention;
        /// Feed-forward network.
        ffn: Ffn;
        /// Router: selects the experts of a token and their weights.
        #[when("model.ffn.kind" = "moe")]
        router: Router;
        /// Auxiliary losses of the router, in training only.
        #[when("model.ffn.kind" = "moe")]
        balance: Balance;
        /// Output projection.
        head: Head;
        /// Dropout probabilities, for training only.
        dropout: Dropout;
        /// Initial weights.
        init: InitOptions;
    }
}

options! {
    /// Depth: how blocks are stacked.
    pub struct Depth: model {
        /// How blocks share parameters.
        kind: DepthKind = DepthKind::Indexed;
        /// Number of blocks that a token passes through, L; with recursion, number of blocks in one call of a network.
        layers: u32 = 6 => 1..=256;
        /// What distinguishes the applications of a shared block.
        #[when("model.depth.kind" = "shared")]
        identity: DepthIdentity = DepthIdentity::Unmarked;
        /// Recursion over two states, a slow one (high) and a fast one (low).
        #[when("model.depth.kind" = "recursive")]
        recursion: Recursion;
    }
}

choices! {
    /// How blocks share parameters.
    pub enum DepthKind {
        /// every block has its own parameters.
        Indexed = "indexed",
        /// one block is applied L times (Universal Transformer).
        Shared = "shared",
        /// a network of L blocks is called repeatedly on two states (HRM, TRM, HrmText).
        Recursive = "recursive",
    }
}

choices! {
    /// What distinguishes the applications of a shared block.
    pub enum DepthIdentity {
        /// nothing.
        Unmarked = "none",
        /// a learned vector for each application, added to its input.
        Embedding = "embedding",
        /// separate norms for each application.
        Norm = "norm",
    }
}

options! {
    /// Token embedding.
    pub struct Embedding: model {
        /// Factor on the embedding.
        scale: EmbeddingScale = EmbeddingScale::SqrtWidth;
    }
}

choices! {
    /// Factor on the embedding.
    pub enum EmbeddingScale {
        /// sqrt(D), so that entries with standard deviation 0.02 are scaled to a size near 1.
        SqrtWidth = "sqrt_width",
        /// 1 / `model.init.std`, so that an initial embedding is scaled to entries of size 1 (HrmText).
        InverseInitStd = "inverse_init_std",
        /// no factor.
        One = "one",
    }
}

options! {
    /// Norms.
    pub struct Norm: model {
        /// Kind of norm.
        kind: NormKind = NormKind::RmsNorm;
        /// Whether there is a learned gain per column.
        #[when("model.norm.kind" = "rms_norm")]
        gain: bool = true;
        /// Added to the mean square or variance under the root. The default is the machine epsilon of f32.
        eps: f64 = 1.192_092_9e-7 => 1e-12..=0.1;
    }
}

choices! {
    /// Kind of norm.
    pub enum NormKind {
        /// divides by the root mean square of the row, then applies a gain per column.
        RmsNorm = "rms_norm",
        /// subtracts the mean, divides by the standard deviation, then applies a gain and a bias per column.
        LayerNorm = "layer_norm",
    }
}

options! {
    /// Positional encoding.
    pub struct Positions: model {
        /// Kind of positional encoding. RoPE rotates pairs of head dimensions by position * base^(-2i / rotated width).
        kind: PositionKind = PositionKind::Rope;
        /// Which dimensions of a head form a pair. Weights trained with one pairing do not work with the other.
        #[when("model.positions.kind" = "rope")]
        pairing: RopePairing = RopePairing::Interleaved;
        /// Leading share of each head that is rotated; the rest carries no position.
        #[when("model.positions.kind" = "rope")]
        fraction: f64 = 1.0 => 0.01..=1.0;
        /// Base of the frequencies.
        #[when("model.positions.kind" = "rope")]
        base: f64 = 10_000.0 => 10.0..=1e9;
    }
}

choices! {
    /// Positional encoding.
    pub enum PositionKind {
        /// queries and keys are rotated by their position.
        Rope = "rope",
        /// a learned vector for each position of the context is added to the embedding.
        Learned = "learned",
        /// none, except for the causal mask.
        Unmarked = "none",
    }
}

options! {
    /// Causal attention.
    pub struct Attention: model {
        /// How queries, keys and values are computed.
        kind: AttentionKind = AttentionKind::Heads;
        /// Query heads, H.
        heads: u32 = 8 => 1..=256;
        /// Key and value heads, each shared by H / kv_heads query heads; 0 for as many as query heads.
        #[when("model.attention.kind" = "heads")]
        kv_heads: u32 = 0 => 0..=256;
        /// Dimensions of a head; 0 for D / H.
        #[when("model.attention.kind" = "heads")]
        head_width: u32 = 0 => 0..=128;
        /// RMS norm of every query and key head, before positions.
        #[when("model.attention.kind" = "heads")]
        qk_norm: bool = false;
        /// Widths of latent attention.
        #[when("model.attention.kind" = "latent")]
        latent: Latent;
        /// Biases on the projections of the stream to queries, keys and values.
        bias: bool = false;
        /// Bias on the output projection.
        output_bias: bool = false;
        /// Multiplies the output of the heads by the sigmoid of a projection of the stream (HrmText).
        gate: bool = false;
    }
}

choices! {
    /// How queries, keys and values are computed.
    pub enum AttentionKind {
        /// by one projection, with as many key and value heads as query heads or fewer.
        Heads = "heads",
        /// keys and values from a compressed latent, with positions on a separate part (MLA, DeepSeek-V2).
        Latent = "latent",
    }
}

options! {
    /// Multi-head latent attention.
    pub struct Latent: model {
        /// Width of the compressed queries; 0 leaves them uncompressed.
        query_rank: u32 = 0 => 0..=16_384;
        /// Width of the compressed keys and values.
        kv_rank: u32 = 128 => 1..=16_384;
        /// Dimensions of a query or key head without position.
        nope_width: u32 = 32 => 0..=126;
        /// Dimensions of a query or key head that RoPE rotates; all heads share this part of the key.
        rope_width: u32 = 32 => 2..=128;
        /// Dimensions of a value head.
        value_width: u32 = 32 => 1..=128;
        /// eps of the norms of the compressed queries, keys and values.
        eps: f64 = 1e-6 => 1e-12..=0.1;
    }
}

options! {
    /// Feed-forward network.
    pub struct Ffn: model {
        /// One network for all tokens, or experts behind a router.
        kind: FfnKind = FfnKind::Moe;
        /// Hidden width F, of each expert where there are experts.
        width: u32 = 1536 => 1..=131_072;
        /// Number of first layers that have a dense FFN instead.
        #[when("model.ffn.kind" = "moe")]
        dense_layers: u32 = 0 => 0..=256;
        /// Hidden width of those layers; 0 for F.
        #[when("model.ffn.kind" = "moe")]
        dense_width: u32 = 0 => 0..=131_072;
        /// Shared experts, which process every token, as one FFN with this multiple of F as its width.
        #[when("model.ffn.kind" = "moe")]
        shared_experts: u32 = 0 => 0..=64;
        /// Non-linearity.
        activation: Activation = Activation::Silu;
        /// Multiplies the hidden layer by a second projection: activation(gate x) * (up x), as in SwiGLU.
        gated: bool = false;
        /// Biases on all projections of the network, or of every expert.
        bias: bool = false;
    }
}

choices! {
    /// One network for all tokens, or experts behind a router.
    pub enum FfnKind {
        /// each token goes to K of E experts.
        Moe = "moe",
        /// one network for all tokens.
        Dense = "dense",
    }
}

options! {
    /// Router: selects the K experts with the largest scores; ties go to the lowest index.
    pub struct Router: model {
        /// Experts per layer, E.
        experts: u32 = 8 => 1..=MAX_EXPERTS;
        /// Experts per token, K.
        top_k: u32 = 2 => 1..=MAX_EXPERTS_PER_TOKEN;
        /// Standard deviation of the normal noise on the logits, in training only.
        #[class(optimisation)]
        noise: f64 = 0.1 => 0.0..=100.0;
        /// How scores are computed from logits.
        scores: RouterScores = RouterScores::Softmax;
        /// The logits over which the softmax of the gate weights is taken.
        #[when("model.router.scores" = "softmax")]
        softmax: SoftmaxOver = SoftmaxOver::Selected;
        /// Divides the gate weights of a token by their sum.
        #[when("model.router.scores" = "sigmoid")]
        normalize: bool = true;
        /// Factor on the gate weights.
        scale: f64 = 1.0 => 1e-6..=1e3;
        /// Ignores the scores in the selection and assigns tokens to experts in turn, for the throughput at perfect balance. Gate weights
        /// are the scores of the assigned experts. The model does not learn to route: its losses are no result.
        force_balance: bool = false;
        /// Number of groups of consecutive experts.
        groups: u32 = 1 => 1..=64;
        /// Number of groups that a token may choose from: those whose two best scores have the largest sum.
        kept_groups: u32 = 1 => 1..=64;
        /// Bias on the logits, trained by gradient.
        bias: bool = false;
        /// Bias on the scores that select experts; it is not part of the gate weights and has no gradient.
        selection_bias: SelectionBias = SelectionBias::Off;
        /// Step of that bias per update, in favour of the experts with fewer tokens than the mean.
        #[when("model.router.selection_bias" = "loss_free")]
        #[class(optimisation)]
        selection_bias_rate: f64 = 0.001 => 0.0..=1.0;
    }
}

choices! {
    /// Bias on the selection of experts.
    pub enum SelectionBias {
        /// none.
        Off = "none",
        /// updated from the load only (loss-free balancing, arXiv 2408.15664).
        LossFree = "loss_free",
    }
}

options! {
    /// Auxiliary losses of the router.
    pub struct Balance: optimisation {
        /// Kind of load-balancing loss.
        kind: BalanceKind = BalanceKind::Switch;
        /// Factor on the load-balancing loss of each layer.
        #[when("model.balance.kind" = "switch" | "sequence" | "global_batch" | "hf_mixtral")]
        coefficient: f64 = 0.01 => 0.0..=100.0;
        /// Schedule of that factor over the run.
        #[when("model.balance.kind" = "switch" | "sequence" | "global_batch" | "hf_mixtral")]
        schedule: BalanceSchedule;
        /// How the losses of the layers are combined.
        #[when("model.balance.kind" = "switch" | "sequence" | "global_batch")]
        reduction: Reduction = Reduction::Sum;
        /// Factor on the z-loss of each layer, mean of logsumexp(logits)^2; 0 disables it.
        z_coefficient: f64 = 0.0 => 0.0..=100.0;
    }
}

options! {
    /// Schedule of the factor on the load-balancing loss, in updates.
    pub struct BalanceSchedule: optimisation {
        /// Shape.
        kind: BalanceScheduleKind = BalanceScheduleKind::Constant;
        /// The final factor.
        #[when("model.balance.schedule.kind" = "hold_then_linear")]
        end: f64 = 0.01 => 0.0..=100.0;
        /// Updates before it changes: a count, or a percentage of the run.
        #[when("model.balance.schedule.kind" = "hold_then_linear")]
        hold: Amount = Amount::Percent(5.0) => 0..=1_000_000_000;
        /// Update at which it reaches the final factor: a count, or a percentage of the run.
        #[when("model.balance.schedule.kind" = "hold_then_linear")]
        decay_end: Amount = Amount::Percent(30.0) => 0..=1_000_000_000;
    }
}

choices! {
    /// Shape of the balance schedule.
    pub enum BalanceScheduleKind {
        /// constant.
        Constant = "constant",
        /// constant, then linear to the final factor.
        HoldThenLinear = "hold_then_linear",
    }
}

choices! {
    /// How the losses of the layers are combined.
    pub enum Reduction {
        /// summed: coefficient * L at balance.
        Sum = "sum",
        /// their mean: coefficient at balance.
        Mean = "mean",
    }
}

options! {
    /// Output projection.
    pub struct Head: model {
        /// Whether it shares the embedding's matrix.
        tied: bool = true;
        /// Whether an untied projection is initialised as a copy of the embedding.
        starts_as_embedding: bool = false;
    }
}

options! {
    /// Dropout probabilities by location.
    pub struct Dropout: optimisation {
        /// On the scaled embedding.
        embedding: f64 = 0.1 => 0.0..=0.95;
        /// On the attention probabilities.
        attention: f64 = 0.1 => 0.0..=0.95;
        /// On the outputs of attention and FFN that are added to the residual stream.
        residual: f64 = 0.1 => 0.0..=0.95;
        /// On the hidden layer of the FFN or expert.
        ffn: f64 = 0.1 => 0.0..=0.95;
        /// On the normed stream before the head.
        head: f64 = 0.1 => 0.0..=0.95;
    }
}

options! {
    /// Initial weights: matrices and embeddings normal, gains 1, biases 0.
    pub struct InitOptions: model {
        /// Standard deviation of every matrix and embedding.
        std: f64 = 0.02 => 0.0..=10.0;
        /// Divides the standard deviation of the projections into the residual stream by sqrt(2 L) (GPT-2).
        residual_scaled: bool = false;
    }
}

impl ModelConfig {
    /// Prefixes of the parameters of its networks.
    pub fn networks(&self) -> &'static [&'static str] {
        match (self.depth.kind, self.depth.recursion.networks) {
            (DepthKind::Recursive, Networks::Separate) => &["low.", "high."],
            (DepthKind::Recursive, Networks::Single) => &[""],
            _ => &[""],
        }
    }

    /// Widths of a key head and of a value head.
    pub fn attention_widths(&self) -> (u32, u32) {
        let Latent { nope_width, rope_width, value_width, .. } = self.attention.latent;
        match self.attention.kind {
            AttentionKind::Heads => (self.head_width(), self.head_width()),
            AttentionKind::Latent => (nope_width + rope_width, value_width),
        }
    }

    /// Dimensions of a head.
    pub fn head_width(&self) -> u32 {
        match self.attention.head_width {
            0 => self.width / self.attention.heads,
            width => width,
        }
    }

    /// Heads of keys, and of values.
    pub fn kv_heads(&self) -> u32 {
        match self.attention.kv_heads {
            0 => self.attention.heads,
            heads => heads,
        }
    }

    /// Leading dimensions of a head that the rotary embedding rotates, rounded to the nearest.
    pub fn rope_width(&self) -> u32 {
        (f64::from(self.head_width()) * self.positions.fraction).round() as u32
    }

    /// Rows of the fused projection: query heads, key heads, value heads.
    pub fn qkv_rows(&self) -> u32 {
        (self.attention.heads + 2 * self.kv_heads()) * self.head_width()
    }

    /// Factor on the embedding.
    pub fn embedding_scale(&self) -> f32 {
        match self.embedding.scale {
            EmbeddingScale::SqrtWidth => (self.width as f32).sqrt(),
            EmbeddingScale::InverseInitStd => (1.0 / self.init.std) as f32,
            EmbeddingScale::One => 1.0,
        }
    }

    /// Whether this layer routes its tokens to experts.
    pub fn is_moe(&self, layer: u32) -> bool {
        self.ffn.kind == FfnKind::Moe && layer >= self.ffn.dense_layers
    }

    /// Router calls in one forward pass.
    pub fn router_calls(&self) -> u32 {
        self.routers_in(|_| true)
    }

    /// Router calls in one forward pass that receive gradients.
    pub fn router_uses(&self) -> u32 {
        self.routers_in(|call| call.has_gradient)
    }

    /// The names of the router calls in one forward pass, in order, without the dense layers: `layer 1`, `depth step 0` of a shared
    /// block, `call 2 (high), layer 0` of a recursive network.
    pub fn router_labels(&self) -> Vec<String> {
        let layers = || (0..self.depth.layers).filter(|layer| self.is_moe(*layer));
        match self.depth.kind {
            DepthKind::Indexed => layers().map(|layer| format!("layer {layer}")).collect(),
            DepthKind::Shared => layers().map(|layer| format!("depth step {layer}")).collect(),
            DepthKind::Recursive => {
                let state = |call: &Call| if call.is_high { "high" } else { "low" };
                let plan = self.depth.recursion.plan();
                let calls = plan.iter().enumerate().map(|(index, call)| format!("call {index} ({})", state(call)));
                calls.flat_map(|call| layers().map(move |layer| format!("{call}, layer {layer}"))).collect()
            }
        }
    }

    fn routers_in(&self, counts: impl Fn(&Call) -> bool) -> u32 {
        let routers = (0..self.depth.layers).filter(|layer| self.is_moe(*layer)).count() as u32;
        match self.depth.kind {
            DepthKind::Indexed | DepthKind::Shared => routers,
            DepthKind::Recursive => routers * self.depth.recursion.plan().iter().filter(|call| counts(call)).count() as u32,
        }
    }

    /// Weight of the balance loss of one router in that of the model.
    pub fn balance_share(&self) -> f64 {
        match self.balance.reduction {
            Reduction::Sum => 1.0,
            Reduction::Mean => 1.0 / f64::from(self.router_uses().max(1)),
        }
    }

    /// Hidden width of a dense FFN.
    pub fn dense_width(&self) -> u32 {
        match (self.ffn.kind, self.ffn.dense_width) {
            (FfnKind::Dense, _) | (FfnKind::Moe, 0) => self.ffn.width,
            (FfnKind::Moe, width) => width,
        }
    }

    /// Experts per layer and experts per token; a dense FFN counts as one of one.
    pub fn experts(&self) -> (u32, u32) {
        match self.ffn.kind {
            FfnKind::Moe => (self.router.experts, self.router.top_k),
            FfnKind::Dense => (1, 1),
        }
    }
}
