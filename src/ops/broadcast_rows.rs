//! One row repeated for all rows: the initial states of a recursive model. Backward sums columns in a fixed order.

use super::{
    Graph,
    kernels::broadcast_rows::{Forward, Params},
};
use crate::gpu::{Role, Tensor};

impl Graph {
    /// Repeats `v` `[D]` for `rows` rows: [N, D]. `v` may be a parameter, an activation, or need no gradient.
    pub fn broadcast_rows(&mut self, v: Tensor, rows: u32) -> Tensor {
        let width = v.shape.len(); // D
        let y = self.tensor("broadcast_rows", [rows, width]); // [N, D]
        self.dispatch(Forward { params: Params { rows, width }, v: v.reshape([1, width]), y });
        self.on_backward(y, move |g, d_y| {
            let d_y = d_y.reshape([rows, width]);
            if g.program().tensor(v.id).role == Role::Parameter {
                let d_v = g.param_grad(v); // [D]
                g.add_column_sums(d_y, d_v, 1);
            } else {
                let d_v = g.zeros_like("d_broadcast_rows", v); // [D]
                g.add_column_sums(d_y, d_v, 1);
                g.add_grad(v, d_v);
            }
        });
        y
    }
}
