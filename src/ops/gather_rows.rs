//! Copies every token's row to the slots of its K assignments; backward sums them in the order of k.

use super::{
    Graph,
    kernels::{gather_rows, gather_rows_cpu},
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
        if self.capabilities.reads_images(&[x, y]) {
            use gather_rows_cpu::{Backward, Forward, Params};
            let quarter = width / 16;
            let params = Params { tokens, experts_per_token, quarter };
            let grid = [(assignments * quarter).div_ceil(Forward::WORKGROUP), 1, 1];
            self.dispatch_on(Forward { params, x, assignment_of, y }, grid);
            self.on_backward(y, move |g, d_y| {
                let d_x = g.like("d_gather_rows", x); // [N, D]
                let grid = [(tokens * quarter).div_ceil(Backward::WORKGROUP), 1, 1];
                g.dispatch_on(Backward { params, d_y, slot_of, d_x }, grid);
                g.add_grad(x, d_x);
            });
        } else {
            use gather_rows::{Backward, Forward, Params};
            let params = Params { tokens, experts_per_token, width };
            let grid = [(assignments * width).div_ceil(Forward::WORKGROUP), 1, 1];
            self.dispatch_on(Forward { params, x, assignment_of, y }, grid);
            self.on_backward(y, move |g, d_y| {
                let d_x = g.like("d_gather_rows", x); // [N, D]
                let grid = [(tokens * width).div_ceil(Backward::WORKGROUP), 1, 1];
                g.dispatch_on(Backward { params, d_y, slot_of, d_x }, grid);
                g.add_grad(x, d_x);
            });
        }
        y
    }
}
