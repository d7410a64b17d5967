//! Whole sequences of one tensor or another, by a mask: what a recursive model does with sequences that have halted.
//! Saves nothing.

use super::{
    Graph,
    kernels::{mix_rows, mix_rows_cpu},
};
use crate::gpu::Tensor;

/// Rows and columns of texels that a workgroup of the CPU kernels owns.
const CPU_TILE: [u32; 2] = [16, 16];

impl Graph {
    /// Row n of `b` where the mask of its sequence, `mask[n / tokens]`, is not 0, else row n of `a`. `a` and `b` are
    /// [N, D], `mask` is f32 [N / tokens] (carried and saved like other state) and gets no gradient.
    pub fn mix_rows(&mut self, a: Tensor, b: Tensor, mask: Tensor, tokens: u32) -> Tensor {
        let [rows, width] = a.shape.matrix("mix_rows a"); // N, D
        let batch = mask.shape.len(); // N / T
        let fits = b.shape.matrix("mix_rows b") == [rows, width] && batch * tokens == rows;
        assert!(fits, "mix_rows: a {:?}, b {:?}, mask {:?}, {tokens} tokens", a.shape, b.shape, mask.shape);
        let y = self.like("mix_rows", a); // [N, D]
        if self.capabilities.reads_images(&[a, b]) {
            use mix_rows_cpu::{Backward, Forward, Params};
            let params = Params { tokens, texels: width / 4, wanted: 0 };
            let grid = [params.texels / CPU_TILE[0], tokens.div_ceil(CPU_TILE[1]), batch];
            self.dispatch_on(Forward { params, image_a: a, image_b: b, mask, y }, grid);
            self.route([a, b], y, move |g, wanted, d_y, d_x| {
                g.dispatch_on(Backward { params: Params { wanted, ..params }, mask, image_d_y: d_y, d_x }, grid);
            });
        } else {
            use mix_rows::{Backward, Forward, Params};
            let params = Params { elements: rows * width, sequence_elements: tokens * width, wanted: 0 };
            let grid = [params.elements.div_ceil(Forward::WORKGROUP), 1, 1];
            self.dispatch_on(Forward { params, a, b, mask, y }, grid);
            self.route([a, b], y, move |g, wanted, d_y, d_x| {
                g.dispatch_on(Backward { params: Params { wanted, ..params }, mask, d_y, d_x }, grid);
            });
        }
        y
    }

    /// Records one backward for each operand that wants a gradient; `dispatch` gets its number, d_y and d_x.
    fn route(&mut self, operands: [Tensor; 2], y: Tensor, dispatch: impl Fn(&mut Graph, u32, Tensor, Tensor) + 'static) {
        self.on_backward(y, move |g, d_y| {
            for (wanted, operand) in (0..).zip(operands) {
                if g.wants_grad(operand) {
                    let d_x = g.like("d_mix_rows", operand); // [N, D]
                    dispatch(g, wanted, d_y, d_x);
                    g.add_grad(operand, d_x);
                }
            }
        });
    }
}
