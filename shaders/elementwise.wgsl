// Element by element, over tensors of n elements: add y = a + b, scale y = factor a.
// Residual connections are adds; where a tensor feeds several ops, its gradients meet in one.

import package::lib::index::flat_workgroup;

struct Params {
    n: u32,
    factor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

const INVOCATIONS = 64u;

// An invocation owns one element.
@compute @workgroup_size(INVOCATIONS)
fn add(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i < params.n) {
        y[i] = a[i] + b[i];
    }
}

// An invocation owns one element.
@compute @workgroup_size(INVOCATIONS)
fn scale(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i < params.n) {
        y[i] = params.factor * a[i];
    }
}
