// Rows of x [N, width] in the experts' order: y [A, width], A = N K assignments, slot s holding assignment a(s) = n K + k.
//   y_s = x_n, n = a(s) / K        d_x_n = sum_k d_y_{slot(n, k)}, in the order of k

import package::lib::index::flat_workgroup;

struct Params {
    tokens: u32,
    experts_per_token: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> assignment_of: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read> d_y: array<f32>;
@group(0) @binding(5) var<storage, read> slot_of: array<u32>;
@group(0) @binding(6) var<storage, read_write> d_x: array<f32>;

const INVOCATIONS = 64u;

// An invocation owns one element of y.
@compute @workgroup_size(INVOCATIONS)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let slot = i / params.width;
    if (slot < params.tokens * params.experts_per_token) {
        let token = assignment_of[slot] / params.experts_per_token;
        y[i] = x[token * params.width + i % params.width];
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
    let token = i / params.width;
    if (token < params.tokens) {
        var sum = 0.0;
        for (var k = 0u; k < params.experts_per_token; k++) {
            let slot = slot_of[token * params.experts_per_token + k];
            sum += d_y[slot * params.width + i % params.width];
        }
        d_x[i] = sum;
    }
}
