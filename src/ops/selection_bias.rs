//! Counts of assignments over an update's micro-batches, and the selection bias that is derived from them (loss-free balancing,
//! arXiv 2408.15664; `get_updated_expert_bias` of Megatron).
//!
//! Guarantees: counts are exact, only of real tokens, and zero between updates if the update program clears them. No gradient
//! is involved; an update that is skipped because a gradient is not finite does not change the bias.

use super::{
    Graph,
    kernels::selection_bias::{Count, Params, Update},
    permute::Permutation,
};
use crate::gpu::Tensor;

impl Graph {
    /// Adds the assignments of this micro-batch's real tokens to `counts`, a state of u32 `[E]`, and returns each expert's share
    /// of all assignments counted so far `[E]`.
    ///
    /// The update program must clear the counts: [`Graph::selection_bias_update`] does, or [`Graph::clear`].
    pub fn count_assignments(&mut self, counts: Tensor, permutation: &Permutation) -> Tensor {
        let Permutation { offsets, assignment_of, slot_of } = *permutation;
        let [tokens, experts_per_token] = slot_of.shape.dims("count_assignments slot_of");
        let experts = counts.shape.len();
        assert_eq!(offsets.shape.len(), experts + 1, "count_assignments: counts {:?}, offsets {:?}", counts.shape, offsets.shape);
        let load = self.tensor("router.load", [experts]); // [E]
        let params = Params { tokens, experts_per_token, experts, rate: 0.0 };
        self.dispatch(Count { params, offsets, assignment_of, counts, load });
        load
    }

    /// Moves a router's selection bias, a state `[E]`, by `rate` towards the experts with fewer assignments than the mean of
    /// `counts`, a state of u32 `[E]`, and clears these. Only clears the counts if a gradient is not finite according to
    /// `clip` (see [`Graph::grad_norm`]). Belongs in the update program.
    pub fn selection_bias_update(&mut self, bias: Tensor, counts: Tensor, clip: Tensor, rate: f32) {
        let experts = counts.shape.len();
        assert_eq!(bias.shape.len(), experts, "selection_bias_update: bias {:?}, counts {:?}", bias.shape, counts.shape);
        let params = Params { experts, rate, ..Default::default() };
        self.dispatch(Update { params, counts, clip, bias });
    }
}
