//! Root-mean-square norm (Zhang & Sennrich, arXiv 1910.07467). Saves the reciprocal root mean square of each row.
//!
//! Backward adds to the gradient that `x` already has, usually that of a residual connection, so no separate add is needed.
//! GPUs compute d_x and blocks of d_w in one launch: launches are what a small model waits for. CPU rasterisers do not wait for them, and
//! walk the rows of d_w in a launch of its own.

use super::{
    Graph,
    kernels::rms_norm::{
        BLOCK_ROWS, Backward, BackwardBlock, BackwardBlockResidual, BackwardResidual, BackwardWeight, BackwardWeightInOrder, Forward,
        OWN_ROWS, Params, ReduceBlocks, ReduceWeight,
    },
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
        let has_blocks = self.wants_grad(w) && !self.capabilities.images;
        let blocks = rows.div_ceil(if has_blocks { OWN_ROWS } else { BLOCK_ROWS });
        let params = Params { rows, width, eps, blocks };
        let y = self.like("rms_norm", x); // [N, D]
        let r = self.tensor("rms_norm.r", [rows]); // [N]
        self.dispatch(Forward { params, x, w, y, r });
        self.on_backward(y, move |g, d_y| {
            let d_residual = g.take_grad(x); // [N, D]
            let d_x = g.like("d_rms_norm", x); // [N, D]
            if has_blocks {
                let partial = g.tensor("rms_norm.partial", [blocks, width]); // [N / block, D]
                let d_w = g.param_grad(w); // [D]
                match d_residual {
                    Some(d_residual) => g.dispatch(BackwardBlockResidual { params, x, w, d_y, r, d_residual, d_x, partial }),
                    None => g.dispatch(BackwardBlock { params, x, w, d_y, r, d_x, partial }),
                }
                g.add_grad(x, d_x);
                g.dispatch(ReduceBlocks { params, partial, d_w });
                return;
            }
            match d_residual {
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
