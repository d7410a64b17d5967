// Rotary positions four channels at a time, as rope.wgsl: integer division costs more than the rotation, and four channels share it.
// Widths are in groups of four; angles is the flat table, a group being (cos, sin, cos, sin) of two neighbouring pairs.
//
// requires: buffers
// fits: width % 4 == 0 && rotated % 4 == 0 && (half_split == 0 || rotated % 8 == 0)
// rank: 5
// halves: results

import package::lib::index::flat_workgroup;
import package::lib::rotation::{TexelTurn, interleaved_turn, partners, split_turn, still};
import package::lib::rounded::{Rounded, rounded};
import package::rope::params;

@group(0) @binding(1) var<storage, read> angles: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> q: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> kv: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> d_q: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> d_kv: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> d_qkv: array<Rounded>;

const INVOCATIONS = 64u;

// Of a head, in groups.
fn width() -> u32 {
    return params.width / 4u;
}

// A group: its row, its head, and its place in that.
struct Place {
    row: u32,
    head: u32,
    c: u32,
}

fn place_of(index: u32) -> Place {
    let head = index / width();
    let row = head / params.heads;
    return Place(row, head - row * params.heads, index - head * width());
}

fn turn_of(at: Place) -> TexelTurn {
    let rotated = params.rotated / 4u;
    if (at.c >= rotated || at.head >= params.turned_heads) {
        return still(at.c);
    }
    let first = (at.row % params.tokens) * rotated;
    if (params.half_split == 0u) {
        return interleaved_turn(angles[first + at.c], at.c);
    }
    let half = rotated / 2u;
    let pair = first + 2u * (at.c % half);
    return split_turn(angles[pair], angles[pair + 1u], at.c, half);
}

// Of a group in q or in kv.
fn split_index(at: Place, c: u32) -> u32 {
    if (at.head < params.q_heads) {
        return (at.row * params.q_heads + at.head) * width() + c;
    }
    return (at.row * (params.heads - params.q_heads) + at.head - params.q_heads) * width() + c;
}

// An invocation owns a group of qkv.
// grid: rows * heads * (width / 4) / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (index >= params.rows * params.heads * width()) {
        return;
    }
    let at = place_of(index);
    let turn = turn_of(at);
    let other = qkv[index - at.c + turn.partner];
    let turned = qkv[index] * turn.cosine + partners(other, turn) * turn.sine;
    if (at.head < params.q_heads) {
        q[split_index(at, at.c)] = turned;
    } else {
        kv[split_index(at, at.c)] = turned;
    }
}

fn joined(at: Place, c: u32) -> vec4<f32> {
    if (at.head < params.q_heads) {
        return d_q[split_index(at, c)];
    }
    return d_kv[split_index(at, c)];
}

// An invocation owns a group of d_qkv.
// grid: rows * heads * (width / 4) / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (index >= params.rows * params.heads * width()) {
        return;
    }
    let at = place_of(index);
    let turn = turn_of(at);
    d_qkv[index] = rounded(joined(at, at.c) * turn.cosine - partners(joined(at, turn.partner), turn) * turn.sine);
}
