//! Copies every token's row to the slots of its K assignments; backward sums them in the order of k, and may copy them again.

use super::{
    Graph,
    kernels::gather_rows::{Backward, Forward, Params},
    permute::Permutation,
};
use crate::gpu::Tensor;

impl Graph {
    /// The rows of `x` [.., D] in the experts' order [A, D].
    pub fn gather_rows(&mut self, x: Tensor, permutation: &Permutation) -> Tensor {
        let [tokens, width] = x.shape.matrix("gather_rows x"); // N, D
        let Permutation { slot_of, assignment_of, .. } = *permutation;
        let [slot_tokens, experts_per_token] = slot_of.shape.dims("gather_rows slot_of");
        assert_eq!(tokens, slot_tokens, "gather_rows: x {:?} against slot_of {:?}", x.shape, slot_of.shape);
        let assignments = tokens * experts_per_token; // A
        let y = self.tensor("gather_rows", [assignments, width]); // [A, D]
        let params = Params { tokens, experts_per_token, width };
        self.dispatch(Forward { params, x, assignment_of, y });
        self.computed_again_by(y, move |g| {
            let (x, y) = (g.saved(x), g.like("gather_rows", y)); // [A, D]
            g.dispatch(Forward { params, x, assignment_of, y });
            y
        });
        self.on_backward(y, move |g, d_y| {
            let d_x = g.like("d_gather_rows", x); // [N, D]
            g.dispatch(Backward { params, d_y, slot_of, d_x });
            g.add_grad(x, d_x);
        });
        y
    }
}
