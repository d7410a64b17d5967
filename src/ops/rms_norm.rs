//! Root-mean-square norm (Zhang & Sennrich, arXiv 1910.07467). Saves the reciprocal root mean square of each row, from which a large norm is
//! computed again for the backward of what reads it.
//!
//! Backward adds to the gradient that `x` already has, usually that of a residual connection, so no separate add is needed.
//! GPUs compute d_x and blocks of d_w in one launch: launches are what a small model waits for. CPU rasterisers do not wait for them, and
//! walk the rows of d_w in a launch of its own.

use super::{
    Graph,
    kernels::rms_norm::{
        AddForward, BLOCK_ROWS, Backward, BackwardBlock, BackwardBlockResidual, BackwardResidual, BackwardWeight, BackwardWeightInOrder,
        Forward, ForwardAgain, OWN_ROWS, Params, ReduceBlocks, ReduceWeight,
    },
};
use crate::gpu::Tensor;

/// A norm whose forward is recorded.
#[derive(Clone, Copy)]
struct Norm {
    params: Params,
    /// Whether one launch of the backward computes d_x and blocks of d_w.
    has_blocks: bool,
    x: Tensor, // [N, D]
    w: Tensor, // [D]
    y: Tensor, // [N, D]
    r: Tensor, // [N]
}

impl Graph {
    /// A constant gain `[width]` of ones.
    pub fn ones(&mut self, width: u32) -> Tensor {
        let name = format!("ones.{width}");
        self.find(&name).unwrap_or_else(|| self.constant(&name, [width], vec![1.0; width as usize]))
    }

    /// Scales every row of `x` [.., D] to unit root mean square, then by `w` `[D]`: a parameter, or a constant for a norm
    /// without gain.
    pub fn rms_norm(&mut self, x: Tensor, w: Tensor, eps: f32) -> Tensor {
        let norm = self.norm_of(x, w, eps);
        let Norm { params, y, r, .. } = norm;
        self.dispatch(Forward { params, x, w, y, r });
        self.norm_computed_again(norm);
        self.on_backward(y, move |g, d_y| g.norm_backward(norm, d_y));
        y
    }

    /// [`Graph::add`] of `a` and `b`, of one shape [.., D], and [`Graph::rms_norm`] of the sum, in one launch: (sum, norm).
    pub fn add_rms_norm(&mut self, a: Tensor, b: Tensor, w: Tensor, eps: f32) -> (Tensor, Tensor) {
        assert_eq!(a.shape.len(), b.shape.len(), "add_rms_norm: {:?} against {:?}", a.shape, b.shape);
        let added = self.like("add", a); // [N, D]
        let norm = self.norm_of(added, w, eps);
        let Norm { params, y, r, .. } = norm;
        self.dispatch(AddForward { params, a, b: b.reshape(a.shape), w, added, y, r });
        self.norm_computed_again(norm);
        self.pass_on_gradient(added, [a, b]);
        self.on_backward(y, move |g, d_y| g.norm_backward(norm, d_y));
        (added, y)
    }

    fn norm_of(&mut self, x: Tensor, w: Tensor, eps: f32) -> Norm {
        let [rows, width] = x.shape.matrix("rms_norm x"); // N, D
        assert_eq!(w.shape.len(), width, "rms_norm: w {:?} against x {:?}", w.shape, x.shape);
        let has_blocks = self.wants_grad(w) && !self.capabilities.images;
        let blocks = rows.div_ceil(if has_blocks { OWN_ROWS } else { BLOCK_ROWS });
        let params = Params { rows, width, eps, blocks };
        let y = self.like("rms_norm", x); // [N, D]
        let r = self.tensor("rms_norm.r", [rows]); // [N]
        Norm { params, has_blocks, x, w, y, r }
    }

    /// From the sum and the scales that its backward reads in any case.
    fn norm_computed_again(&mut self, Norm { params, x, w, y, r, .. }: Norm) {
        self.computed_again_by(y, move |g| {
            let y = g.like("rms_norm", y); // [N, D]
            g.dispatch(ForwardAgain { params, x, w, r, y });
            y
        });
    }

    fn norm_backward(&mut self, norm: Norm, d_y: Tensor) {
        let Norm { params, has_blocks, x, w, r, .. } = norm;
        let Params { width, blocks, .. } = params;
        let d_residual = self.take_grad(x); // [N, D]
        let d_x = self.like("d_rms_norm", x); // [N, D]
        if has_blocks {
            let partial = self.tensor("rms_norm.partial", [blocks, width]); // [N / block, D]
            let d_w = self.param_grad(w); // [D]
            match d_residual {
                Some(d_residual) => self.dispatch(BackwardBlockResidual { params, x, w, d_y, r, d_residual, d_x, partial }),
                None => self.dispatch(BackwardBlock { params, x, w, d_y, r, d_x, partial }),
            }
            self.add_grad(x, d_x);
            self.dispatch(ReduceBlocks { params, partial, d_w });
            return;
        }
        match d_residual {
            Some(d_residual) => self.dispatch(BackwardResidual { params, x, w, d_y, r, d_residual, d_x }),
            None => self.dispatch(Backward { params, x, w, d_y, r, d_x }),
        }
        self.add_grad(x, d_x);
        if !self.wants_grad(w) {
            return;
        }
        let d_w = self.param_grad(w); // [D]
        if self.try_dispatch(&BackwardWeightInOrder { params, x, d_y, r, d_w }) {
            return;
        }
        let partial = self.tensor("rms_norm.partial", [blocks, width]); // [N / block, D]
        self.dispatch(BackwardWeight { params, x, d_y, r, partial });
        self.dispatch(ReduceWeight { params, partial, d_w });
    }
}
