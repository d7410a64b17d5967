//! One row repeated for all rows: the initial states of a recursive model. Backward sums columns in a fixed order.

use super::{
    Graph,
    kernels::{broadcast_rows, broadcast_rows_cpu},
};
use crate::gpu::{Role, Tensor};

/// Rows that one invocation of the portable `backward` sums before the blocks' sums are added.
const BLOCK_ROWS: u32 = 64;
/// Rows and columns of texels that a workgroup of the CPU kernels owns.
const CPU_TILE: [u32; 2] = [16, 16];

impl Graph {
    /// `v` [D] in every one of `rows` rows: [N, D]. `v` may be a parameter, an activation, or need no gradient.
    pub fn broadcast_rows(&mut self, v: Tensor, rows: u32) -> Tensor {
        let width = v.shape.len(); // D
        let y = self.tensor("broadcast_rows", [rows, width]); // [N, D]
        let image_v = v.reshape([1, width]);
        if self.capabilities.reads_images(&[image_v, y]) {
            use broadcast_rows_cpu::{Backward, Forward, Params};
            let params = Params { rows, texels: width / 4 };
            let columns = params.texels / CPU_TILE[0];
            self.dispatch_on(Forward { params, image_v, y }, [columns, rows.div_ceil(CPU_TILE[1]), 1]);
            self.sum_rows(v, y, move |g, d_y, d_v| g.dispatch_on(Backward { params, image_d_y: d_y, d_v }, [columns, 1, 1]));
        } else {
            use broadcast_rows::{Backward, Forward, Params, Reduce};
            let blocks = rows.div_ceil(BLOCK_ROWS);
            let params = Params { rows, width, block_rows: BLOCK_ROWS, blocks };
            self.dispatch_on(Forward { params, v, y }, [(rows * width).div_ceil(Forward::WORKGROUP), 1, 1]);
            self.sum_rows(v, y, move |g, d_y, d_v| {
                let partial = g.tensor("broadcast_rows.partial", [blocks, width]); // [N / block, D]
                let columns = width.div_ceil(Backward::WORKGROUP);
                g.dispatch_on(Backward { params, d_y, partial }, [columns, blocks, 1]);
                g.dispatch_on(Reduce { params, partial, d_v }, [columns, 1, 1]);
            });
        }
        y
    }

    /// Records the backward; `accumulate` adds the column sums of d_y to d_v.
    fn sum_rows(&mut self, v: Tensor, y: Tensor, accumulate: impl FnOnce(&mut Graph, Tensor, Tensor) + 'static) {
        self.on_backward(y, move |g, d_y| {
            if g.program().tensor(v.id).role == Role::Parameter {
                let d_v = g.param_grad(v); // [D]
                accumulate(g, d_y, d_v);
            } else {
                let d_v = g.zeros_like("d_broadcast_rows", v); // [D]
                accumulate(g, d_y, d_v);
                g.add_grad(v, d_v);
            }
        });
    }
}
