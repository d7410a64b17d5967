//! Causal attention with grouped key-value heads, flash style (Dao, "FlashAttention-2", arXiv 2307.08691): the T x T
//! matrices exist only as tiles in registers. Saves the log-sum-exp of every row; backward recomputes scores and dropout,
//! with one kernel over queries for d_q and one over keys for d_k and d_v, so every sum has a fixed order.
//!
//! Dropout uses one counter for four keys: element ((b H + h) T + i) ceil(T / 4) + j / 4, word j % 4 of its stream.

use super::{
    Graph,
    kernels::attention::{BackwardKey, BackwardQuery, Forward, Params, SLICE},
};
use crate::gpu::Tensor;

/// How the columns of a projection form heads, and its rows sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// T, tokens of a sequence.
    pub tokens: u32,
    /// H, query heads.
    pub query: u32,
    /// KV, key-value heads; each is shared by H / KV consecutive query heads.
    pub key_value: u32,
    /// hd, channels of a head.
    pub width: u32,
}

impl Heads {
    /// The maximum head width that the kernels keep in registers.
    pub const MAX_WIDTH: u32 = 128;
}

impl Graph {
    /// softmax(scale q k^T, causal) v of every head, with `q` [B T, H hd] and `kv` [B T, 2 KV hd] (k heads, then v
    /// heads) as [`Graph::rope`] returns them: y [B T, H hd]. `scale` is usually 1 / sqrt(hd). `dropout` in
    /// [0, 1) zeroes probabilities and scales the others up.
    pub fn attention(&mut self, q: Tensor, kv: Tensor, heads: Heads, scale: f32, dropout: f32) -> Tensor {
        let [rows, q_width] = q.shape.matrix("attention q");
        let Heads { tokens, width, .. } = heads;
        let matches = q_width == heads.query * width && kv.shape.matrix("attention kv") == [rows, 2 * heads.key_value * width];
        assert!(matches && rows % tokens == 0, "attention: q {:?}, kv {:?} against {heads:?}", q.shape, kv.shape);
        assert!(width <= Heads::MAX_WIDTH && heads.query.is_multiple_of(heads.key_value), "attention: {heads:?}");
        let head_rows = rows / tokens * heads.query; // B H
        let draws = u64::from(head_rows) * u64::from(tokens) * u64::from(tokens.div_ceil(4));
        assert!((0.0..1.0).contains(&dropout) && draws < 1 << 32, "attention: dropout {dropout} of {draws} x 4 probabilities");
        let y = self.like("attention", q); // [N, H hd]
        let lse = self.tensor("attention.lse", [head_rows, tokens.next_multiple_of(64)]); // [B H, T or more]
        let stream = self.next_stream();
        let slices = width.div_ceil(SLICE);
        let (query, key_value, stride) = (heads.query, heads.key_value, lse.shape.last());
        let params = Params { tokens, heads: query, kv_heads: key_value, width, slices, stride, stream, scale, dropout };
        // Pipeline constants: the texels of the slice kept in registers, and whether there is dropout.
        let (texels, slice, drops) = (width / 4, (width / 4).div_ceil(slices), u32::from(dropout > 0.0));
        self.dispatch(Forward { params, texels, slice, drops, q, kv, y, lse });
        self.on_backward(y, move |g, d_y| {
            let (d_q, d_kv) = (g.like("d_q", q), g.like("d_kv", kv)); // [N, H hd], [N, 2 KV hd]
            let dot_rows = g.like("attention.dot", lse); // d_y . y [B H, T or more]
            let (saved_y, saved_lse, saved_dot) = (y, lse, dot_rows);
            g.dispatch(BackwardQuery { params, texels, slice, drops, q, kv, saved_y, saved_lse, d_y, dot_rows, d_q });
            g.dispatch(BackwardKey { params, texels, slice, drops, q, kv, saved_lse, d_y, saved_dot, d_kv });
            g.add_grad(q, d_q);
            g.add_grad(kv, d_kv);
        });
        y
    }
}
