// Heads without their padding: x [N, H w] -> y [N, H v], the leading v channels of every head.
// Backward: d_x is d_y in those channels and 0 in the others.
//
// fits_groups: width % 4 == 0 && value % 4 == 0
// flat: x, d_y

import package::lib::index::flat_workgroup;
import package::lib::operand::{Operand, Result};

struct Params {
    heads: u32, // N H, of all rows
    width: u32, // w
    value: u32, // v
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: Operand;
@group(0) @binding(2) var<storage, read_write> y: Result;
@group(0) @binding(3) var<storage, read> d_y: Operand;
@group(0) @binding(4) var<storage, read_write> d_x: Result;

const INVOCATIONS = 64u;

// An invocation owns a head of y.
// grid: heads / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let head = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (head >= params.heads) {
        return;
    }
    for (var c = 0u; c < params.value; c += 4u) {
        let count = params.value - c;
        store_y_from(head * params.value + c, count, load_x_from(head * params.width + c, count));
    }
}

// An invocation owns a head of d_x.
// grid: heads / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let head = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (head >= params.heads) {
        return;
    }
    for (var c = 0u; c < params.value; c += 4u) {
        let count = params.value - c;
        store_d_x_from(head * params.width + c, count, load_d_y_from(head * params.value + c, count));
    }
    for (var c = params.value; c < params.width; c += 4u) {
        store_d_x_from(head * params.width + c, params.width - c, vec4<f32>());
    }
}
