//! Rotary positions (Su et al., arXiv 2104.09864), together with the split of the packed projection that attention
//! reads. Saves nothing: the backward rotates the gradients back and joins them.
//!
//! Cosines and sines come from a table that the host computes in f64, so that results do not depend on a driver's trigonometry.

use super::{
    Graph, Heads,
    kernels::rope::{Backward, Forward, Params},
};
use crate::choices::RopePairing;
use crate::gpu::Tensor;

/// How heads are rotated by position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotation {
    /// Leading channels of a head that are rotated; even; 0 = none.
    pub rotated: u32,
    /// Pair i is rotated by position * base^(-2i / rotated).
    pub base: f64,
    /// Which channels form a pair.
    pub pairs: RopePairing,
}

impl Rotation {
    /// No rotation: `rope` only splits.
    pub const NONE: Rotation = Rotation { rotated: 0, base: 1.0, pairs: RopePairing::Interleaved };

    /// (cos, sin) of every position and pair, [tokens, rotated / 2, 2].
    pub fn angles(&self, tokens: u32) -> Vec<f32> {
        let pairs = self.rotated / 2;
        (0..tokens * pairs)
            .flat_map(|i| {
                let (position, pair) = (f64::from(i / pairs), f64::from(i % pairs));
                let angle = position * self.base.powf(-2.0 * pair / f64::from(self.rotated));
                [angle.cos() as f32, angle.sin() as f32]
            })
            .collect()
    }
}

/// Rows of the angle table's image.
const ANGLE_ROW: u32 = 64;

impl Graph {
    /// Rotates the q and k heads of `qkv` [B T, (H + 2 KV) hd] by their positions, row % T, and splits it into
    /// q [B T, H hd] and kv [B T, 2 KV hd] (k heads, then v heads).
    pub fn rope(&mut self, qkv: Tensor, heads: Heads, rotation: Rotation) -> (Tensor, Tensor) {
        let [rows, row_width] = qkv.shape.matrix("rope qkv");
        let Heads { tokens, width, .. } = heads;
        let (q_width, kv_width) = (heads.query * width, 2 * heads.key_value * width);
        assert_eq!(row_width, q_width + kv_width, "rope: qkv {:?} against {heads:?}", qkv.shape);
        assert_eq!(rows % tokens, 0, "rope: qkv {:?} against {heads:?}", qkv.shape);
        assert!(rotation.rotated.is_multiple_of(2) && rotation.rotated <= width, "rope: {rotation:?} against {heads:?}");
        let angles = self.angle_table(rotation, tokens);
        let q = self.tensor("q", [rows, q_width]); // [N, H hd]
        let kv = self.tensor("kv", [rows, kv_width]); // [N, 2 KV hd]
        let params = Params {
            rows,
            tokens,
            heads: heads.query + 2 * heads.key_value,
            q_heads: heads.query,
            turned_heads: heads.query + heads.key_value,
            width,
            rotated: rotation.rotated,
            half_split: u32::from(rotation.pairs == RopePairing::HalfSplit),
        };
        self.dispatch(Forward { params, angles, qkv, q, kv });
        self.on_backward_many(&[q, kv], move |g, gradients| {
            let d_q = gradients[0].unwrap_or_else(|| g.zeros_like("d_q", q)); // [N, H hd]
            let d_kv = gradients[1].unwrap_or_else(|| g.zeros_like("d_kv", kv)); // [N, 2 KV hd]
            let d_qkv = g.like("d_qkv", qkv); // [N, (H + 2 KV) hd]
            g.dispatch(Backward { params, angles, d_q, d_kv, d_qkv });
            g.add_grad(qkv, d_qkv);
        });
        (q, kv)
    }

    /// The table of a rotation, one for all layers, padded to whole rows of an image.
    pub(super) fn angle_table(&mut self, rotation: Rotation, tokens: u32) -> Tensor {
        let name = format!("rope.angles.{tokens}.{}.{}", rotation.rotated, rotation.base);
        self.find(&name).unwrap_or_else(|| {
            let rows = (tokens * rotation.rotated).div_ceil(ANGLE_ROW).max(1);
            let mut values = rotation.angles(tokens);
            values.resize((rows * ANGLE_ROW) as usize, 0.0);
            self.constant(&name, [rows, ANGLE_ROW], values)
        })
    }
}
