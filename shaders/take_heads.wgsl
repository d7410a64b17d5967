// Heads without their padding: x [N, H w] -> y [N, H v], the leading v channels of every head.
// Backward: d_x is d_y in those channels and 0 in the others.

import package::lib::index::flat_workgroup;

struct Params {
    heads: u32, // N H, of all rows
    width: u32, // w
    value: u32, // v
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read> d_y: array<f32>;
@group(0) @binding(4) var<storage, read_write> d_x: array<f32>;

const INVOCATIONS = 64u;

// An invocation owns one element of y.
@compute @workgroup_size(INVOCATIONS)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let head = i / params.value;
    if (head < params.heads) {
        y[i] = x[head * params.width + i % params.value];
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
    let head = i / params.width;
    if (head >= params.heads) {
        return;
    }
    let channel = i % params.width;
    var gradient = 0.0;
    if (channel < params.value) {
        gradient = d_y[head * params.value + channel];
    }
    d_x[i] = gradient;
}
