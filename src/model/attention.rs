//! The attention branch of a block: queries, keys and values, positions, causal attention, output projection.

use super::build::{Build, Weights};
use crate::run::model::{AttentionKind, PositionKind};
use crate::{
    gpu::Tensor,
    ops::{Graph, Heads, LatentHeads, Rotation},
};

/// Attention over `x` [N, D], the normed stream.
pub(super) fn attention(g: &mut Graph, x: Tensor, w: &Weights, build: &Build) -> Tensor {
    let w = w.below("attention.");
    let y = match build.model.attention.kind {
        AttentionKind::Heads => heads(g, x, &w, build),   // [N, H hd]
        AttentionKind::Latent => latent(g, x, &w, build), // [N, H value]
    };
    let y = match w.find("gate.weight") {
        Some(gate) => {
            let gate = g.linear(x, gate); // [N, H hd]
            g.sigmoid_gate(y, gate) // [N, H hd]
        }
        None => y,
    };
    linear(g, y, &w, "output") // [N, D]
}

/// x w^T, plus a bias where there is one.
fn linear(g: &mut Graph, x: Tensor, w: &Weights, name: &str) -> Tensor {
    let y = g.linear(x, w.get(&format!("{name}.weight")));
    match w.find(&format!("{name}.bias")) {
        Some(bias) => g.add_bias(y, bias),
        None => y,
    }
}

/// The rotary positions of queries and keys, over the leading `width` dimensions.
fn rotation(build: &Build, width: u32) -> Rotation {
    let positions = &build.model.positions;
    match positions.kind {
        PositionKind::Rope => Rotation { rotated: width, base: positions.base, pairs: positions.pairing },
        PositionKind::Learned | PositionKind::Unmarked => Rotation::NONE,
    }
}

/// Multi-head attention with a fused projection, heads of keys and values possibly fewer.
fn heads(g: &mut Graph, x: Tensor, w: &Weights, build: &Build) -> Tensor {
    let model = build.model;
    let heads =
        Heads { tokens: build.sequence_length, query: model.attention.heads, key_value: model.kv_heads(), width: model.head_width() };
    let mut qkv = linear(g, x, w, "qkv"); // [N, (H + 2 KV) hd]
    if model.attention.qk_norm {
        let (q_norm, k_norm) = (w.get("q_norm.weight"), w.get("k_norm.weight"));
        qkv = g.head_norm(qkv, q_norm, k_norm, heads, model.norm.eps as f32); // [N, (H + 2 KV) hd]
    }
    let (q, kv) = g.rope(qkv, heads, rotation(build, model.rope_width())); // [N, H hd], [N, 2 KV hd]
    let scale = 1.0 / (model.head_width() as f32).sqrt();
    g.attention(q, kv, heads, scale, build.dropout(model.dropout.attention)) // [N, H hd]
}

/// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values are made from a narrow latent, and one key of
/// `rope_width` dimensions carries the position for all heads.
fn latent(g: &mut Graph, x: Tensor, w: &Weights, build: &Build) -> Tensor {
    let (model, options) = (build.model, &build.model.attention.latent);
    let (h, eps) = (model.attention.heads, options.eps as f32);
    let q = match options.query_rank {
        0 => linear(g, x, w, "query"), // [N, H (nope + rope)]
        _ => {
            let down = linear(g, x, w, "query_down"); // [N, query rank]
            let down = g.rms_norm(down, w.get("query_norm.weight"), eps); // [N, query rank]
            linear(g, down, w, "query_up") // [N, H (nope + rope)]
        }
    };
    let down = linear(g, x, w, "kv_down"); // [N, kv rank + rope]
    let (latent, k_rope) = g.split_columns(down, options.kv_rank); // [N, kv rank], [N, rope]
    let latent = g.rms_norm(latent, w.get("kv_norm.weight"), eps); // [N, kv rank]
    let kv = linear(g, latent, w, "kv_up"); // [N, H (nope + value)]
    let shape = LatentHeads {
        tokens: build.sequence_length,
        heads: h,
        nope: options.nope_width,
        rope: options.rope_width,
        value: options.value_width,
    };
    let (q, kv) = g.latent_heads(q, kv, k_rope, shape, rotation(build, options.rope_width)); // [N, H w], [N, 2 H w]
    let heads = Heads { tokens: build.sequence_length, query: h, key_value: h, width: shape.width() };
    let scale = 1.0 / ((options.nope_width + options.rope_width) as f32).sqrt();
    let y = g.attention(q, kv, heads, scale, build.dropout(model.dropout.attention)); // [N, H w]
    g.take_heads(y, h, shape.width(), options.value_width) // [N, H value]
}
