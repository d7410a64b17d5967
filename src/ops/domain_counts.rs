//! A router's assignments by the domains of their tokens, for the agreement of experts and domains.

use super::{
    Graph,
    kernels::domain_counts::{Count, Params},
    router::Routing,
};
use crate::gpu::Tensor;

impl Graph {
    /// The number of assignments of tokens of each of C `domains` to each expert [C, E], as f32, exact below 2^24. `domain` is u32 `[N]`;
    /// tokens of another domain, and tokens that pad the micro-batch, are not counted. No gradient is involved.
    ///
    /// # Panics
    /// If shapes do not match, or C is 0.
    pub fn domain_counts(&mut self, routing: &Routing, domain: Tensor, domains: u32) -> Tensor {
        let [tokens, experts, experts_per_token] = routing.dims();
        assert_eq!(domain.shape.len(), tokens, "domain_counts: domain {:?} of {tokens} tokens", domain.shape);
        assert!(domains > 0, "domain_counts: no domains");
        let counts = self.tensor("domain_counts", [domains, experts]); // [C, E]
        let params = Params { tokens, experts_per_token, experts, domains };
        self.dispatch(Count { params, expert: routing.expert, domain, counts });
        counts
    }
}
