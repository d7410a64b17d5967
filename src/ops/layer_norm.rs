//! Layer norm with gain and bias (Ba et al., arXiv 1607.06450). Saves the mean and the reciprocal standard deviation of
//! each row.
//!
//! Backward takes the gradient that `x` already has, a residual connection's as a rule, and hands back the sum: no add
//! of its own is needed.

use super::{
    Graph,
    kernels::{layer_norm, layer_norm_cpu},
};
use crate::gpu::Tensor;

/// Rows that one invocation of `backward_weight` sums before the blocks' sums are added.
const BLOCK_ROWS: u32 = 64;

impl Graph {
    /// Brings every row of `x` [.., D] to mean 0 and variance 1, then times the parameter `w` `[D]`, plus `b` `[D]`.
    pub fn layer_norm(&mut self, x: Tensor, w: Tensor, b: Tensor, eps: f32) -> Tensor {
        let [rows, width] = x.shape.matrix("layer_norm x"); // N, D
        let fits = w.shape.len() == width && b.shape.len() == width;
        assert!(fits, "layer_norm: w {:?} and b {:?} against x {:?}", w.shape, b.shape, x.shape);
        if self.capabilities.reads_images(&[x, w, b]) {
            return self.layer_norm_cpu(x, w, b, eps);
        }
        use layer_norm::{Backward, BackwardResidual, BackwardWeight, Forward, Params, ReduceWeight};
        let blocks = rows.div_ceil(BLOCK_ROWS);
        let params = Params { rows, width, eps, block_rows: BLOCK_ROWS, blocks };
        let y = self.like("layer_norm", x); // [N, D]
        let mean = self.tensor("layer_norm.mean", [rows]); // [N]
        let r = self.tensor("layer_norm.r", [rows]); // [N]
        self.dispatch_on(Forward { params, x, w, b, y, mean, r }, [rows, 1, 1]);
        self.on_backward(y, move |g, d_y| {
            let d_x = g.like("d_layer_norm", x); // [N, D]
            match g.take_grad(x) {
                Some(d_residual) => {
                    g.dispatch_on(BackwardResidual { params, x, w, mean, r, d_y, d_residual, d_x }, [rows, 1, 1]);
                }
                None => g.dispatch_on(Backward { params, x, w, mean, r, d_y, d_x }, [rows, 1, 1]),
            }
            g.add_grad(x, d_x);
            let partial_w = g.tensor("layer_norm.partial_w", [blocks, width]); // [N / block, D]
            let partial_b = g.tensor("layer_norm.partial_b", [blocks, width]); // [N / block, D]
            let (d_w, d_b) = (g.param_grad(w), g.param_grad(b)); // [D], [D]
            let columns = width.div_ceil(BackwardWeight::WORKGROUP);
            g.dispatch_on(BackwardWeight { params, x, mean, r, d_y, partial_w, partial_b }, [columns, blocks, 1]);
            g.dispatch_on(ReduceWeight { params, partial_w, partial_b, d_w, d_b }, [columns, 1, 1]);
        });
        y
    }

    fn layer_norm_cpu(&mut self, x: Tensor, w: Tensor, b: Tensor, eps: f32) -> Tensor {
        use layer_norm_cpu::{Backward, BackwardResidual, BackwardWeight, Forward, Params};
        let [rows, width] = x.shape.matrix("layer_norm x"); // N, D
        let params = Params { rows, texels: width / 4, eps };
        let grid = [rows.div_ceil(Forward::WORKGROUP), 1, 1];
        let (image_x, image_w, image_b) = (x.reshape([rows, width]), w.reshape([1, width]), b.reshape([1, width]));
        let y = self.like("layer_norm", x); // [N, D]
        let mean = self.tensor("layer_norm.mean", [rows]); // [N]
        let r = self.tensor("layer_norm.r", [rows]); // [N]
        self.dispatch_on(Forward { params, image_x, image_w, image_b, y, mean, r }, grid);
        self.on_backward(y, move |g, d_y| {
            let image_d_y = d_y.reshape([rows, width]);
            let d_x = g.like("d_layer_norm", x); // [N, D]
            match g.take_grad(x) {
                Some(d) => {
                    let image_residual = d.reshape([rows, width]);
                    let call = BackwardResidual { params, image_x, image_w, mean, r, image_d_y, image_residual, d_x };
                    g.dispatch_on(call, grid);
                }
                None => g.dispatch_on(Backward { params, image_x, image_w, mean, r, image_d_y, d_x }, grid),
            }
            g.add_grad(x, d_x);
            let (d_w, d_b) = (g.param_grad(w), g.param_grad(b)); // [D], [D]
            let columns = params.texels.div_ceil(BackwardWeight::WORKGROUP);
            g.dispatch_on(BackwardWeight { params, image_x, mean, r, image_d_y, d_w, d_b }, [columns, 1, 1]);
        });
        y
    }
}
