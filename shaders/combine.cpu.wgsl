// Gradients of the sum of a token's experts for CPU rasterisers: as backward of combine.wgsl, without a sum over a workgroup.
//
// requires: images
// rank: 20

import package::lib::dropout::dropout_scale4;
import package::lib::index::flat_workgroup;

struct Params {
    tokens: u32,
    experts_per_token: u32,
    width: u32,
    has_residual: u32,
    p: f32, // probability of dropout
    stream: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(2) var<storage, read> gate: array<f32>;
@group(0) @binding(6) var<storage, read> assignment_of: array<u32>;
@group(0) @binding(7) var d_y: texture_2d<f32>;
@group(0) @binding(8) var<storage, read_write> d_out: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read_write> d_gate: array<f32>;
@group(0) @binding(10) var saved_out: texture_2d<f32>;

const LANES = 8u;

// An invocation owns a slot and walks its row.
// grid: tokens * experts_per_token / LANES
@compute @workgroup_size(LANES)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let slot = flat_workgroup(workgroup, workgroups) * LANES + local;
    if (slot >= params.tokens * params.experts_per_token) {
        return;
    }
    let texels = params.width / 4u;
    let assignment = assignment_of[slot];
    let token = assignment / params.experts_per_token;
    let weight = gate[assignment];
    var sum = vec4<f32>();
    for (var t = 0u; t < texels; t++) {
        let scale = dropout_scale4(token * texels + t, params.p, params.stream);
        let d = textureLoad(d_y, vec2<u32>(t, token), 0) * scale;
        d_out[slot * texels + t] = weight * d;
        sum = fma(d, textureLoad(saved_out, vec2<u32>(t, slot), 0), sum);
    }
    d_gate[assignment] = dot(sum, vec4<f32>(1.0));
}
