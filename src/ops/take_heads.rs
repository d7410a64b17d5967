//! Drops the padding of attention's heads if values are narrower than queries (see [`super::LatentHeads`]). Saves
//! nothing.

use super::{
    Graph,
    kernels::take_heads::{Backward, Forward, Params},
};
use crate::gpu::Tensor;

impl Graph {
    /// The leading `value` channels of every head of `x` [N, H w]: [N, H value]. Returns `x` itself if `value` is the whole
    /// `width` w.
    pub fn take_heads(&mut self, x: Tensor, heads: u32, width: u32, value: u32) -> Tensor {
        let [rows, row_width] = x.shape.matrix("take_heads x"); // N, H w
        let fits = row_width == heads * width && 0 < value && value <= width;
        assert!(fits, "take_heads: {value} channels of {heads} heads of {width} in x {:?}", x.shape);
        if value == width {
            return x;
        }
        let heads = rows * heads; // N H
        let y = self.tensor("take_heads", [rows, heads / rows * value]); // [N, H value]
        let params = Params { heads, width, value };
        self.dispatch(Forward { params, x, y });
        self.on_backward(y, move |g, d_y| {
            let d_x = g.like("d_take_heads", x); // [N, H w]
            g.dispatch(Backward { params, d_y, d_x });
            g.add_grad(x, d_x);
        });
        y
    }
}
