//! A bias for every row, and learned absolute positions, which are a bias for every sequence. Saves nothing: the
//! gradient of `x` is that of the sum, unchanged.

use super::{
    Graph,
    kernels::add_bias::{Forward, Params},
};
use crate::gpu::Tensor;

impl Graph {
    /// `x` [.., M] plus `b` `[M]` in every row.
    pub fn add_bias(&mut self, x: Tensor, b: Tensor) -> Tensor {
        let [_, width] = x.shape.matrix("add_bias x"); // N, M
        assert_eq!(b.shape.len(), width, "add_bias: b {:?} against x {:?}", b.shape, x.shape);
        self.add_rows("add_bias", x, b.reshape([1, width]), 1)
    }

    /// Row n of `x` [B T, D] plus row n % T of `table` [C, D], its position in a sequence of T = `tokens` <= C.
    pub fn add_positions(&mut self, x: Tensor, table: Tensor, tokens: u32) -> Tensor {
        let [rows, width] = x.shape.matrix("add_positions x"); // N, D
        let [context, table_width] = table.shape.dims("add_positions table"); // C, D
        let fits = table_width == width && tokens <= context && rows % tokens == 0;
        assert!(fits, "add_positions: table {:?} for {tokens} tokens of x {:?}", table.shape, x.shape);
        self.add_rows("add_positions", x, table, tokens)
    }

    /// Row n of `x` plus row n % `period` of `b`.
    fn add_rows(&mut self, name: &str, x: Tensor, b: Tensor, period: u32) -> Tensor {
        let [rows, width] = x.shape.matrix(name); // N, D
        let y = self.like(name, x); // [N, D]
        self.dispatch(Forward { params: Params { rows, width, period }, x, b, y });
        self.on_backward(y, move |g, d_y| {
            if g.wants_grad(x) {
                g.add_grad(x, d_y);
            }
            if g.wants_grad(b) {
                let d_b = g.param_grad(b); // [C, D]
                g.add_column_sums(d_y.reshape([rows, width]), d_b, period);
            }
        });
        y
    }
}
