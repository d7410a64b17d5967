//! Column sums of a gradient, in a fixed order: the gradient of a row that is broadcast.

use super::{
    Graph,
    kernels::column_sums::{BLOCK_ROWS, BlockSums, Params, Reduce, SumsInOrder},
};
use crate::gpu::Tensor;

impl Graph {
    /// `sums` [P, D] += of every row i the sum of the rows n of `x` [N, D] with n % P = i, P = `period`.
    pub fn add_column_sums(&mut self, x: Tensor, sums: Tensor, period: u32) {
        let [rows, width] = x.shape.matrix("column_sums x"); // N, D
        let blocks = (rows / period).div_ceil(BLOCK_ROWS);
        let params = Params { rows, width, period, blocks };
        if self.try_dispatch(&SumsInOrder { params, x, sums }) {
            return;
        }
        let partial = self.tensor("column_sums.partial", [blocks, period * width]); // [N / P / block, P D]
        self.dispatch(BlockSums { params, x, partial });
        self.dispatch(Reduce { params, saved_partial: partial, sums });
    }
}
