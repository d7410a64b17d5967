// Rotary positions for CPU rasterisers: rope.wgsl with its operands read as images, a texel being four channels.
// Head width and `rotated` are multiples of 4 (interleaved) or `rotated` of 8 (half-split). All widths are in texels.
// angles is the flat table in rows of 16 texels, see lib/rotation.wgsl.
// Integer division costs more than the rotation here, so an invocation owns a whole head and divides once.
//
// requires: images
// fits: width % 4 == 0 && rotated % 4 == 0 && (half_split == 0 || rotated % 8 == 0)
// rank: 10

import package::lib::index::flat_workgroup;
import package::lib::rotation::{TexelTurn, partners, texel_turn};

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
@group(0) @binding(1) var angles: texture_2d<f32>;
@group(0) @binding(2) var qkv: texture_2d<f32>;
@group(0) @binding(3) var<storage, read_write> q: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> kv: array<vec4<f32>>;
@group(0) @binding(5) var d_q: texture_2d<f32>;
@group(0) @binding(6) var d_kv: texture_2d<f32>;
@group(0) @binding(7) var<storage, read_write> d_qkv: array<vec4<f32>>;

// Of a head, in texels.
fn width() -> u32 {
    return params.width / 4u;
}

// Where a head stands: its row, its first column in that row, and how its texels turn.
struct Place {
    row: u32,
    head: u32,
    rotated: u32,   // leading texels that turn
    table: u32,     // first angle texel of the position
}

fn place_of(index: u32) -> Place {
    let row = index / params.heads;
    let head = index % params.heads;
    let table = (row % params.tokens) * (params.rotated / 4u);
    return Place(row, head, select(0u, (params.rotated / 4u), head < params.turned_heads), table);
}

fn turn_of(place: Place, c: u32) -> TexelTurn {
    return texel_turn(angles, place.table, c, place.rotated, params.half_split != 0u);
}

// An invocation owns a head of a row.
// grid: rows * heads / 64
@compute @workgroup_size(64)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = flat_workgroup(workgroup, workgroups) * 64u + local;
    if (index >= params.rows * params.heads) {
        return;
    }
    let place = place_of(index);
    let x = place.head * width();
    for (var c = 0u; c < width(); c++) {
        let turn = turn_of(place, c);
        let value = textureLoad(qkv, vec2<u32>(x + c, place.row), 0);
        let other = textureLoad(qkv, vec2<u32>(x + turn.partner, place.row), 0);
        let turned = value * turn.cosine + partners(other, turn) * turn.sine;
        if (place.head < params.q_heads) {
            q[(place.row * params.q_heads + place.head) * width() + c] = turned;
        } else {
            let head = place.row * (params.heads - params.q_heads) + place.head - params.q_heads;
            kv[head * width() + c] = turned;
        }
    }
}

fn joined(place: Place, c: u32) -> vec4<f32> {
    if (place.head < params.q_heads) {
        return textureLoad(d_q, vec2<u32>(place.head * width() + c, place.row), 0);
    }
    return textureLoad(d_kv, vec2<u32>((place.head - params.q_heads) * width() + c, place.row), 0);
}

// An invocation owns a head of a row.
// grid: rows * heads / 64
@compute @workgroup_size(64)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = flat_workgroup(workgroup, workgroups) * 64u + local;
    if (index >= params.rows * params.heads) {
        return;
    }
    let place = place_of(index);
    for (var c = 0u; c < width(); c++) {
        let turn = turn_of(place, c);
        let other = joined(place, turn.partner);
        d_qkv[index * width() + c] = joined(place, c) * turn.cosine - partners(other, turn) * turn.sine;
    }
}
