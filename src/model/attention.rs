//! The attention branch of a block: fused projection, rotary positions, causal attention, output projection.

use super::{
    config::RopePairing,
    transformer::{Build, Weights},
};
use crate::{
    gpu::Tensor,
    ops::{Graph, Heads, Pairs, Rotation},
};

/// Attention over `x` [N, D], the normed stream.
pub(super) fn attention(g: &mut Graph, x: Tensor, w: &Weights, build: &Build) -> Tensor {
    let model = build.model;
    let heads = Heads { tokens: build.sequence_length, query: model.attention.heads, key_value: model.kv_heads(), width: model.head_width() };
    let pairs = match model.positions.pairing {
        RopePairing::Interleaved => Pairs::Interleaved,
        RopePairing::HalfSplit => Pairs::HalfSplit,
    };
    let rotation = Rotation { rotated: model.rope_width(), base: model.positions.base, pairs };
    let scale = 1.0 / (model.head_width() as f32).sqrt();
    let qkv = g.linear(x, w.get("attention.qkv.weight")); // [N, (H + 2 KV) hd]
    let (q, kv) = g.rope(qkv, heads, rotation); // [N, H hd], [N, 2 KV hd]
    let y = g.attention(q, kv, heads, scale, build.dropout(model.dropout.attention)); // [N, H hd]
    g.linear(y, w.get("attention.output.weight")) // [N, D]
}
