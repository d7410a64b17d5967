// Heads of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1), N rows of T-token sequences:
//   q [N, H (nope + rope)], kv [N, H (nope + value)], k_rope [N, rope]
//   ->  packed_q [N, H w] = q heads, packed_kv [N, 2 H w] = k heads, v heads, of one width w
//   q head = [q nope | R q rope | 0]     k head = [kv nope | R k_rope | 0]     v head = [kv value | 0]
// All k heads share k_rope. R turns the leading `rotated` of the rope channels as rope.wgsl does; zeros fill up to w.
// Backward turns by -sin; d_k_rope adds the heads in ascending order.

import package::lib::index::flat_workgroup;
import package::lib::rotation::pairing;

struct Params {
    rows: u32,      // N
    tokens: u32,    // T
    heads: u32,     // H
    nope: u32,
    rope: u32,
    value: u32,
    width: u32,     // w
    rotated: u32,
    half_split: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> angles: array<f32>;
@group(0) @binding(2) var<storage, read> q: array<f32>;
@group(0) @binding(3) var<storage, read> kv: array<f32>;
@group(0) @binding(4) var<storage, read> k_rope: array<f32>;
@group(0) @binding(5) var<storage, read_write> packed_q: array<f32>;
@group(0) @binding(6) var<storage, read_write> packed_kv: array<f32>;
@group(0) @binding(7) var<storage, read> d_packed_q: array<f32>;
@group(0) @binding(8) var<storage, read> d_packed_kv: array<f32>;
@group(0) @binding(9) var<storage, read_write> d_q: array<f32>;
@group(0) @binding(10) var<storage, read_write> d_kv: array<f32>;
@group(0) @binding(11) var<storage, read_write> d_k_rope: array<f32>;

const INVOCATIONS = 64u;

// One rope channel's rotation: x' = x cosine + x[partner] sine.
struct Turn {
    cosine: f32,
    sine: f32,
    partner: u32, // rope channel
}

// First angle of a row's position and of a pair.
fn angle_of(row: u32, pair: u32) -> u32 {
    return ((row % params.tokens) * (params.rotated / 2u) + pair) * 2u;
}

fn turn_of(row: u32, channel: u32) -> Turn {
    if (channel >= params.rotated) {
        return Turn(1.0, 0.0, channel);
    }
    let turned = pairing(channel, params.rotated, params.half_split != 0u);
    let angle = angle_of(row, turned.pair);
    return Turn(angles[angle], turned.sign * angles[angle + 1u], turned.partner);
}

// `head_index` counts the H heads of all rows.
fn q_channel(row: u32, head_index: u32, channel: u32) -> f32 {
    let first = head_index * (params.nope + params.rope);
    if (channel < params.nope) {
        return q[first + channel];
    }
    if (channel >= params.nope + params.rope) {
        return 0.0;
    }
    let turn = turn_of(row, channel - params.nope);
    return q[first + channel] * turn.cosine + q[first + params.nope + turn.partner] * turn.sine;
}

fn k_channel(row: u32, head_index: u32, channel: u32) -> f32 {
    if (channel < params.nope) {
        return kv[head_index * (params.nope + params.value) + channel];
    }
    if (channel >= params.nope + params.rope) {
        return 0.0;
    }
    let turn = turn_of(row, channel - params.nope);
    let first = row * params.rope;
    return k_rope[first + channel - params.nope] * turn.cosine + k_rope[first + turn.partner] * turn.sine;
}

fn v_channel(head_index: u32, channel: u32) -> f32 {
    if (channel >= params.value) {
        return 0.0;
    }
    return kv[head_index * (params.nope + params.value) + params.nope + channel];
}

// An invocation owns one channel of a head of packed_q.
// grid: rows * heads * width / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn forward_query(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let head_index = i / params.width;
    let row = head_index / params.heads;
    if (row >= params.rows) {
        return;
    }
    packed_q[i] = q_channel(row, head_index, i % params.width);
}

// An invocation owns one channel of a head of packed_kv.
// grid: rows * 2 * heads * width / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn forward_key_value(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let row = i / (2u * params.heads * params.width);
    if (row >= params.rows) {
        return;
    }
    let channel = i % params.width;
    let head = i / params.width % (2u * params.heads); // k heads, then v heads
    if (head < params.heads) {
        packed_kv[i] = k_channel(row, row * params.heads + head, channel);
    } else {
        packed_kv[i] = v_channel(row * params.heads + head - params.heads, channel);
    }
}

// An invocation owns one channel of a head of d_q.
// grid: rows * heads * (nope + rope) / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn backward_query(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let head_index = i / (params.nope + params.rope);
    let row = head_index / params.heads;
    if (row >= params.rows) {
        return;
    }
    let channel = i % (params.nope + params.rope);
    let first = head_index * params.width;
    if (channel < params.nope) {
        d_q[i] = d_packed_q[first + channel];
        return;
    }
    let turn = turn_of(row, channel - params.nope);
    d_q[i] = d_packed_q[first + channel] * turn.cosine - d_packed_q[first + params.nope + turn.partner] * turn.sine;
}

// An invocation owns one channel of a head of d_kv.
// grid: rows * heads * (nope + value) / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn backward_key_value(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let head_index = i / (params.nope + params.value);
    let row = head_index / params.heads;
    if (row >= params.rows) {
        return;
    }
    let channel = i % (params.nope + params.value);
    let k_head_index = head_index + row * params.heads; // of rows of 2 H heads
    if (channel < params.nope) {
        d_kv[i] = d_packed_kv[k_head_index * params.width + channel];
    } else {
        d_kv[i] = d_packed_kv[(k_head_index + params.heads) * params.width + channel - params.nope];
    }
}

// An invocation owns two channels of d_k_rope, a pair where they turn: it walks the heads in order.
// grid: rows * rope / 2 / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn backward_key_rope(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let row = i / (params.rope / 2u);
    if (row >= params.rows) {
        return;
    }
    let pair = i % (params.rope / 2u);
    let turns = 2u * pair < params.rotated;
    let is_split = turns && params.half_split != 0u;
    let a = select(2u * pair, pair, is_split);
    let b = select(2u * pair + 1u, pair + params.rotated / 2u, is_split);
    var sum_a = 0.0;
    var sum_b = 0.0;
    for (var head = 0u; head < params.heads; head++) {
        let first = (2u * row * params.heads + head) * params.width + params.nope;
        sum_a += d_packed_kv[first + a];
        sum_b += d_packed_kv[first + b];
    }
    var cosine = 1.0;
    var sine = 0.0;
    if (turns) {
        let angle = angle_of(row, pair);
        cosine = angles[angle];
        sine = angles[angle + 1u];
    }
    d_k_rope[row * params.rope + a] = sum_a * cosine + sum_b * sine;
    d_k_rope[row * params.rope + b] = sum_b * cosine - sum_a * sine;
}
