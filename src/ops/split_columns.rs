//! Splits the columns of one projection into two tensors, as multi-head latent attention does with the compressed
//! keys and values and the key's rotary part. Saves nothing.

use super::{
    Graph,
    kernels::{split_columns, split_columns_cpu},
};
use crate::gpu::Tensor;

/// Rows and columns of texels that a workgroup of the CPU kernels owns.
const CPU_TILE: [u32; 2] = [16, 16];

impl Graph {
    /// The first `left` columns of `x` [.., A + B] and the others: [N, A], [N, B] with A = `left`.
    pub fn split_columns(&mut self, x: Tensor, left: u32) -> (Tensor, Tensor) {
        let [rows, width] = x.shape.matrix("split_columns x"); // N, A + B
        assert!(0 < left && left < width, "split_columns: {left} columns of x {:?}, wanted some for each side", x.shape);
        let widths = [left, width - left]; // A, B
        let [left, right] = widths.map(|width| self.tensor("split", [rows, width])); // [N, A], [N, B]
        match self.capabilities.flat_images([x, left, right]) {
            Some([image_x, ..]) if widths.iter().all(|width| width % 4 == 0) => {
                use split_columns_cpu::{Backward, Forward, Params};
                let [left_width, right_width] = widths.map(|width| width / 4);
                let params = Params { rows, left_width, right_width, has_left: 0, has_right: 0 };
                let grid = [(width / 4).div_ceil(CPU_TILE[0]), rows.div_ceil(CPU_TILE[1]), 1];
                self.dispatch_on(Forward { params, x: image_x, left, right }, grid);
                self.on_backward_many(&[left, right], move |g, gradients| {
                    let ([has_left, has_right], [d_left, d_right]) = present(gradients);
                    let [d_left, d_right] = g.capabilities.flat_images([d_left, d_right]).expect("gradients fit as their tensors did");
                    let d_x = g.like("d_split", x); // [.., A + B]
                    g.dispatch_on(Backward { params: Params { has_left, has_right, ..params }, d_left, d_right, d_x }, grid);
                    g.add_grad(x, d_x);
                });
            }
            _ => {
                use split_columns::{Backward, Forward, Params};
                let [left_width, right_width] = widths;
                let params = Params { elements: rows * width, left_width, right_width, has_left: 0, has_right: 0 };
                let grid = [params.elements.div_ceil(Forward::WORKGROUP), 1, 1];
                self.dispatch_on(Forward { params, x, left, right }, grid);
                self.on_backward_many(&[left, right], move |g, gradients| {
                    let ([has_left, has_right], [d_left, d_right]) = present(gradients);
                    let d_x = g.like("d_split", x); // [.., A + B]
                    g.dispatch_on(Backward { params: Params { has_left, has_right, ..params }, d_left, d_right, d_x }, grid);
                    g.add_grad(x, d_x);
                });
            }
        }
        (left, right)
    }
}

/// Which of two gradients there are, and both; the other takes the place of an absent one, which is not read.
fn present(gradients: &[Option<Tensor>]) -> ([u32; 2], [Tensor; 2]) {
    let any = gradients[0].or(gradients[1]).expect("a backward runs for some gradient");
    ([0, 1].map(|i| u32::from(gradients[i].is_some())), [0, 1].map(|i| gradients[i].unwrap_or(any)))
}
