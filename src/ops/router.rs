//! Router of a mixture of experts (Shazeer et al., arXiv 1701.06538): scores every token against every expert and
//! selects K of them.
//!
//! Guarantees: ties go to the lowest index, so the selection is deterministic; each token gets K different
//! experts, for any logits, all of them in its kept groups. The noisy logits are saved, so the noise is generated once.
//! Without a selection bias and with one group the K largest logits are selected, which is the same as the K largest
//! scores except for scores that round to equal numbers.
//!
//! With [`RouterOptions::force_balance`] tokens are assigned to experts in turn instead, whatever their scores, as torchtitan's
//! `_debug_force_load_balance` and OLMo-core's `uniform_expert_assignment` do: assignment a = n K + k goes to expert a mod E. Loads
//! then differ by at most one assignment. The gate weights are the scores of these experts.
//!
//! Experts outside of the kept groups cannot be selected: their selection score is -inf, as in DeepSeek's code and in Hugging
//! Face transformers 5. Older versions of the latter used 0 instead, which is the same if K selection scores of the kept groups
//! are positive.

use super::{
    Graph,
    kernels::router::{
        self, AddNoise, Backward, BackwardBias, BackwardLogits, BackwardWeight, BackwardWeightParts, Forward, Params, STRIDE,
        TOKENS_OF_PART, TopK,
    },
};
use crate::{
    choices::{RouterScores, SoftmaxOver},
    gpu::Tensor,
    limits::{MAX_EXPERTS, MAX_EXPERTS_PER_TOKEN},
};

// The limits for configs are those of the kernels.
const _: () = assert!(MAX_EXPERTS == router::MAX_EXPERTS && MAX_EXPERTS_PER_TOKEN == router::MAX_EXPERTS_PER_TOKEN);

/// How scores are computed from logits, and gate weights from the scores of the selected experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scores {
    /// Softmax over the experts, or a sigmoid of each logit (DeepSeek-V3, arXiv 2412.19437; without `normalize` sigma-MoE,
    /// arXiv 2310.10837).
    pub kind: RouterScores,
    /// With softmax: the logits over which the gate weights are a softmax. A softmax over all experts, renormalised to sum to 1 over
    /// the selected ones, is the same as `Selected`.
    pub softmax: SoftmaxOver,
    /// With sigmoid: divides the gate weights of a token by their sum + 1e-20.
    pub normalize: bool,
}

impl Scores {
    /// A softmax over these logits.
    pub const fn softmax(over: SoftmaxOver) -> Scores {
        Scores { kind: RouterScores::Softmax, softmax: over, normalize: false }
    }

    /// A sigmoid of each logit.
    pub const fn sigmoid(normalize: bool) -> Scores {
        Scores { kind: RouterScores::Sigmoid, softmax: SoftmaxOver::All, normalize }
    }

    /// Whether the gate weights of a token are divided by their sum.
    fn renormalizes(self) -> bool {
        match self.kind {
            RouterScores::Softmax => self.softmax == SoftmaxOver::Selected,
            RouterScores::Sigmoid => self.normalize,
        }
    }
}

/// How a router selects experts.
#[derive(Clone, Copy, Debug)]
pub struct RouterOptions {
    /// K.
    pub experts_per_token: u32,
    /// Standard deviation of the Gaussian noise on the logits; 0 = none.
    pub noise_std: f32,
    /// How experts are selected and weighted.
    pub scores: Scores,
    /// Factor on the gate weights, above 0.
    pub scale: f32,
    /// Assigns tokens to experts in turn instead of by score.
    pub force_balance: bool,
    /// Number of groups, of E / groups consecutive experts each.
    pub groups: u32,
    /// Number of groups that a token may choose from: those whose two best selection scores have the largest sum.
    pub kept_groups: u32,
}

impl RouterOptions {
    /// Softmax over the selected experts, without noise and groups.
    pub fn new(experts_per_token: u32) -> RouterOptions {
        let scores = Scores::softmax(SoftmaxOver::Selected);
        RouterOptions { experts_per_token, noise_std: 0.0, scores, scale: 1.0, force_balance: false, groups: 1, kept_groups: 1 }
    }
}

/// Biases on logits and scores, if any.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouterBiases {
    /// Bias on the logits, a parameter `[E]`.
    pub logits: Option<Tensor>,
    /// Bias on the scores for the selection of experts, not part of the gate weights `[E]`; it has no gradient (see
    /// [`Graph::selection_bias_update`]).
    pub selection: Option<Tensor>,
}

/// A router's output for N tokens.
#[derive(Clone, Copy, Debug)]
pub struct Routing {
    /// Selected experts, largest selection score first [N, K], u32.
    pub expert: Tensor,
    /// Their gate weights [N, K].
    pub gate: Tensor,
    /// Scores divided by their sum, which is 1 for softmax [N, E].
    pub probabilities: Tensor,
    /// Logits with their noise [N, E].
    pub logits: Tensor,
    /// log sum exp of a token's logits `[N]`.
    pub logsumexp: Tensor,
    /// Entropy of a token's probabilities, in nats `[N]`; a metric without gradient.
    pub entropy: Tensor,
}

impl Routing {
    /// [N, E, K].
    pub fn dims(&self) -> [u32; 3] {
        let [tokens, experts] = self.probabilities.shape.dims("routing probabilities");
        [tokens, experts, self.expert.shape.last()]
    }
}

impl Graph {
    /// Routes `x` [.., D] to K of the E experts whose router weights are `w` [E, D].
    ///
    /// # Panics
    /// If shapes, groups or K do not match.
    pub fn router(&mut self, x: Tensor, w: Tensor, biases: RouterBiases, options: RouterOptions) -> Routing {
        let [tokens, width] = x.shape.matrix("router x"); // N, D
        let [experts, w_width] = w.shape.dims("router w");
        assert_eq!(width, w_width, "router: w {:?} against x {:?}", w.shape, x.shape);
        for bias in [biases.logits, biases.selection].into_iter().flatten() {
            assert_eq!(bias.shape.len(), experts, "router: bias {:?} for {experts} experts", bias.shape);
        }
        let sizes = Params { tokens, width, experts, ..Default::default() };
        let stream = if options.noise_std > 0.0 { self.next_stream() } else { 0 };
        let params = Params { stream, ..router_params(sizes, biases, options) };
        let logits = self.router_logits(params, x, w, biases.logits); // [N, E]
        let routing = Routing {
            logits,
            expert: self.tensor_u32("router.expert", [tokens, options.experts_per_token]),
            gate: self.tensor("router.gate", [tokens, options.experts_per_token]),
            probabilities: self.tensor("router.probabilities", [tokens, experts]),
            logsumexp: self.tensor("router.logsumexp", [tokens]),
            entropy: self.tensor("router.entropy", [tokens]),
        };
        let Routing { expert, gate, probabilities, logsumexp, entropy, .. } = routing;
        let selection_bias = biases.selection.unwrap_or(logits); // An absent bias is not read.
        let saved_logits = logits;
        let call = TopK { params, saved_logits, selection_bias, expert, gate, probabilities, logsumexp, entropy };
        self.dispatch(call);
        self.on_backward_many(&[gate, probabilities, logsumexp], move |g, d| {
            let d_logits = g.router_d_logits(params, routing, [d[0], d[1], d[2]]);
            g.router_backward(params, x, w, d_logits);
            if let Some(bias) = biases.logits.filter(|bias| g.wants_grad(*bias)) {
                let d_bias = g.param_grad(bias); // [E]
                g.dispatch(BackwardBias { params, saved_d_logits: d_logits, d_bias });
            }
        });
        routing
    }

    /// x w^T with its bias and noise [N, E].
    fn router_logits(&mut self, params: Params, x: Tensor, w: Tensor, bias: Option<Tensor>) -> Tensor {
        let Params { tokens, experts, noise_std, .. } = params;
        let bias = bias.unwrap_or(w); // An absent bias is not read.
        let logits = self.tensor("router.logits", [tokens, experts]); // [N, E]
        // The kernel for CPU rasterisers adds none: there a launch costs less than random numbers in its loops do.
        let adds_noise = noise_std > 0.0 && !self.capabilities.images;
        self.dispatch(Forward { params: Params { adds_noise: adds_noise.into(), ..params }, x, w, bias, logits });
        if noise_std == 0.0 || adds_noise {
            return logits;
        }
        let noisy = self.like("router.noisy_logits", logits); // [N, E]
        self.dispatch(AddNoise { params, saved_logits: logits, logits: noisy });
        noisy
    }

    /// The gradient of the logits [N, E] from those of the gate weights, the probabilities and the logsumexp.
    fn router_d_logits(&mut self, params: Params, routing: Routing, d: [Option<Tensor>; 3]) -> Tensor {
        let params = Params {
            has_d_gate: d[0].is_some().into(),
            has_d_probabilities: d[1].is_some().into(),
            has_d_logsumexp: d[2].is_some().into(),
            ..params
        };
        let Routing { expert, gate, probabilities, logits, logsumexp, .. } = routing;
        let d_logits = self.tensor("d_router.logits", [params.tokens, STRIDE]); // [N, E]
        let call = BackwardLogits {
            params,
            // Softmax only needs the probabilities: this binding is not read, and the logits' storage is free.
            saved_logits: if params.is_sigmoid == 0 { probabilities } else { logits },
            saved_expert: expert,
            saved_gate: gate,
            saved_probabilities: probabilities,
            d_gate: d[0].unwrap_or(gate), // An absent gradient is not read.
            d_probabilities: d[1].unwrap_or(probabilities),
            d_logsumexp: d[2].unwrap_or(logsumexp),
            d_logits,
        };
        self.dispatch(call);
        d_logits
    }

    /// Adds the gradients of `x` and `w`.
    fn router_backward(&mut self, params: Params, x: Tensor, w: Tensor, d_logits: Tensor) {
        let d_residual = self.take_grad(x); // [N, D]
        let params = Params { has_d_residual: d_residual.is_some().into(), ..params };
        let d_residual = d_residual.unwrap_or(w); // An absent gradient is not read.
        let d_x = self.like("d_router.x", x); // [N, D]
        self.dispatch(Backward { params, w, saved_d_logits: d_logits, d_residual, d_x });
        self.add_grad(x, d_x);
        if !self.wants_grad(w) {
            return;
        }
        let d_w = self.param_grad(w); // [E, D]
        let x = self.saved(x); // [N, D]
        let parts = params.tokens.div_ceil(TOKENS_OF_PART);
        if parts == 1 || self.capabilities.workgroups == 1 {
            self.dispatch(BackwardWeight { params, x, saved_d_logits: d_logits, d_w });
            return;
        }
        let parts = self.tensor("router.d_w_parts", [parts, params.experts, params.width]);
        self.dispatch(BackwardWeightParts { params, x, saved_d_logits: d_logits, parts });
        self.accumulate_parts(parts, d_w);
    }
}

/// The checked options for `sizes` (tokens, width, experts).
fn router_params(sizes: Params, biases: RouterBiases, options: RouterOptions) -> Params {
    let experts = sizes.experts;
    let RouterOptions { experts_per_token, noise_std, scores, scale, force_balance, groups, kept_groups } = options;
    assert!(experts <= MAX_EXPERTS, "router: {experts} experts, at most {MAX_EXPERTS}");
    assert!(
        groups > 0 && experts.is_multiple_of(groups) && (1..=groups).contains(&kept_groups),
        "router: {kept_groups} of {groups} groups of {experts} experts"
    );
    let choice = experts / groups * kept_groups;
    assert!(
        (1..=choice.min(MAX_EXPERTS_PER_TOKEN)).contains(&experts_per_token),
        "router: {experts_per_token} of {choice} experts per token, at most {MAX_EXPERTS_PER_TOKEN}"
    );
    assert!(scale > 0.0, "router: gate weights times {scale}");
    Params {
        experts_per_token,
        is_sigmoid: (scores.kind == RouterScores::Sigmoid).into(),
        renormalizes: scores.renormalizes().into(),
        scale,
        forces_balance: force_balance.into(),
        groups,
        kept_groups,
        chooses_by_logit: (groups == 1 && biases.selection.is_none()).into(),
        has_selection_bias: biases.selection.is_some().into(),
        has_bias: biases.logits.is_some().into(),
        noise_std,
        ..sizes
    }
}
