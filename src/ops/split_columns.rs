//! Splits the columns of one projection into two tensors, as multi-head latent attention does with the compressed
//! keys and values and the key's rotary part. Saves nothing.

use super::{
    Graph,
    kernels::split_columns::{Backward, Forward, Params},
};
use crate::gpu::Tensor;

impl Graph {
    /// Returns the first `left` columns of `x` [.., A + B] and the others: [N, A], [N, B] with A = `left`.
    pub fn split_columns(&mut self, x: Tensor, left: u32) -> (Tensor, Tensor) {
        let [rows, width] = x.shape.matrix("split_columns x"); // N, A + B
        assert!(0 < left && left < width, "split_columns: {left} columns of x {:?}, expected some on each side", x.shape);
        let [left_width, right_width] = [left, width - left]; // A, B
        let [left, right] = [left_width, right_width].map(|width| self.tensor("split", [rows, width])); // [N, A], [N, B]
        let params = Params { rows, left_width, right_width, has_left: 0, has_right: 0 };
        self.dispatch(Forward { params, x, left, right });
        self.on_backward_many(&[left, right], move |g, gradients| {
            let ([has_left, has_right], [d_left, d_right]) = present(gradients);
            let d_x = g.like("d_split", x); // [.., A + B]
            g.dispatch(Backward { params: Params { has_left, has_right, ..params }, d_left, d_right, d_x });
            g.add_grad(x, d_x);
        });
        (left, right)
    }
}

/// Whether each of two gradients exists, and both; an absent one is replaced by the other and not read.
fn present(gradients: &[Option<Tensor>]) -> ([u32; 2], [Tensor; 2]) {
    let any = gradients[0].or(gradients[1]).expect("a backward runs for some gradient");
    ([0, 1].map(|i| u32::from(gradients[i].is_some())), [0, 1].map(|i| gradients[i].unwrap_or(any)))
}
