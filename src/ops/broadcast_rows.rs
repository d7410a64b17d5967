//! One row repeated for all rows: the initial states of a recursive model. Backward sums columns in a fixed order.

use super::{
    Graph,
    kernels::broadcast_rows::{Backward, Forward, Params, Reduce},
};
use crate::gpu::{Role, Tensor};

/// Rows that one invocation of `backward` sums before the blocks' sums are added.
const BLOCK_ROWS: u32 = 64;

impl Graph {
    /// `v` [D] in every one of `rows` rows: [N, D]. `v` may be a parameter, an activation, or need no gradient.
    pub fn broadcast_rows(&mut self, v: Tensor, rows: u32) -> Tensor {
        let width = v.shape.len(); // D
        let blocks = rows.div_ceil(BLOCK_ROWS);
        let params = Params { rows, width, block_rows: BLOCK_ROWS, blocks };
        let y = self.tensor("broadcast_rows", [rows, width]); // [N, D]
        self.dispatch(Forward { params, v, y }, [(rows * width).div_ceil(Forward::WORKGROUP), 1, 1]);
        self.on_backward(y, move |g, d_y| {
            let is_param = g.program().tensor(v.id).role == Role::Parameter;
            let d_v = if is_param { g.param_grad(v) } else { g.zeros_like("d_broadcast_rows", v) }; // [D]
            let partial = g.tensor("broadcast_rows.partial", [blocks, width]); // [N / block, D]
            let columns = width.div_ceil(Backward::WORKGROUP);
            g.dispatch(Backward { params, d_y, partial }, [columns, blocks, 1]);
            g.dispatch(Reduce { params, partial, d_v }, [columns, 1, 1]);
            if !is_param {
                g.add_grad(v, d_v);
            }
        });
        y
    }
}
