//! Splits the columns of one projection into two tensors, as multi-head latent attention does with the compressed
//! keys and values and the key's rotary part. Saves nothing.

use super::{
    Graph,
    kernels::split_columns::{Backward, Forward, Params},
};
use crate::gpu::Tensor;

impl Graph {
    /// The first `left` columns of `x` [.., A + B] and the others: [N, A], [N, B] with A = `left`.
    pub fn split_columns(&mut self, x: Tensor, left: u32) -> (Tensor, Tensor) {
        let [rows, width] = x.shape.matrix("split_columns x"); // N, A + B
        assert!(0 < left && left < width, "split_columns: {left} columns of x {:?}, wanted some for each side", x.shape);
        let right = width - left;
        let params = Params { elements: rows * width, left_width: left, right_width: right, has_left: 0, has_right: 0 };
        let grid = [params.elements.div_ceil(Forward::WORKGROUP), 1, 1];
        let left = self.tensor("split.left", [rows, left]); // [N, A]
        let right = self.tensor("split.right", [rows, right]); // [N, B]
        self.dispatch(Forward { params, x, left, right }, grid);
        self.on_backward_many(&[left, right], move |g, gradients| {
            let Some(present) = gradients[0].or(gradients[1]) else { return };
            let [has_left, has_right] = [0, 1].map(|i| u32::from(gradients[i].is_some()));
            let [d_left, d_right] = [0, 1].map(|i| gradients[i].unwrap_or(present)); // An absent one is not read.
            let d_x = g.like("d_split", x); // [.., A + B]
            g.dispatch(Backward { params: Params { has_left, has_right, ..params }, d_left, d_right, d_x }, grid);
            g.add_grad(x, d_x);
        });
        (left, right)
    }
}
