// Sum of a token's experts: as combine.wgsl, out, residual and d_y read through their images. A row is four times
// `quarter` texels.
//
// requires: images

import package::lib::dropout::dropout_scale4;
import package::lib::index::flat_workgroup;

struct Params {
    tokens: u32,
    experts_per_token: u32,
    quarter: u32,
    has_residual: u32,
    p: f32, // probability of dropout
    stream: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var out: texture_2d<f32>;
@group(0) @binding(2) var<storage, read> gate: array<f32>;
@group(0) @binding(3) var<storage, read> slot_of: array<u32>;
@group(0) @binding(4) var residual: texture_2d<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> assignment_of: array<u32>;
@group(0) @binding(7) var d_y: texture_2d<f32>;
@group(0) @binding(8) var<storage, read_write> d_out: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read_write> d_gate: array<f32>;

const FORWARD_INVOCATIONS = 64u;
const BACKWARD_INVOCATIONS = 8u;

// An invocation owns four texels of a row of y, a quarter of the row apart.
@compute @workgroup_size(FORWARD_INVOCATIONS)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * FORWARD_INVOCATIONS + local;
    let token = i / params.quarter;
    let column = i % params.quarter;
    if (token >= params.tokens) {
        return;
    }
    var sum = array<vec4<f32>, 4>();
    for (var k = 0u; k < params.experts_per_token; k++) {
        let choice = token * params.experts_per_token + k;
        let slot = slot_of[choice];
        let weight = vec4<f32>(gate[choice]);
        @unroll for (var q = 0u; q < 4u; q++) {
            sum[q] = fma(weight, textureLoad(out, vec2<u32>(column + q * params.quarter, slot), 0), sum[q]);
        }
    }
    @unroll for (var q = 0u; q < 4u; q++) {
        let texel = column + q * params.quarter;
        let element = token * 4u * params.quarter + texel;
        var value = sum[q] * dropout_scale4(element, params.p, params.stream);
        if (params.has_residual != 0u) {
            value += textureLoad(residual, vec2<u32>(texel, token), 0);
        }
        y[element] = value;
    }
}

// An invocation owns a slot and walks its row.
@compute @workgroup_size(BACKWARD_INVOCATIONS)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let slot = flat_workgroup(workgroup, workgroups) * BACKWARD_INVOCATIONS + local;
    if (slot >= params.tokens * params.experts_per_token) {
        return;
    }
    let texels = 4u * params.quarter;
    let assignment = assignment_of[slot];
    let token = assignment / params.experts_per_token;
    let weight = gate[assignment];
    var sum = vec4<f32>();
    for (var t = 0u; t < texels; t++) {
        let scale = dropout_scale4(token * texels + t, params.p, params.stream);
        let d = textureLoad(d_y, vec2<u32>(t, token), 0) * scale;
        d_out[slot * texels + t] = weight * d;
        sum = fma(d, textureLoad(out, vec2<u32>(t, slot), 0), sum);
    }
    d_gate[assignment] = dot(sum, vec4<f32>(1.0));
}
