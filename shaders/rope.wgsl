// Rotary positions (Su et al., arXiv 2104.09864) and the split of the packed projection, N rows of T-token sequences:
//   qkv [N, (H + 2 KV) hd] = q heads, k heads, v heads  ->  q [N, H hd], kv [N, 2 KV hd] = k heads, v heads
// In every q and k head the leading `rotated` channels turn in pairs (a, b) by position * base^(-2 i / rotated):
//   a' = a cos - b sin        b' = b cos + a sin        position = row % T
// Pair i is (2 i, 2 i + 1) when interleaved, (i, i + rotated / 2) when half-split. Other channels and v pass through.
// angles [T, rotated / 2, 2] = (cos, sin) comes from the host. Backward turns by -sin and joins d_q, d_kv to d_qkv.

import package::lib::index::flat_workgroup;
import package::lib::rotation::pairing;

struct Params {
    rows: u32,          // N
    tokens: u32,        // T
    heads: u32,         // H + 2 KV
    q_heads: u32,       // H
    turned_heads: u32,  // H + KV
    width: u32,         // hd
    rotated: u32,
    half_split: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> angles: array<f32>;
@group(0) @binding(2) var<storage, read> qkv: array<f32>;
@group(0) @binding(3) var<storage, read_write> q: array<f32>;
@group(0) @binding(4) var<storage, read_write> kv: array<f32>;
@group(0) @binding(5) var<storage, read> d_q: array<f32>;
@group(0) @binding(6) var<storage, read> d_kv: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_qkv: array<f32>;

fn row_width() -> u32 {
    return params.heads * params.width;
}

fn q_width() -> u32 {
    return params.q_heads * params.width;
}

// One element's rotation: x' = x cosine + x[partner] sine.
struct Turn {
    cosine: f32,
    sine: f32,
    partner: u32, // column
}

fn turn_of(row: u32, column: u32) -> Turn {
    let channel = column % params.width;
    if (channel >= params.rotated || column / params.width >= params.turned_heads) {
        return Turn(1.0, 0.0, column);
    }
    let turned = pairing(channel, params.rotated, params.half_split != 0u);
    let angle = ((row % params.tokens) * (params.rotated / 2u) + turned.pair) * 2u;
    return Turn(angles[angle], turned.sign * angles[angle + 1u], column - channel + turned.partner);
}

// An invocation owns one element of qkv.
// grid: rows * heads * width / 64
@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * 64u + local;
    if (i >= params.rows * row_width()) {
        return;
    }
    let row = i / row_width();
    let column = i % row_width();
    let turn = turn_of(row, column);
    let value = qkv[i] * turn.cosine + qkv[row * row_width() + turn.partner] * turn.sine;
    if (column < q_width()) {
        q[row * q_width() + column] = value;
    } else {
        kv[row * (row_width() - q_width()) + column - q_width()] = value;
    }
}

fn joined(row: u32, column: u32) -> f32 {
    if (column < q_width()) {
        return d_q[row * q_width() + column];
    }
    return d_kv[row * (row_width() - q_width()) + column - q_width()];
}

// An invocation owns one element of d_qkv.
// grid: rows * heads * width / 64
@compute @workgroup_size(64)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * 64u + local;
    if (i >= params.rows * row_width()) {
        return;
    }
    let row = i / row_width();
    let column = i % row_width();
    let turn = turn_of(row, column);
    d_qkv[i] = joined(row, column) * turn.cosine - joined(row, turn.partner) * turn.sine;
}
