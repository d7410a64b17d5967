// Heads of multi-head latent attention for CPU rasterisers: latent_heads.wgsl with its operands read through images by
// flat texels, a texel being four channels. `rotated` is even in texels when half-split.
// Integer division costs much here, so an invocation owns a whole head, and queries have entry points of their own.
//
// requires: images
// fits: nope % 4 == 0 && rope % 4 == 0 && value % 4 == 0 && rotated % 4 == 0 && (half_split == 0 || rotated % 8 == 0)
// flat: q, kv, k_rope, d_packed_q, d_packed_kv
// rank: 10

import package::lib::index::flat_workgroup;
import package::lib::rotation::{TexelTurn, partners, texel_turn};
import package::lib::texels::flat_texel;

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
@group(0) @binding(1) var angles: texture_2d<f32>;
@group(0) @binding(2) var q: texture_2d<f32>;
@group(0) @binding(3) var kv: texture_2d<f32>;
@group(0) @binding(4) var k_rope: texture_2d<f32>;
@group(0) @binding(5) var<storage, read_write> packed_q: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> packed_kv: array<vec4<f32>>;
@group(0) @binding(7) var d_packed_q: texture_2d<f32>;
@group(0) @binding(8) var d_packed_kv: texture_2d<f32>;
@group(0) @binding(9) var<storage, read_write> d_q: array<vec4<f32>>;
@group(0) @binding(10) var<storage, read_write> d_kv: array<vec4<f32>>;
@group(0) @binding(11) var<storage, read_write> d_k_rope: array<vec4<f32>>;

const INVOCATIONS = 64u;

// The sizes with widths in texels.
fn in_texels() -> Params {
    var p = params;
    p.nope = params.nope / 4u;
    p.rope = params.rope / 4u;
    p.value = params.value / 4u;
    p.width = params.width / 4u;
    p.rotated = params.rotated / 4u;
    return p;
}

fn turn_of(p: Params, row: u32, c: u32) -> TexelTurn {
    let first = (row % p.tokens) * p.rotated;
    return texel_turn(angles, first, c, p.rotated, p.half_split != 0u);
}

// An invocation owns a head of packed_q.
// grid: rows * heads / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn forward_query(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let p = in_texels();
    let index = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let row = index / p.heads;
    if (row >= p.rows) {
        return;
    }
    let source = index * (p.nope + p.rope);
    let packed = index * p.width;
    for (var c = 0u; c < p.nope; c++) {
        packed_q[packed + c] = flat_texel(q, source + c);
    }
    for (var c = 0u; c < p.rope; c++) {
        let turn = turn_of(p, row, c);
        let other = flat_texel(q, source + p.nope + turn.partner);
        packed_q[packed + p.nope + c] =
            flat_texel(q, source + p.nope + c) * turn.cosine + partners(other, turn) * turn.sine;
    }
    for (var c = p.nope + p.rope; c < p.width; c++) {
        packed_q[packed + c] = vec4<f32>();
    }
}

// An invocation owns a k head and a v head of packed_kv.
// grid: rows * heads / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn forward_key_value(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let p = in_texels();
    let index = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let row = index / p.heads;
    if (row >= p.rows) {
        return;
    }
    let source = index * (p.nope + p.value);
    let k = (index + row * p.heads) * p.width;
    let v = k + p.heads * p.width;
    for (var c = 0u; c < p.nope; c++) {
        packed_kv[k + c] = flat_texel(kv, source + c);
    }
    for (var c = 0u; c < p.rope; c++) {
        let turn = turn_of(p, row, c);
        let other = flat_texel(k_rope, row * p.rope + turn.partner);
        packed_kv[k + p.nope + c] =
            flat_texel(k_rope, row * p.rope + c) * turn.cosine + partners(other, turn) * turn.sine;
    }
    for (var c = p.nope + p.rope; c < p.width; c++) {
        packed_kv[k + c] = vec4<f32>();
    }
    for (var c = 0u; c < p.value; c++) {
        packed_kv[v + c] = flat_texel(kv, source + p.nope + c);
    }
    for (var c = p.value; c < p.width; c++) {
        packed_kv[v + c] = vec4<f32>();
    }
}

// An invocation owns a head of d_q.
// grid: rows * heads / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn backward_query(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let p = in_texels();
    let index = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let row = index / p.heads;
    if (row >= p.rows) {
        return;
    }
    let source = index * (p.nope + p.rope);
    let packed = index * p.width;
    for (var c = 0u; c < p.nope; c++) {
        d_q[source + c] = flat_texel(d_packed_q, packed + c);
    }
    for (var c = 0u; c < p.rope; c++) {
        let turn = turn_of(p, row, c);
        let other = flat_texel(d_packed_q, packed + p.nope + turn.partner);
        d_q[source + p.nope + c] =
            flat_texel(d_packed_q, packed + p.nope + c) * turn.cosine - partners(other, turn) * turn.sine;
    }
}

// An invocation owns a head of d_kv.
// grid: rows * heads / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn backward_key_value(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let p = in_texels();
    let index = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let row = index / p.heads;
    if (row >= p.rows) {
        return;
    }
    let source = index * (p.nope + p.value);
    let k = (index + row * p.heads) * p.width;
    let v = k + p.heads * p.width;
    for (var c = 0u; c < p.nope; c++) {
        d_kv[source + c] = flat_texel(d_packed_kv, k + c);
    }
    for (var c = 0u; c < p.value; c++) {
        d_kv[source + p.nope + c] = flat_texel(d_packed_kv, v + c);
    }
}

// An invocation owns a texel of d_k_rope: it walks the heads in order.
// grid: rows * (rope / 4) / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn backward_key_rope(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let p = in_texels();
    let index = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let row = index / p.rope;
    if (row >= p.rows) {
        return;
    }
    let c = index % p.rope;
    let turn = turn_of(p, row, c);
    var sum = vec4<f32>();
    var other = vec4<f32>();
    for (var head = 0u; head < p.heads; head++) {
        let k = (2u * row * p.heads + head) * p.width + p.nope;
        sum += flat_texel(d_packed_kv, k + c);
        other += flat_texel(d_packed_kv, k + turn.partner);
    }
    d_k_rope[index] = sum * turn.cosine - partners(other, turn) * turn.sine;
}
