// Rows of x [N, width] in the experts' order: y [A, width], A = N K assignments, slot s holding assignment a(s) = n K + k.
//   y_s = x_n, n = a(s) / K        d_x_n = sum_k d_y_{slot(n, k)}, in the order of k
//
// halves: results

import package::lib::index::flat_workgroup;
import package::lib::operand::{Operand, Result};

struct Params {
    tokens: u32,
    experts_per_token: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: Operand;
@group(0) @binding(2) var<storage, read> assignment_of: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: Result;
@group(0) @binding(4) var<storage, read> d_y: Operand;
@group(0) @binding(5) var<storage, read> slot_of: array<u32>;
@group(0) @binding(6) var<storage, read_write> d_x: Result;

const INVOCATIONS = 64u;
const SPAN = 16u; // columns of an invocation: four groups of four, a quarter of the row apart

fn quarter() -> u32 {
    return (params.width + SPAN - 1u) / SPAN;
}

// An invocation owns a quarter of the groups of a row of y.
// grid: tokens * experts_per_token * (width / SPAN) / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let slot = i / quarter();
    let column = i % quarter();
    if (slot < params.tokens * params.experts_per_token) {
        let token = assignment_of[slot] / params.experts_per_token;
        @unroll for (var q = 0u; q < 4u; q++) {
            let group = column + q * quarter();
            if (4u * group < params.width) {
                store_y(vec2<u32>(group, slot), params.width, load_x(vec2<u32>(group, token), params.width));
            }
        }
    }
}

// An invocation owns a quarter of the groups of a row of d_x.
// grid: tokens * (width / SPAN) / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let token = i / quarter();
    let column = i % quarter();
    if (token < params.tokens) {
        var sum = array<vec4<f32>, 4>();
        for (var k = 0u; k < params.experts_per_token; k++) {
            let slot = slot_of[token * params.experts_per_token + k];
            @unroll for (var q = 0u; q < 4u; q++) {
                let group = column + q * quarter();
                if (4u * group < params.width) {
                    sum[q] += load_d_y(vec2<u32>(group, slot), params.width);
                }
            }
        }
        @unroll for (var q = 0u; q < 4u; q++) {
            let group = column + q * quarter();
            if (4u * group < params.width) {
                store_d_x(vec2<u32>(group, token), params.width, sum[q]);
            }
        }
    }
}
