// Rows of x in the experts' order: as gather_rows.wgsl, x and d_y read through their images. A row is 16 `quarter`
// floats long: four times `quarter` texels.
//
// requires: images

import package::lib::index::flat_workgroup;

struct Params {
    tokens: u32,
    experts_per_token: u32,
    quarter: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var x: texture_2d<f32>;
@group(0) @binding(2) var<storage, read> assignment_of: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var d_y: texture_2d<f32>;
@group(0) @binding(5) var<storage, read> slot_of: array<u32>;
@group(0) @binding(6) var<storage, read_write> d_x: array<vec4<f32>>;

const INVOCATIONS = 64u;

// An invocation owns four texels of a row of y, a quarter of the row apart.
@compute @workgroup_size(INVOCATIONS)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let slot = i / params.quarter;
    let column = i % params.quarter;
    if (slot < params.tokens * params.experts_per_token) {
        let token = assignment_of[slot] / params.experts_per_token;
        @unroll for (var q = 0u; q < 4u; q++) {
            let texel = column + q * params.quarter;
            y[slot * 4u * params.quarter + texel] = textureLoad(x, vec2<u32>(texel, token), 0);
        }
    }
}

// An invocation owns four texels of a row of d_x, a quarter of the row apart.
@compute @workgroup_size(INVOCATIONS)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let token = i / params.quarter;
    let column = i % params.quarter;
    if (token < params.tokens) {
        var sum = array<vec4<f32>, 4>();
        for (var k = 0u; k < params.experts_per_token; k++) {
            let slot = slot_of[token * params.experts_per_token + k];
            @unroll for (var q = 0u; q < 4u; q++) {
                sum[q] += textureLoad(d_y, vec2<u32>(column + q * params.quarter, slot), 0);
            }
        }
        @unroll for (var q = 0u; q < 4u; q++) {
            d_x[token * 4u * params.quarter + column + q * params.quarter] = sum[q];
        }
    }
}
