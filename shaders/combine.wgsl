// Sum of a token's experts, out [A, D] in the experts' order, gate [N, K], m the mask of output dropout:
//   y_n = residual_n + m_n sum_k gate_{n,k} out_{slot(n,k)}, in the order of k
//   for slot s of assignment (n, k): d_out_s = gate_{n,k} m_n d_y_n        d_gate_{n,k} = sum_d (m_n d_y_n out_s)_d
// The gradient of the residual is d_y itself.

import package::lib::dropout::{dropout_scale, dropout_scale4};
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
@group(0) @binding(1) var<storage, read> out: array<f32>;
@group(0) @binding(2) var<storage, read> gate: array<f32>;
@group(0) @binding(3) var<storage, read> slot_of: array<u32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read> assignment_of: array<u32>;
@group(0) @binding(7) var<storage, read> d_y: array<f32>;
@group(0) @binding(8) var<storage, read_write> d_out: array<f32>;
@group(0) @binding(9) var<storage, read_write> d_gate: array<f32>;

const INVOCATIONS = 64u;

var<workgroup> sh_sum: array<f32, 64>;

// An invocation owns four consecutive elements of y.
@compute @workgroup_size(INVOCATIONS)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let n = params.tokens * params.width;
    if (4u * group >= n) {
        return;
    }
    let scale = dropout_scale4(group, params.p, params.stream);
    @unroll for (var c = 0u; c < 4u; c++) {
        let i = 4u * group + c;
        if (i < n) {
            let choice = i / params.width * params.experts_per_token;
            var sum = 0.0;
            for (var k = 0u; k < params.experts_per_token; k++) {
                sum = fma(gate[choice + k], out[slot_of[choice + k] * params.width + i % params.width], sum);
            }
            sum *= scale[c];
            if (params.has_residual != 0u) {
                sum += residual[i];
            }
            y[i] = sum;
        }
    }
}

// A workgroup owns a slot, an invocation every 64th element of its row.
@compute @workgroup_size(INVOCATIONS)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let slot = min(flat_workgroup(workgroup, workgroups), params.tokens * params.experts_per_token - 1u);
    let assignment = assignment_of[slot];
    let token = assignment / params.experts_per_token;
    let weight = gate[assignment];
    var sum = 0.0;
    for (var i = local; i < params.width; i += INVOCATIONS) {
        let element = token * params.width + i;
        let d = d_y[element] * dropout_scale(element, params.p, params.stream);
        d_out[slot * params.width + i] = weight * d;
        sum = fma(d, out[slot * params.width + i], sum);
    }
    sh_sum[local] = sum;
    workgroupBarrier();
    for (var half = INVOCATIONS / 2u; half > 0u; half /= 2u) {
        if (local < half) {
            sh_sum[local] += sh_sum[local + half];
        }
        workgroupBarrier();
    }
    if (local == 0u) {
        d_gate[assignment] = sh_sum[0];
    }
}
