//! Root-mean-square norm (Zhang & Sennrich, arXiv 1910.07467). Saves the reciprocal root mean square of each row.
//!
//! Backward takes the gradient that `x` already has, a residual connection's as a rule, and hands back the sum: no add
//! of its own is needed.

use super::{
    Graph,
    kernels::{rms_norm, rms_norm_cpu},
};
use crate::gpu::Tensor;

/// Rows that one invocation of `backward_weight` sums before the blocks' sums are added.
const BLOCK_ROWS: u32 = 64;

impl Graph {
    /// A gain `[width]` that is no parameter: all ones.
    pub fn ones(&mut self, width: u32) -> Tensor {
        let name = format!("ones.{width}");
        self.find(&name).unwrap_or_else(|| self.constant(&name, [width], vec![1.0; width as usize]))
    }

    /// Scales every row of `x` [.., D] to unit root mean square, then by `w` `[D]`: a parameter, or a constant, as of a norm
    /// without gain.
    pub fn rms_norm(&mut self, x: Tensor, w: Tensor, eps: f32) -> Tensor {
        let [rows, width] = x.shape.matrix("rms_norm x"); // N, D
        assert_eq!(w.shape.len(), width, "rms_norm: w {:?} against x {:?}", w.shape, x.shape);
        if self.capabilities.reads_images(&[x, w]) {
            return self.rms_norm_cpu(x, w, eps);
        }
        use rms_norm::{Backward, BackwardResidual, BackwardWeight, Forward, Params, ReduceWeight};
        let blocks = rows.div_ceil(BLOCK_ROWS);
        let params = Params { rows, width, eps, block_rows: BLOCK_ROWS, blocks };
        let y = self.like("rms_norm", x); // [N, D]
        let r = self.tensor("rms_norm.r", [rows]); // [N]
        self.dispatch_on(Forward { params, x, w, y, r }, [rows, 1, 1]);
        self.on_backward(y, move |g, d_y| {
            let d_x = g.like("d_rms_norm", x); // [N, D]
            match g.take_grad(x) {
                Some(d_residual) => g.dispatch_on(BackwardResidual { params, x, w, d_y, r, d_residual, d_x }, [rows, 1, 1]),
                None => g.dispatch_on(Backward { params, x, w, d_y, r, d_x }, [rows, 1, 1]),
            }
            g.add_grad(x, d_x);
            if !g.wants_grad(w) {
                return;
            }
            let partial = g.tensor("rms_norm.partial", [blocks, width]); // [N / block, D]
            let d_w = g.param_grad(w); // [D]
            let columns = width.div_ceil(BackwardWeight::WORKGROUP);
            g.dispatch_on(BackwardWeight { params, x, d_y, r, partial }, [columns, blocks, 1]);
            g.dispatch_on(ReduceWeight { params, partial, d_w }, [columns, 1, 1]);
        });
        y
    }

    fn rms_norm_cpu(&mut self, x: Tensor, w: Tensor, eps: f32) -> Tensor {
        use rms_norm_cpu::{Backward, BackwardResidual, BackwardWeight, Forward, Params};
        let [rows, width] = x.shape.matrix("rms_norm x"); // N, D
        let params = Params { rows, texels: width / 4, eps };
        let grid = [rows.div_ceil(Forward::WORKGROUP), 1, 1];
        let (image_x, image_w) = (x.reshape([rows, width]), w.reshape([1, width]));
        let y = self.like("rms_norm", x); // [N, D]
        let r = self.tensor("rms_norm.r", [rows]); // [N]
        self.dispatch_on(Forward { params, image_x, image_w, y, r }, grid);
        self.on_backward(y, move |g, d_y| {
            let image_d_y = d_y.reshape([rows, width]);
            let d_x = g.like("d_rms_norm", x); // [N, D]
            match g.take_grad(x) {
                Some(d) => {
                    let image_residual = d.reshape([rows, width]);
                    g.dispatch_on(BackwardResidual { params, image_x, image_w, image_d_y, r, image_residual, d_x }, grid);
                }
                None => g.dispatch_on(Backward { params, image_x, image_w, image_d_y, r, d_x }, grid),
            }
            g.add_grad(x, d_x);
            if !g.wants_grad(w) {
                return;
            }
            let d_w = g.param_grad(w); // [D]
            let columns = params.texels.div_ceil(BackwardWeight::WORKGROUP);
            g.dispatch_on(BackwardWeight { params, image_x, image_d_y, r, d_w }, [columns, 1, 1]);
        });
        y
    }
}
