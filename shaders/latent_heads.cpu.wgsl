// Heads of multi-head latent attention for CPU rasterisers: latent_heads.wgsl with its operands read through images by
// flat texels, a texel being four channels. All widths are in texels; `rotated` is even when half-split.
// Integer division costs much here, so an invocation owns a whole head, and queries have entry points of their own.
//
// requires: images

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

fn turn_of(row: u32, c: u32) -> TexelTurn {
    let first = (row % params.tokens) * params.rotated;
    return texel_turn(angles, first, c, params.rotated, params.half_split != 0u);
}

// An invocation owns a head of packed_q.
@compute @workgroup_size(INVOCATIONS)
fn forward_query(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let row = index / params.heads;
    if (row >= params.rows) {
        return;
    }
    let source = index * (params.nope + params.rope);
    let packed = index * params.width;
    for (var c = 0u; c < params.nope; c++) {
        packed_q[packed + c] = flat_texel(q, source + c);
    }
    for (var c = 0u; c < params.rope; c++) {
        let turn = turn_of(row, c);
        let other = flat_texel(q, source + params.nope + turn.partner);
        packed_q[packed + params.nope + c] =
            flat_texel(q, source + params.nope + c) * turn.cosine + partners(other, turn) * turn.sine;
    }
    for (var c = params.nope + params.rope; c < params.width; c++) {
        packed_q[packed + c] = vec4<f32>();
    }
}

// An invocation owns a k head and a v head of packed_kv.
@compute @workgroup_size(INVOCATIONS)
fn forward_key_value(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let row = index / params.heads;
    if (row >= params.rows) {
        return;
    }
    let source = index * (params.nope + params.value);
    let k = (index + row * params.heads) * params.width;
    let v = k + params.heads * params.width;
    for (var c = 0u; c < params.nope; c++) {
        packed_kv[k + c] = flat_texel(kv, source + c);
    }
    for (var c = 0u; c < params.rope; c++) {
        let turn = turn_of(row, c);
        let other = flat_texel(k_rope, row * params.rope + turn.partner);
        packed_kv[k + params.nope + c] =
            flat_texel(k_rope, row * params.rope + c) * turn.cosine + partners(other, turn) * turn.sine;
    }
    for (var c = params.nope + params.rope; c < params.width; c++) {
        packed_kv[k + c] = vec4<f32>();
    }
    for (var c = 0u; c < params.value; c++) {
        packed_kv[v + c] = flat_texel(kv, source + params.nope + c);
    }
    for (var c = params.value; c < params.width; c++) {
        packed_kv[v + c] = vec4<f32>();
    }
}

// An invocation owns a head of d_q.
@compute @workgroup_size(INVOCATIONS)
fn backward_query(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let row = index / params.heads;
    if (row >= params.rows) {
        return;
    }
    let source = index * (params.nope + params.rope);
    let packed = index * params.width;
    for (var c = 0u; c < params.nope; c++) {
        d_q[source + c] = flat_texel(d_packed_q, packed + c);
    }
    for (var c = 0u; c < params.rope; c++) {
        let turn = turn_of(row, c);
        let other = flat_texel(d_packed_q, packed + params.nope + turn.partner);
        d_q[source + params.nope + c] =
            flat_texel(d_packed_q, packed + params.nope + c) * turn.cosine - partners(other, turn) * turn.sine;
    }
}

// An invocation owns a head of d_kv.
@compute @workgroup_size(INVOCATIONS)
fn backward_key_value(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let row = index / params.heads;
    if (row >= params.rows) {
        return;
    }
    let source = index * (params.nope + params.value);
    let k = (index + row * params.heads) * params.width;
    let v = k + params.heads * params.width;
    for (var c = 0u; c < params.nope; c++) {
        d_kv[source + c] = flat_texel(d_packed_kv, k + c);
    }
    for (var c = 0u; c < params.value; c++) {
        d_kv[source + params.nope + c] = flat_texel(d_packed_kv, v + c);
    }
}

// An invocation owns a texel of d_k_rope: it walks the heads in order.
@compute @workgroup_size(INVOCATIONS)
fn backward_key_rope(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let row = index / params.rope;
    if (row >= params.rows) {
        return;
    }
    let c = index % params.rope;
    let turn = turn_of(row, c);
    var sum = vec4<f32>();
    var other = vec4<f32>();
    for (var head = 0u; head < params.heads; head++) {
        let k = (2u * row * params.heads + head) * params.width + params.nope;
        sum += flat_texel(d_packed_kv, k + c);
        other += flat_texel(d_packed_kv, k + turn.partner);
    }
    d_k_rope[index] = sum * turn.cosine - partners(other, turn) * turn.sine;
}
