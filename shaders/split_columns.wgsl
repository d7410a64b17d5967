// Columns of x [N, A + B] as two tensors, left [N, A] and right [N, B]. Backward joins their gradients; one that is
// absent counts as zero and is not read.

import package::lib::index::flat_workgroup;

struct Params {
    elements: u32,  // N (A + B)
    left_width: u32,
    right_width: u32,
    has_left: u32,  // whether left has a gradient
    has_right: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> left: array<f32>;
@group(0) @binding(3) var<storage, read_write> right: array<f32>;
@group(0) @binding(4) var<storage, read> d_left: array<f32>;
@group(0) @binding(5) var<storage, read> d_right: array<f32>;
@group(0) @binding(6) var<storage, read_write> d_x: array<f32>;

const INVOCATIONS = 64u;

// An invocation owns one element of x.
@compute @workgroup_size(INVOCATIONS)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i >= params.elements) {
        return;
    }
    let row = i / (params.left_width + params.right_width);
    let column = i % (params.left_width + params.right_width);
    if (column < params.left_width) {
        left[row * params.left_width + column] = x[i];
    } else {
        right[row * params.right_width + column - params.left_width] = x[i];
    }
}

// An invocation owns one element of d_x.
@compute @workgroup_size(INVOCATIONS)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i >= params.elements) {
        return;
    }
    let row = i / (params.left_width + params.right_width);
    let column = i % (params.left_width + params.right_width);
    var gradient = 0.0;
    if (column < params.left_width) {
        if (params.has_left != 0u) {
            gradient = d_left[row * params.left_width + column];
        }
    } else if (params.has_right != 0u) {
        gradient = d_right[row * params.right_width + column - params.left_width];
    }
    d_x[i] = gradient;
}
