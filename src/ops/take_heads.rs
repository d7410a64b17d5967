//! Drops the padding of attention's heads, where values are narrower than queries (see [`super::LatentHeads`]). Saves
//! nothing.

use super::{
    Graph,
    kernels::{take_heads, take_heads_cpu},
};
use crate::gpu::Tensor;

impl Graph {
    /// The leading `value` channels of every head of `x` [N, H w]: [N, H value]. `x` itself where `value` is the whole
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
        match self.capabilities.flat_images([x, y]) {
            Some([image_x, _]) if width.is_multiple_of(4) && value.is_multiple_of(4) => {
                use take_heads_cpu::{Backward, Forward, Params};
                let params = Params { heads, width: width / 4, value: value / 4 };
                let grid = [heads.div_ceil(Forward::WORKGROUP), 1, 1];
                self.dispatch_on(Forward { params, x: image_x, y }, grid);
                self.on_backward(y, move |g, d_y| {
                    let [d_y] = g.capabilities.flat_images([d_y]).expect("d_y fits as y did");
                    let d_x = g.like("d_take_heads", x); // [N, H w]
                    g.dispatch_on(Backward { params, d_y, d_x }, grid);
                    g.add_grad(x, d_x);
                });
            }
            _ => {
                use take_heads::{Backward, Forward, Params};
                let params = Params { heads, width, value };
                self.dispatch_on(Forward { params, x, y }, [y.shape.len().div_ceil(Forward::WORKGROUP), 1, 1]);
                self.on_backward(y, move |g, d_y| {
                    let d_x = g.like("d_take_heads", x); // [N, H w]
                    g.dispatch_on(Backward { params, d_y, d_x }, [d_x.shape.len().div_ceil(Backward::WORKGROUP), 1, 1]);
                    g.add_grad(x, d_x);
                });
            }
        }
        y
    }
}
