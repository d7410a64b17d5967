//! Root-mean-square norm (Zhang & Sennrich, arXiv 1910.07467). Saves the reciprocal root mean square of each row.
//!
//! Backward adds to the gradient that `x` already has, usually that of a residual connection, so no separate add is needed.

use super::{
    Graph,
    kernels::rms_norm::{BLOCK_ROWS, Backward, BackwardResidual, BackwardWeight, BackwardWeightInOrder, Forward, Params, ReduceWeight},
};
use crate::gpu::Tensor;

impl Graph {
    /// A constant gain `[width]` of ones.
    pub fn ones(&mut self, width: u32) -> Tensor {
        let name = format!("ones.{width}");
        self.find(&name).unwrap_or_else(|| self.constant(&name, [width], vec![1.0; width as usize]))
    }

    /// Scales every row of `x` [.., D] to unit root mean square, then by `w` `[D]`: a parameter, or a constant for a norm
    /// without gain.
    pub fn rms_norm(&mut self, x: Tensor, w: Tensor, eps: f32) -> Tensor {
        let [rows, width] = x.shape.matrix("rms_norm x"); // N, D
        assert_eq!(w.shape.len(), width, "rms_norm: w {:?} against x {:?}", w.shape, x.shape);
        let blocks = rows.div_ceil(BLOCK_ROWS);
        let params = Params { rows, width, eps, blocks };
        let y = self.like("rms_norm", x); // [N, D]
        let r = self.tensor("rms_norm.r", [rows]); // [N]
        self.dispatch(Forward { params, x, w, y, r });
        self.on_backward(y, move |g, d_y| {
            let d_x = g.like("d_rms_norm", x); // [N, D]
            match g.take_grad(x) {
                Some(d_residual) => g.dispatch(BackwardResidual { params, x, w, d_y, r, d_residual, d_x }),
                None => g.dispatch(Backward { params, x, w, d_y, r, d_x }),
            }
            g.add_grad(x, d_x);
            if !g.wants_grad(w) {
                return;
            }
            let d_w = g.param_grad(w); // [D]
            if g.try_dispatch(&BackwardWeightInOrder { params, x, d_y, r, d_w }) {
                return;
            }
            let partial = g.tensor("rms_norm.partial", [blocks, width]); // [N / block, D]
            g.dispatch(BackwardWeight { params, x, d_y, r, partial });
            g.dispatch(ReduceWeight { params, partial, d_w });
        });
        y
    }
}
