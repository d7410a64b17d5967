// Activation of an FFN's inner layer, n elements, f one of lib/activation.wgsl, m the mask of inner dropout:
//   y = f(x) m        d_x = f'(x) m d_y
//   gated (Shazeer, arXiv 2002.05202): y = f(gate) up m        d_gate = f'(gate) up m d_y        d_up = f(gate) m d_y

import package::lib::activation::{activate, activate_slope};
import package::lib::dropout::dropout_scale4;
import package::lib::index::flat_workgroup;

struct Params {
    n: u32,
    p: f32, // probability of dropout
    stream: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> up: array<f32>;
@group(0) @binding(3) var<storage, read> d_y: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read_write> d_x: array<f32>;
@group(0) @binding(6) var<storage, read_write> d_up: array<f32>;

const INVOCATIONS = 64u;

// y = f(x) m. An invocation owns four consecutive elements.
@compute @workgroup_size(INVOCATIONS)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let first = 4u * group;
    if (first >= params.n) {
        return;
    }
    var a = vec4<f32>();
    @unroll for (var c = 0u; c < 4u; c++) {
        if (first + c < params.n) { a[c] = x[first + c]; }
    }
    a = activate(a) * dropout_scale4(group, params.p, params.stream);
    @unroll for (var c = 0u; c < 4u; c++) {
        if (first + c < params.n) { y[first + c] = a[c]; }
    }
}

// d_x = f'(x) m d_y. An invocation owns four consecutive elements.
@compute @workgroup_size(INVOCATIONS)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let first = 4u * group;
    if (first >= params.n) {
        return;
    }
    var a = vec4<f32>();
    @unroll for (var c = 0u; c < 4u; c++) {
        if (first + c < params.n) { a[c] = x[first + c]; }
    }
    let slope = activate_slope(a) * dropout_scale4(group, params.p, params.stream);
    @unroll for (var c = 0u; c < 4u; c++) {
        if (first + c < params.n) { d_x[first + c] = slope[c] * d_y[first + c]; }
    }
}

// y = f(x) up m, x the gate. An invocation owns four consecutive elements.
@compute @workgroup_size(INVOCATIONS)
fn forward_gated(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let first = 4u * group;
    if (first >= params.n) {
        return;
    }
    var a = vec4<f32>();
    @unroll for (var c = 0u; c < 4u; c++) {
        if (first + c < params.n) { a[c] = x[first + c]; }
    }
    a = activate(a) * dropout_scale4(group, params.p, params.stream);
    @unroll for (var c = 0u; c < 4u; c++) {
        if (first + c < params.n) { y[first + c] = a[c] * up[first + c]; }
    }
}

// d_x = f'(x) up m d_y and d_up = f(x) m d_y, x the gate. An invocation owns four consecutive elements.
@compute @workgroup_size(INVOCATIONS)
fn backward_gated(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let first = 4u * group;
    if (first >= params.n) {
        return;
    }
    var a = vec4<f32>();
    @unroll for (var c = 0u; c < 4u; c++) {
        if (first + c < params.n) { a[c] = x[first + c]; }
    }
    let scale = dropout_scale4(group, params.p, params.stream);
    let value = activate(a) * scale;
    let slope = activate_slope(a) * scale;
    @unroll for (var c = 0u; c < 4u; c++) {
        if (first + c < params.n) {
            d_x[first + c] = slope[c] * up[first + c] * d_y[first + c];
            d_up[first + c] = value[c] * d_y[first + c];
        }
    }
}
