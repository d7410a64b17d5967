//! Selects whole sequences from one of two tensors by a mask: used for halted sequences of a recursive model.
//! Saves nothing.

use super::{
    Graph,
    kernels::mix_rows::{Backward, Forward, Params},
};
use crate::gpu::Tensor;

impl Graph {
    /// Row n of `b` where the mask of its sequence, `mask[n / tokens]`, is not 0, else row n of `a`. `a` and `b` are
    /// [N, D], `mask` is f32 [N / tokens] (carried and saved like other state) and gets no gradient.
    pub fn mix_rows(&mut self, a: Tensor, b: Tensor, mask: Tensor, tokens: u32) -> Tensor {
        let [rows, width] = a.shape.matrix("mix_rows a"); // N, D
        let batch = mask.shape.len(); // N / T
        let fits = b.shape.matrix("mix_rows b") == [rows, width] && batch * tokens == rows;
        assert!(fits, "mix_rows: a {:?}, b {:?}, mask {:?}, {tokens} tokens", a.shape, b.shape, mask.shape);
        let y = self.like("mix_rows", a); // [N, D]
        let params = Params { rows, tokens, width, wanted: 0 };
        self.dispatch(Forward { params, a, b, mask, y });
        self.on_backward(y, move |g, d_y| {
            for (wanted, operand) in (0..).zip([a, b]) {
                if g.wants_grad(operand) {
                    let d_x = g.like("d_mix_rows", operand); // [N, D]
                    g.dispatch(Backward { params: Params { wanted, ..params }, mask, d_y, d_x });
                    g.add_grad(operand, d_x);
                }
            }
        });
        y
    }
}
