//! Layer norm with gain and bias (Ba et al., arXiv 1607.06450). Saves the mean and the reciprocal standard deviation of
//! each row.
//!
//! Backward adds to the gradient that `x` already has, usually that of a residual connection, so no separate add is needed.
//! As for `rms_norm`, GPUs compute d_x and blocks of d_w and d_b in one launch.

use super::{
    Graph,
    kernels::layer_norm::{
        BLOCK_ROWS, Backward, BackwardBlock, BackwardBlockResidual, BackwardResidual, BackwardWeight, BackwardWeightInOrder, Forward,
        OWN_ROWS, Params, ReduceBlocks, ReduceWeight,
    },
};
use crate::gpu::Tensor;

impl Graph {
    /// Normalises every row of `x` [.., D] to mean 0 and variance 1, then multiplies by the parameter `w` `[D]` and adds `b` `[D]`.
    pub fn layer_norm(&mut self, x: Tensor, w: Tensor, b: Tensor, eps: f32) -> Tensor {
        let [rows, width] = x.shape.matrix("layer_norm x"); // N, D
        let fits = w.shape.len() == width && b.shape.len() == width;
        assert!(fits, "layer_norm: w {:?} and b {:?} against x {:?}", w.shape, b.shape, x.shape);
        let has_blocks = !self.capabilities.images;
        let blocks = rows.div_ceil(if has_blocks { OWN_ROWS } else { BLOCK_ROWS });
        let params = Params { rows, width, eps, blocks };
        let y = self.like("layer_norm", x); // [N, D]
        let mean = self.tensor("layer_norm.mean", [rows]); // [N]
        let r = self.tensor("layer_norm.r", [rows]); // [N]
        self.dispatch(Forward { params, x, w, b, y, mean, r });
        self.on_backward(y, move |g, d_y| {
            let d_residual = g.take_grad(x); // [N, D]
            let d_x = g.like("d_layer_norm", x); // [N, D]
            if has_blocks {
                let (d_w, d_b) = (g.param_grad(w), g.param_grad(b)); // [D], [D]
                let partial = g.tensor("layer_norm.partial", [blocks, 2 * width]); // [N / block, 2 D]
                match d_residual {
                    Some(d_residual) => g.dispatch(BackwardBlockResidual { params, x, w, mean, r, d_y, d_residual, d_x, partial }),
                    None => g.dispatch(BackwardBlock { params, x, w, mean, r, d_y, d_x, partial }),
                }
                g.add_grad(x, d_x);
                g.dispatch(ReduceBlocks { params, partial, d_w, d_b });
                return;
            }
            match d_residual {
                Some(d_residual) => g.dispatch(BackwardResidual { params, x, w, mean, r, d_y, d_residual, d_x }),
                None => g.dispatch(Backward { params, x, w, mean, r, d_y, d_x }),
            }
            g.add_grad(x, d_x);
            let (d_w, d_b) = (g.param_grad(w), g.param_grad(b)); // [D], [D]
            if g.try_dispatch(&BackwardWeightInOrder { params, x, mean, r, d_y, d_w, d_b }) {
                return;
            }
            let partial_w = g.tensor("layer_norm.partial_w", [blocks, width]); // [N / block, D]
            let partial_b = g.tensor("layer_norm.partial_b", [blocks, width]); // [N / block, D]
            g.dispatch(BackwardWeight { params, x, mean, r, d_y, partial_w, partial_b });
            g.dispatch(ReduceWeight { params, partial_w, partial_b, d_w, d_b });
        });
        y
    }
}
