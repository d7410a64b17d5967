//! Causal attention with grouped key-value heads, flash style (Dao, "FlashAttention-2", arXiv 2307.08691): the T x T
//! matrices exist as tiles in registers only. Saves the log-sum-exp of every row; backward computes scores and dropout
//! again, d_q by one kernel that owns queries, d_k and d_v by one that owns keys, so every sum has a fixed order.
//!
//! Dropout draws four keys at a time: element ((b H + h) T + i) ceil(T / 4) + j / 4, word j % 4 of its stream.

use super::{
    Graph,
    kernels::{attention, attention_cpu},
};
use crate::gpu::Tensor;

/// How the columns of a projection form heads, and its rows sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// T, tokens of a sequence.
    pub tokens: u32,
    /// H, query heads.
    pub query: u32,
    /// KV, key-value heads; each serves H / KV query heads in a row.
    pub key_value: u32,
    /// hd, channels of a head.
    pub width: u32,
}

impl Heads {
    /// The widest head that the kernels hold in registers.
    pub const MAX_WIDTH: u32 = 128;
}

/// Rows of queries (or keys) that a workgroup owns, in both tiers.
const TILE: u32 = 32;
/// Channels that a workgroup of the portable `backward_key` sums.
const PORTABLE_SLICE: u32 = 64;
/// Texels of a head that an invocation of the CPU tier sums.
const CPU_SLICE: u32 = 16;

impl Graph {
    /// softmax(scale q k^T, causal) v of every head, with `q` [B T, H hd] and `kv` [B T, 2 KV hd] (k heads, then v
    /// heads) as [`Graph::rope`] gives them: y [B T, H hd]. `scale` is 1 / sqrt(hd) in the textbook. `dropout` in
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
        let call = Attention { q, kv, y, lse, heads, scale, dropout, stream, batch: rows / tokens };
        if width % 4 == 0 && self.capabilities.reads_images(&[q, kv, lse]) {
            call.record_cpu(self);
        } else {
            call.record_portable(self);
        }
        y
    }
}

/// One use of attention, its operands and options.
#[derive(Clone, Copy)]
struct Attention {
    q: Tensor,
    kv: Tensor,
    y: Tensor,
    lse: Tensor,
    heads: Heads,
    batch: u32,
    scale: f32,
    dropout: f32,
    stream: u32,
}

impl Attention {
    fn record_portable(self, g: &mut Graph) {
        let Attention { q, kv, y, lse, heads, batch, scale, dropout, stream } = self;
        let params = attention::Params {
            tokens: heads.tokens,
            heads: heads.query,
            kv_heads: heads.key_value,
            width: heads.width,
            stride: lse.shape.last(),
            stream,
            scale,
            dropout,
        };
        let blocks = heads.tokens.div_ceil(TILE);
        let query_grid = [blocks, heads.query, batch];
        let key_grid = [blocks, heads.key_value, batch * heads.width.div_ceil(PORTABLE_SLICE)];
        g.dispatch_on(attention::Forward { params, q, kv, y, lse }, query_grid);
        g.on_backward(y, move |g, d_y| {
            let (d_q, d_kv, dot_rows) = self.gradients(g);
            let (saved_y, saved_lse) = (y, lse);
            g.dispatch_on(attention::BackwardQuery { params, q, kv, saved_y, saved_lse, d_y, dot_rows, d_q }, query_grid);
            g.dispatch_on(attention::BackwardKey { params, q, kv, saved_lse, d_y, saved_dot: dot_rows, d_kv }, key_grid);
            g.add_grad(q, d_q);
            g.add_grad(kv, d_kv);
        });
    }

    fn record_cpu(self, g: &mut Graph) {
        let Attention { q, kv, y, lse, heads, batch, scale, dropout, stream } = self;
        let width = heads.width / 4; // texels
        let slices = width.div_ceil(CPU_SLICE);
        let params = attention_cpu::Params {
            tokens: heads.tokens,
            heads: heads.query,
            kv_heads: heads.key_value,
            width,
            slices,
            stride: lse.shape.last() / 4,
            stream,
            scale,
            dropout,
        };
        let (slice, drops) = (width.div_ceil(slices), u32::from(dropout > 0.0));
        let blocks = heads.tokens.div_ceil(TILE);
        let query_grid = [blocks, heads.query, batch * slices];
        let key_grid = [blocks, heads.key_value, batch * slices];
        g.dispatch_on(attention_cpu::Forward { params, slice, drops, q, kv, y, lse }, query_grid);
        g.on_backward(y, move |g, d_y| {
            let (d_q, d_kv, dot_rows) = self.gradients(g);
            let (saved_y, saved_lse) = (y, lse);
            let query = attention_cpu::BackwardQuery { params, slice, drops, q, kv, saved_y, saved_lse, d_y, dot_rows, d_q };
            g.dispatch_on(query, query_grid);
            let saved_dot = dot_rows;
            let key = attention_cpu::BackwardKey { params, slice, drops, q, kv, saved_lse, d_y, saved_dot, d_kv };
            g.dispatch_on(key, key_grid);
            g.add_grad(q, d_q);
            g.add_grad(kv, d_kv);
        });
    }

    /// d_q [N, H hd], d_kv [N, 2 KV hd] and the row products d_y . y [B H, T or more].
    fn gradients(self, g: &mut Graph) -> (Tensor, Tensor, Tensor) {
        (g.like("d_q", self.q), g.like("d_kv", self.kv), g.like("attention.dot", self.lse))
    }
}
