//! Embedding: rows of a table, scaled. The gradient adds the rows of equal tokens in ascending order.

use super::{
    Graph,
    kernels::{embedding, embedding_cpu},
};
use crate::gpu::Tensor;

/// Texels and rows that a workgroup of the CPU kernels owns.
const CPU_TILE: [u32; 2] = [16, 16];

impl Graph {
    /// Row `tokens[n]` of the parameter `w` [V, D], times `scale`, for every n: [N, D]. Tokens are below V.
    pub fn embedding(&mut self, tokens: Tensor, w: Tensor, scale: f32) -> Tensor {
        let [vocabulary, width] = w.shape.matrix("embedding w"); // V, D
        let y = self.tensor("embedding", [tokens.shape.len(), width]); // [N, D]
        if self.capabilities.reads_images(&[w, y]) {
            self.embedding_cpu(tokens, w, y, scale);
            return y;
        }
        use embedding::{BackwardWeight, Forward, Params, Sort};
        let rows = tokens.shape.len(); // N
        let params = Params { rows, width, vocabulary, scale };
        self.dispatch_on(Forward { params, tokens, w, y }, [(rows * width).div_ceil(Forward::WORKGROUP), 1, 1]);
        self.on_backward(y, move |g, d_y| {
            let order = g.tensor_u32("embedding.order", [rows]); // [N]
            let sorted = g.tensor_u32("embedding.sorted", [rows]); // [N]
            let d_w = g.param_grad(w); // [V, D]
            g.dispatch_on(Sort { params, tokens, order, sorted }, [rows.div_ceil(Sort::WORKGROUP), 1, 1]);
            let blocks = rows * width.div_ceil(BackwardWeight::WORKGROUP);
            g.dispatch_on(BackwardWeight { params, order, sorted, d_y, d_w }, [blocks, 1, 1]);
        });
        y
    }

    fn embedding_cpu(&mut self, tokens: Tensor, w: Tensor, y: Tensor, scale: f32) {
        use embedding_cpu::{BackwardWeight, Forward, Params};
        let [vocabulary, width] = w.shape.matrix("embedding w"); // V, D
        let rows = tokens.shape.len(); // N
        let params = Params { rows, texels: width / 4, vocabulary, scale };
        let grid = [params.texels / CPU_TILE[0], rows.div_ceil(CPU_TILE[1]), 1];
        self.dispatch_on(Forward { params, tokens, image_w: w, y }, grid);
        self.on_backward(y, move |g, d_y| {
            let image_d_y = d_y.reshape([rows, width]);
            let d_w = g.param_grad(w); // [V, D]
            let grid = [params.texels.div_ceil(BackwardWeight::WORKGROUP), 1, 1];
            g.dispatch_on(BackwardWeight { params, tokens, image_d_y, d_w }, grid);
        });
    }
}
