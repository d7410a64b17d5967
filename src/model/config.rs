//! A decoder language model as data, along independent axes.
//!
//! Each axis is a table of its own; a published system is a TOML file that sets some of them. A new variant is a new choice
//! or a new table here, its parameters in [`params`](super::params), and its branch where the model is recorded.
//! Defaults are System A, the 8-expert decoder of the exp8 study.
//!
//! Letters: D width, L layers, H heads, F FFN or expert width, E experts, K experts a token, V vocabulary.

use crate::{choices, options};

options! {
    /// A decoder language model: embedding, L blocks of attention and FFN with residuals, norm, head.
    pub struct ModelConfig {
        /// Vocabulary V; 0 takes the size of the tokenizer.
        vocabulary: u32 = 0 => 0..=1_048_576;
        /// Width D of the residual stream.
        width: u32 = 384 => 2..=16_384;
        /// Most tokens that the model may see at once.
        context: u32 = 512 => 2..=131_072;
        /// Blocks.
        depth: Depth;
        /// Token embedding.
        embedding: Embedding;
        /// Norms before attention, before the FFN and before the head.
        norm: Norm;
        /// How attention knows positions.
        positions: Positions;
        /// Attention.
        attention: Attention;
        /// Feed-forward network.
        ffn: Ffn;
        /// Router: which experts a token visits, and with what weight.
        #[when("model.ffn.kind" = "moe")]
        router: Router;
        /// Losses that keep the router healthy, in training only.
        #[when("model.ffn.kind" = "moe")]
        balance: Balance;
        /// Output projection.
        head: Head;
        /// Dropout probabilities, in training only.
        dropout: Dropout;
        /// Initial weights.
        init: InitOptions;
    }
}

options! {
    /// Blocks.
    pub struct Depth {
        /// How blocks share parameters.
        kind: DepthKind = DepthKind::Indexed;
        /// Blocks a token passes through, L.
        layers: u32 = 6 => 1..=256;
    }
}

choices! {
    /// How blocks share parameters.
    pub enum DepthKind {
        /// every block has parameters of its own.
        Indexed = "indexed",
    }
}

options! {
    /// Token embedding.
    pub struct Embedding {
        /// Factor on the embedding.
        scale: EmbeddingScale = EmbeddingScale::SqrtWidth;
    }
}

choices! {
    /// Factor on the embedding.
    pub enum EmbeddingScale {
        /// sqrt(D), so that entries of standard deviation 0.02 enter the stream with a size near 1.
        SqrtWidth = "sqrt_width",
        /// no factor.
        One = "one",
    }
}

options! {
    /// Norms.
    pub struct Norm {
        /// Which norm.
        kind: NormKind = NormKind::RmsNorm;
        /// Added to the mean square under the root. The default is the machine epsilon of f32.
        eps: f64 = 1.192_092_9e-7 => 1e-12..=0.1;
    }
}

choices! {
    /// Which norm.
    pub enum NormKind {
        /// divides by the root mean square of the row, then a gain for each column.
        RmsNorm = "rms_norm",
    }
}

options! {
    /// Rotary positions (RoPE): pairs of head dimensions are turned by position * base^(-2i / rotated width).
    pub struct Positions {
        /// Which dimensions of a head make a pair. Weights do not carry over from one to the other.
        pairing: RopePairing = RopePairing::Interleaved;
        /// Leading share of each head that is turned; the rest carries no position.
        fraction: f64 = 1.0 => 0.01..=1.0;
        /// Base of the frequencies.
        base: f64 = 10_000.0 => 10.0..=1e9;
    }
}

choices! {
    /// Pairs of the rotary embedding.
    pub enum RopePairing {
        /// dimensions 2i and 2i+1 (torchtune, DeepSeek).
        Interleaved = "interleaved",
        /// dimensions i and i + half of the turned width (Llama, GLM).
        HalfSplit = "half_split",
    }
}

options! {
    /// Causal attention with a fused projection of queries, keys and values.
    pub struct Attention {
        /// Query heads, H.
        heads: u32 = 8 => 1..=256;
        /// Heads of keys and values, each shared by H / kv_heads query heads; 0 for as many as queries.
        kv_heads: u32 = 0 => 0..=256;
        /// Dimensions of a head; 0 for D / H.
        head_width: u32 = 0 => 0..=128;
    }
}

options! {
    /// Feed-forward network.
    pub struct Ffn {
        /// One network for all tokens, or experts behind a router.
        kind: FfnKind = FfnKind::Moe;
        /// Hidden width F, of each expert where there are experts.
        width: u32 = 1536 => 1..=131_072;
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

choices! {
    /// Non-linearity of the FFN.
    pub enum Activation {
        /// x * sigmoid(x).
        Silu = "silu",
        /// x * Phi(x), exact, by the error function.
        Gelu = "gelu",
        /// the tanh approximation of GELU, as in GPT-2.
        GeluTanh = "gelu_tanh",
        /// max(x, 0).
        Relu = "relu",
        /// max(x, 0)^2.
        ReluSquared = "relu_squared",
    }
}

options! {
    /// Router: the K largest of E logits, ties to the lowest index.
    pub struct Router {
        /// Experts in a layer, E.
        experts: u32 = 8 => 1..=1024;
        /// Experts that a token visits, K.
        top_k: u32 = 2 => 1..=64;
        /// Standard deviation of the normal noise on the logits, in training only.
        noise: f64 = 0.1 => 0.0..=100.0;
        /// Over which logits the gate weights are a softmax.
        softmax: SoftmaxOver = SoftmaxOver::Selected;
    }
}

choices! {
    /// Over which logits the gate weights are a softmax.
    pub enum SoftmaxOver {
        /// the K selected: gate weights of a token sum to 1.
        Selected = "selected",
        /// all E: gate weights of a token sum to less than 1, and stay a probability.
        All = "all",
    }
}

options! {
    /// Losses that keep the router healthy.
    pub struct Balance {
        /// Which load-balancing loss.
        kind: BalanceKind = BalanceKind::Switch;
        /// Factor on the load-balancing loss of each layer.
        #[when("model.balance.kind" = "switch")]
        coefficient: f64 = 0.01 => 0.0..=100.0;
        /// How the layers' losses make one.
        #[when("model.balance.kind" = "switch")]
        reduction: Reduction = Reduction::Sum;
        /// Factor on the z-loss of each layer, mean of logsumexp(logits)^2; 0 switches it off.
        z_coefficient: f64 = 0.0 => 0.0..=100.0;
    }
}

choices! {
    /// Which load-balancing loss.
    pub enum BalanceKind {
        /// E * sum over experts of (share of assignments) * (mean probability); 1 at balance (Switch, Megatron).
        Switch = "switch",
        /// none.
        Off = "none",
    }
}

choices! {
    /// How the losses of the layers make one.
    pub enum Reduction {
        /// summed: coefficient * L at balance.
        Sum = "sum",
    }
}

options! {
    /// Output projection.
    pub struct Head {
        /// Uses the embedding's matrix.
        tied: bool = true;
    }
}

options! {
    /// Dropout probabilities, one for each place.
    pub struct Dropout {
        /// On the scaled embedding.
        embedding: f64 = 0.1 => 0.0..=0.95;
        /// On the attention probabilities.
        attention: f64 = 0.1 => 0.0..=0.95;
        /// On what attention and FFN add to the residual stream.
        residual: f64 = 0.1 => 0.0..=0.95;
        /// On the hidden layer of the FFN or expert.
        ffn: f64 = 0.1 => 0.0..=0.95;
        /// On the normed stream before the head.
        head: f64 = 0.1 => 0.0..=0.95;
    }
}

options! {
    /// Initial weights: matrices and embeddings normal, gains 1, biases 0.
    pub struct InitOptions {
        /// Standard deviation of every matrix and embedding.
        std: f64 = 0.02 => 0.0..=10.0;
    }
}

impl ModelConfig {
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

    /// Leading dimensions of a head that the rotary embedding turns, rounded to the nearest.
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
            EmbeddingScale::One => 1.0,
        }
    }

    /// Experts in a layer and experts a token visits; a dense FFN counts as one of one.
    pub fn experts(&self) -> (u32, u32) {
        match self.ffn.kind {
            FfnKind::Moe => (self.router.experts, self.router.top_k),
            FfnKind::Dense => (1, 1),
        }
    }
}
