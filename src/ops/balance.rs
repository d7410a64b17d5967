//! Auxiliary losses of a router: load balance (Fedus et al., arXiv 2101.03961) and z-loss (Zoph et al., arXiv
//! 2202.08906), with the numbers that a run logs about its routing.
//!
//! The coefficients are the step's, so a schedule may move them. The load is a count: gradient reaches the router through
//! the probabilities and the logsumexp only. The choice is [`Routing`]'s, noise included.

use super::{
    Graph,
    kernels::balance::{Backward, BlockSums, Forward, Params},
    permute::Permutation,
    router::Routing,
};
use crate::gpu::Tensor;

/// The auxiliary loss of one layer.
#[derive(Clone, Copy, Debug)]
pub struct BalanceLoss {
    /// balance_coefficient * aux + z_coefficient * z, a scalar [1].
    pub loss: Tensor,
    /// [aux, z, mean entropy in nats, load of expert 0 .. E-1] [3 + E]. aux is 1 at balance, the load sums to 1; no
    /// coefficient is applied.
    pub metrics: Tensor,
}

impl Graph {
    /// The auxiliary loss of one layer's routing.
    pub fn balance_loss(&mut self, routing: &Routing, permutation: &Permutation) -> BalanceLoss {
        const MOST_BLOCKS: u32 = 256;
        let [tokens, experts, experts_per_token] = routing.dims();
        let Routing { probabilities, logsumexp, entropy, .. } = *routing;
        let offsets = permutation.offsets;
        let block = tokens.div_ceil(MOST_BLOCKS).max(32);
        let blocks = tokens.div_ceil(block);
        let params = Params { tokens, experts, experts_per_token, block, blocks };
        let columns = experts + 2;
        let sums = self.tensor("balance.sums", [blocks, columns]);
        let grid = [(blocks * columns).div_ceil(BlockSums::WORKGROUP), 1, 1];
        self.dispatch(BlockSums { params, probabilities, logsumexp, entropy, sums }, grid);
        let loss = self.tensor("balance.loss", [1]);
        let metrics = self.tensor("balance.metrics", [3 + experts]);
        self.dispatch(Forward { params, saved_sums: sums, offsets, loss, metrics }, [1, 1, 1]);
        self.on_backward(loss, move |g, d_loss| {
            let d_probabilities = g.like("d_router.probabilities", probabilities); // [N, E]
            let d_logsumexp = g.like("d_router.logsumexp", logsumexp); // [N]
            let grid = [(tokens * experts).div_ceil(Backward::WORKGROUP), 1, 1];
            g.dispatch(Backward { params, logsumexp, offsets, d_loss, d_probabilities, d_logsumexp }, grid);
            g.add_grad(probabilities, d_probabilities);
            g.add_grad(logsumexp, d_logsumexp);
        });
        BalanceLoss { loss, metrics }
    }

    /// The sum of scalar losses [1], in order. Each gets the gradient of the sum.
    ///
    /// # Panics
    /// If there is none.
    pub fn add_losses(&mut self, losses: &[Tensor]) -> Tensor {
        let (&first, rest) = losses.split_first().expect("add_losses: wanted at least one loss");
        rest.iter().fold(first, |sum, &loss| self.add(sum, loss))
    }
}
