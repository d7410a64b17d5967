// Heads without their padding, for CPU rasterisers: take_heads.wgsl with x and d_y read through images by flat texels,
// a texel being four channels. All widths are in texels.
//
// requires: images

import package::lib::index::flat_workgroup;
import package::lib::texels::flat_texel;

struct Params {
    heads: u32, // N H, of all rows
    width: u32, // w
    value: u32, // v
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var x: texture_2d<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(3) var d_y: texture_2d<f32>;
@group(0) @binding(4) var<storage, read_write> d_x: array<vec4<f32>>;

const INVOCATIONS = 64u;

// An invocation owns a head of y.
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
    for (var c = 0u; c < params.value; c++) {
        y[head * params.value + c] = flat_texel(x, head * params.width + c);
    }
}

// An invocation owns a head of d_x.
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
    for (var c = 0u; c < params.value; c++) {
        d_x[head * params.width + c] = flat_texel(d_y, head * params.value + c);
    }
    for (var c = params.value; c < params.width; c++) {
        d_x[head * params.width + c] = vec4<f32>();
    }
}
