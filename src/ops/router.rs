//! Router of a mixture of experts (Shazeer et al., arXiv 1701.06538): scores every token against every expert and
//! selects K of them.
//!
//! Guaranteed: ties go to the lowest index, so the choice is the same on every run; each token gets K different
//! experts, whatever its logits. The noisy logits are kept, so the noise is drawn once.

use super::{
    Graph,
    kernels::{router, router_cpu},
};
use crate::gpu::Tensor;

/// Most experts of a layer: the kernels keep a token's choice in 64 bits, and one workgroup scans the experts.
pub const MAX_EXPERTS: u32 = 64;
/// Most experts of a token: the kernels keep their gates in registers.
pub const MAX_EXPERTS_PER_TOKEN: u32 = 8;

/// Which logits the gate weights are a softmax over.
///
/// A softmax over all experts, renormalised to sum to 1 over the selected ones, is the same as `Selected`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SoftmaxOver {
    /// The selected experts: gate weights of a token sum to 1.
    #[default]
    Selected,
    /// All experts: gate weights are the probabilities of the selected ones.
    All,
}

/// How a router chooses.
#[derive(Clone, Copy, Debug)]
pub struct RouterOptions {
    /// K.
    pub experts_per_token: u32,
    /// Standard deviation of the Gaussian noise on the logits; 0 = none.
    pub noise_std: f32,
    /// What the gate weights are normalised over.
    pub softmax_over: SoftmaxOver,
}

/// A router's output for N tokens.
#[derive(Clone, Copy, Debug)]
pub struct Routing {
    /// Selected experts, largest logit first [N, K], u32.
    pub expert: Tensor,
    /// Their gate weights [N, K].
    pub gate: Tensor,
    /// Softmax of the logits over all experts [N, E].
    pub probabilities: Tensor,
    /// Logits with their noise [N, E].
    pub logits: Tensor,
    /// log sum exp of a token's logits [N].
    pub logsumexp: Tensor,
    /// Entropy of a token's probabilities, in nats [N]; a metric without gradient.
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
    pub fn router(&mut self, x: Tensor, w: Tensor, options: RouterOptions) -> Routing {
        let [tokens, width] = x.shape.matrix("router x"); // N, D
        let [experts, w_width] = w.shape.dims("router w");
        let RouterOptions { experts_per_token, noise_std, softmax_over } = options;
        assert_eq!(width, w_width, "router: w {:?} against x {:?}", w.shape, x.shape);
        assert!(experts <= MAX_EXPERTS, "router: {experts} experts, at most {MAX_EXPERTS}");
        assert!(
            (1..=experts.min(MAX_EXPERTS_PER_TOKEN)).contains(&experts_per_token),
            "router: {experts_per_token} of {experts} experts a token, at most {MAX_EXPERTS_PER_TOKEN}"
        );
        let stream = if noise_std > 0.0 { self.next_stream() } else { 0 };
        let gate_over_all = u32::from(softmax_over == SoftmaxOver::All);
        let sizes = router::Params { tokens, width, experts, experts_per_token, ..Default::default() };
        // On images, rows of d_logits are 64 long, so that it can have one.
        let stride = if self.tier.reads_images(&[x, w]) { MAX_EXPERTS } else { experts };
        let params = router::Params { gate_over_all, noise_std, stream, stride, ..sizes };
        let routing = Routing {
            logits: self.router_logits(params, x, w), // [N, E]
            expert: self.tensor_u32("router.expert", [tokens, experts_per_token]),
            gate: self.tensor("router.gate", [tokens, experts_per_token]),
            probabilities: self.tensor("router.probabilities", [tokens, experts]),
            logsumexp: self.tensor("router.logsumexp", [tokens]),
            entropy: self.tensor("router.entropy", [tokens]),
        };
        let Routing { expert, gate, probabilities, logits, logsumexp, entropy } = routing;
        let call = router::TopK { params, saved_logits: logits, expert, gate, probabilities, logsumexp, entropy };
        self.dispatch(call, [tokens.div_ceil(router::TopK::WORKGROUP), 1, 1]);
        self.on_backward_many(&[gate, probabilities, logsumexp], move |g, d| {
            let d_logits = g.router_d_logits(params, routing, [d[0], d[1], d[2]]);
            g.router_backward(params, x, w, d_logits);
        });
        routing
    }

    /// x w^T with its noise [N, E].
    fn router_logits(&mut self, params: router::Params, x: Tensor, w: Tensor) -> Tensor {
        let router::Params { tokens, experts, noise_std, .. } = params;
        let logits = self.tensor("router.logits", [tokens, experts]); // [N, E]
        let per_logit = [(tokens * experts).div_ceil(router::Forward::WORKGROUP), 1, 1];
        if self.tier.reads_images(&[x, w]) {
            let grid = [tokens.div_ceil(4 * router_cpu::Forward::WORKGROUP), experts.div_ceil(4), 1];
            self.dispatch(router_cpu::Forward { params: cpu_params(params), x, w, logits }, grid);
        } else {
            self.dispatch(router::Forward { params, x, w, logits }, per_logit);
        }
        if noise_std == 0.0 {
            return logits;
        }
        let noisy = self.like("router.noisy_logits", logits); // [N, E]
        self.dispatch(router::AddNoise { params, saved_logits: logits, logits: noisy }, per_logit);
        noisy
    }

    /// The gradient of the logits [N, E] from those of the gate weights, the probabilities and the logsumexp.
    fn router_d_logits(&mut self, params: router::Params, routing: Routing, d: [Option<Tensor>; 3]) -> Tensor {
        let params = router::Params {
            has_d_gate: d[0].is_some().into(),
            has_d_probabilities: d[1].is_some().into(),
            has_d_logsumexp: d[2].is_some().into(),
            ..params
        };
        let Routing { expert, gate, probabilities, logsumexp, .. } = routing;
        let d_logits = self.tensor("d_router.logits", [params.tokens, params.stride]); // [N, E]
        let call = router::BackwardLogits {
            params,
            saved_expert: expert,
            saved_gate: gate,
            saved_probabilities: probabilities,
            d_gate: d[0].unwrap_or(gate), // An absent gradient is not read.
            d_probabilities: d[1].unwrap_or(probabilities),
            d_logsumexp: d[2].unwrap_or(logsumexp),
            d_logits,
        };
        self.dispatch(call, [params.tokens.div_ceil(router::BackwardLogits::WORKGROUP), 1, 1]);
        d_logits
    }

    fn router_backward(&mut self, params: router::Params, x: Tensor, w: Tensor, d_logits: Tensor) {
        let router::Params { tokens, width, experts, .. } = params;
        let d_residual = self.take_grad(x); // [N, D]
        let params = router::Params { has_d_residual: d_residual.is_some().into(), ..params };
        let d_residual = d_residual.unwrap_or(w); // An absent gradient is not read.
        let d_x = self.like("d_router.x", x); // [N, D]
        let images = self.tier.reads_images(&[x, w, d_logits]);
        if images {
            use router_cpu::Backward;
            let grid = [width.div_ceil(16 * Backward::WORKGROUP), tokens.div_ceil(4), 1];
            self.dispatch(Backward { params: cpu_params(params), w, saved_d_logits: d_logits, d_residual, d_x }, grid);
        } else {
            let grid = [(tokens * width).div_ceil(router::Backward::WORKGROUP), 1, 1];
            self.dispatch(router::Backward { params, w, saved_d_logits: d_logits, d_residual, d_x }, grid);
        }
        self.add_grad(x, d_x);
        if !self.wants_grad(w) {
            return;
        }
        let d_w = self.param_grad(w); // [E, D]
        if images {
            use router_cpu::BackwardWeight;
            let grid = [width.div_ceil(4 * BackwardWeight::WORKGROUP), experts.div_ceil(4), 1];
            self.dispatch(BackwardWeight { params: cpu_params(params), x, saved_d_logits: d_logits, d_w }, grid);
        } else {
            const COLUMNS: u32 = 16; // Of d_w, a workgroup.
            let grid = [width.div_ceil(COLUMNS), experts, 1];
            self.dispatch(router::BackwardWeight { params, x, saved_d_logits: d_logits, d_w }, grid);
        }
    }
}

fn cpu_params(p: router::Params) -> router_cpu::Params {
    router_cpu::Params { tokens: p.tokens, texels: p.width / 4, experts: p.experts, has_d_residual: p.has_d_residual }
}
