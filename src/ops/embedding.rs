//! Embedding: rows of a table, scaled. The gradient adds the rows of equal tokens in ascending order.

use super::{
    Graph,
    kernels::embedding::{BackwardWeight, BackwardWeightInOrder, Forward, Params, Sort},
};
use crate::gpu::Tensor;

impl Graph {
    /// Row `tokens[n]` of the parameter `w` [V, D], times `scale`, for every n: [N, D]. Tokens are below V.
    pub fn embedding(&mut self, tokens: Tensor, w: Tensor, scale: f32) -> Tensor {
        let [vocabulary, width] = w.shape.matrix("embedding w"); // V, D
        let rows = tokens.shape.len(); // N
        let y = self.tensor("embedding", [rows, width]); // [N, D]
        let params = Params { rows, width, vocabulary, scale };
        self.dispatch(Forward { params, tokens, w, y });
        self.on_backward(y, move |g, d_y| {
            let (d_y, d_w) = (d_y.reshape([rows, width]), g.param_grad(w)); // [N, D], [V, D]
            if g.try_dispatch(&BackwardWeightInOrder { params, tokens, d_y, d_w }) {
                return;
            }
            let order = g.tensor_u32("embedding.order", [rows]); // [N]
            let sorted = g.tensor_u32("embedding.sorted", [rows]); // [N]
            g.dispatch(Sort { params, tokens, order, sorted });
            g.dispatch(BackwardWeight { params, order, sorted, d_y, d_w });
        });
        y
    }
}
