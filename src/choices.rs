//! Choices that a config names and a kernel implements, each declared once.

use crate::choices;

choices! {
    /// Which dimensions the rotary embedding rotates as a pair.
    pub enum RopePairing {
        /// dimensions 2i and 2i+1 (torchtune, DeepSeek).
        Interleaved = "interleaved",
        /// dimensions i and i + half of the rotated width (Llama, GLM).
        HalfSplit = "half_split",
    }
}

choices! {
    /// Non-linearity of the FFN.
    pub enum Activation {
        /// x * sigmoid(x).
        Silu = "silu",
        /// x * Phi(x), exact, with the error function.
        Gelu = "gelu",
        /// the tanh approximation of GELU, as in GPT-2.
        GeluTanh = "gelu_tanh",
        /// max(x, 0).
        Relu = "relu",
        /// max(x, 0)^2.
        ReluSquared = "relu_squared",
    }
}

choices! {
    /// How scores are computed from logits.
    pub enum RouterScores {
        /// softmax over the experts.
        Softmax = "softmax",
        /// a sigmoid of each logit (DeepSeek-V3, GLM-4.5, sigma-MoE).
        Sigmoid = "sigmoid",
    }
}

choices! {
    /// The logits over which the softmax of the gate weights is taken.
    pub enum SoftmaxOver {
        /// the K selected: gate weights of a token sum to 1.
        Selected = "selected",
        /// all E: gate weights of a token sum to less than 1, and are the router's probabilities.
        All = "all",
    }
}

choices! {
    /// Kind of load-balancing loss.
    pub enum BalanceKind {
        /// E * sum over experts of (share of assignments) * (mean probability); 1 at balance (Switch, Megatron).
        Switch = "switch",
        /// the same within each sequence, then the mean over sequences (DeepSeek-V3).
        Sequence = "sequence",
        /// as switch, with the share of assignments over the update's micro-batches so far (arXiv 2501.11873).
        GlobalBatch = "global_batch",
        /// over the tokens of all layers together, the K choices summed: K at balance (Hugging Face Mixtral).
        HfMixtral = "hf_mixtral",
        /// none.
        Off = "none",
    }
}

choices! {
    /// Scale of Muon's update by the shape of the matrix.
    pub enum MuonScale {
        /// sqrt(max(1, rows / columns)).
        MaxOneRowsOverCols = "max_one_rows_over_cols",
        /// 0.2 sqrt(max(rows, columns)): updates as large as AdamW's, so that both can use the same learning rate (Moonlight).
        MatchRmsAdamW = "match_rms_adamw",
    }
}
