//! The heads of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): joins the parts with and without positions,
//! rotates the former, copies the key's shared rotary part to every head, and pads to the common width that
//! [`Graph::attention`] expects. Saves nothing.
//!
//! Implementations that sort interleaved pairs into halves before the rotation permute queries and keys in the same way,
//! which does not change the scores.

use super::{
    Graph, Heads, RopePairing, Rotation,
    kernels::latent_heads::{BackwardKeyRope, BackwardKeyValue, BackwardQuery, ForwardKeyValue, ForwardQuery, Params},
};
use crate::gpu::Tensor;

/// How the columns of the projections of latent attention form heads, and their rows sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatentHeads {
    /// T, tokens of a sequence.
    pub tokens: u32,
    /// H, heads.
    pub heads: u32,
    /// Channels of a query or key head without positions; may be 0.
    pub nope: u32,
    /// Channels of a query head, and of the key that all heads share, with rotary positions; even.
    pub rope: u32,
    /// Channels of a value head.
    pub value: u32,
}

impl LatentHeads {
    /// w, the common width of attention's heads: the maximum of query and value heads, rounded up to whole texels.
    pub fn width(self) -> u32 {
        (self.nope + self.rope).max(self.value).next_multiple_of(4)
    }

    /// The heads for attention.
    pub fn packed(self) -> Heads {
        Heads { tokens: self.tokens, query: self.heads, key_value: self.heads, width: self.width() }
    }

    /// The usual scale of scores, 1 / sqrt(nope + rope), without padding.
    pub fn scale(self) -> f32 {
        1.0 / ((self.nope + self.rope) as f32).sqrt()
    }
}

impl Graph {
    /// Packs `q` [B T, H (nope + rope)], `kv` [B T, H (nope + value)] (a head's key, then its value) and `k_rope`
    /// [B T, rope] into q [B T, H w] and kv [B T, 2 H w] for [`Graph::attention`] over `shape.packed()`; w is
    /// `shape.width()`. `rotation` rotates the leading channels of the rope parts, usually all.
    pub fn latent_heads(&mut self, q: Tensor, kv: Tensor, k_rope: Tensor, shape: LatentHeads, rotation: Rotation) -> (Tensor, Tensor) {
        let LatentHeads { tokens, heads, nope, rope, value } = shape;
        let [rows, _] = q.shape.matrix("latent_heads q"); // N
        let width = shape.width(); // w
        let wanted = [[rows, heads * (nope + rope)], [rows, heads * (nope + value)], [rows, rope]];
        let found = [q, kv, k_rope].map(|t| t.shape.matrix("latent_heads"));
        assert!(found == wanted && rows % tokens == 0, "latent_heads: q, kv, k_rope {found:?} against {shape:?}");
        assert!(width <= Heads::MAX_WIDTH, "latent_heads: {shape:?} has heads of {width} channels, at most {}", Heads::MAX_WIDTH);
        let is_even = rope % 2 == 0 && rotation.rotated.is_multiple_of(2);
        assert!(is_even && rotation.rotated <= rope, "latent_heads: {rotation:?} against {shape:?}");
        let angles = self.angle_table(rotation, tokens); // [T, rotated / 2, 2]
        let packed_q = self.tensor("q", [rows, heads * width]); // [N, H w]
        let packed_kv = self.tensor("kv", [rows, 2 * heads * width]); // [N, 2 H w]
        let half_split = u32::from(rotation.pairs == RopePairing::HalfSplit);
        let params = Params { rows, tokens, heads, nope, rope, value, width, rotated: rotation.rotated, half_split };
        self.dispatch(ForwardQuery { params, angles, q, packed_q });
        self.dispatch(ForwardKeyValue { params, angles, kv, k_rope, packed_kv });
        self.on_backward(packed_q, move |g, d_packed_q| {
            let d_q = g.like("d_latent.q", q); // [N, H (nope + rope)]
            g.dispatch(BackwardQuery { params, angles, d_packed_q, d_q });
            g.add_grad(q, d_q);
        });
        self.on_backward(packed_kv, move |g, d_packed_kv| {
            let d_kv = g.like("d_latent.kv", kv); // [N, H (nope + value)]
            let d_k_rope = g.like("d_latent.k_rope", k_rope); // [N, rope]
            g.dispatch(BackwardKeyValue { params, d_packed_kv, d_kv });
            g.dispatch(BackwardKeyRope { params, angles, d_packed_kv, d_k_rope });
            g.add_grad(kv, d_kv);
            g.add_grad(k_rope, d_k_rope);
        });
        (packed_q, packed_kv)
    }
}
