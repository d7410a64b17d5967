//! A bias for every row, and learned absolute positions, which are a bias for every sequence. Saves nothing: the
//! gradient of `x` is that of the sum, unchanged.

use super::{
    Graph,
    kernels::{add_bias, add_bias_cpu},
};
use crate::gpu::Tensor;

/// Rows that one invocation of `backward_bias` sums before the blocks' sums are added.
const BLOCK_ROWS: u32 = 64;
/// Texels and rows that a workgroup of the CPU kernel owns.
const CPU_TILE: [u32; 2] = [16, 16];

impl Graph {
    /// `x` [.., M] plus `b` [M] in every row.
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
        let reads_images = self.capabilities.reads_images(&[x, b]);
        // The portable kernels see rows of `period` rows each.
        let blocks = (rows / period).div_ceil(BLOCK_ROWS);
        let params = add_bias::Params { rows: rows / period, width: period * width, block_rows: BLOCK_ROWS, blocks };
        let cpu_params = add_bias_cpu::Params { rows, texels: width / 4, period };
        if reads_images {
            let grid = [cpu_params.texels / CPU_TILE[0], rows.div_ceil(CPU_TILE[1]), 1];
            self.dispatch_on(add_bias_cpu::Forward { params: cpu_params, image_x: x, image_b: b, y }, grid);
        } else {
            self.dispatch_on(add_bias::Forward { params, x, b, y }, [(rows * width).div_ceil(add_bias::Forward::WORKGROUP), 1, 1]);
        }
        self.on_backward(y, move |g, d_y| {
            if g.wants_grad(x) {
                g.add_grad(x, d_y);
            }
            if !g.wants_grad(b) {
                return;
            }
            let d_b = g.param_grad(b); // [C, D]
            if reads_images {
                use add_bias_cpu::BackwardBias;
                let grid = [cpu_params.texels.div_ceil(BackwardBias::WORKGROUP), period, 1];
                g.dispatch_on(BackwardBias { params: cpu_params, image_d_y: d_y.reshape([rows, width]), d_b }, grid);
            } else {
                use add_bias::{BackwardBias, ReduceBias};
                let columns = params.width.div_ceil(BackwardBias::WORKGROUP);
                let partial = g.tensor("add_bias.partial", [blocks, params.width]); // [B / block, T D]
                g.dispatch_on(BackwardBias { params, d_y, partial }, [columns, 1, blocks]);
                g.dispatch_on(ReduceBias { params, partial, d_b }, [columns, 1, 1]);
            }
        });
        y
    }
}
