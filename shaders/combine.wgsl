// Sum of a token's experts, out [A, D] in the experts' order, gate [N, K], m the mask of output dropout:
//   y_n = residual_n + m_n sum_k gate_{n,k} out_{slot(n,k)}, in the order of k
//   for slot s of assignment (n, k): d_out_s = gate_{n,k} m_n d_y_n        d_gate_{n,k} = sum_d (m_n d_y_n out_s)_d
// The gradient of the residual is d_y itself.

import package::lib::dropout::{dropout_scale, dropout_scale4};
import package::lib::index::flat_workgroup;
import package::lib::operand::{Operand, Result, WHOLE_GROUPS};

struct Params {
    tokens: u32,
    experts_per_token: u32,
    width: u32,
    has_residual: u32,
    p: f32, // probability of dropout
    stream: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> out: Operand;
@group(0) @binding(2) var<storage, read> gate: array<f32>;
@group(0) @binding(3) var<storage, read> slot_of: array<u32>;
@group(0) @binding(4) var<storage, read> residual: Operand;
@group(0) @binding(5) var<storage, read_write> y: Result;
@group(0) @binding(6) var<storage, read> assignment_of: array<u32>;
@group(0) @binding(7) var<storage, read> d_y: array<f32>;
@group(0) @binding(8) var<storage, read_write> d_out: array<f32>;
@group(0) @binding(9) var<storage, read_write> d_gate: array<f32>;
@group(0) @binding(10) var<storage, read> saved_out: array<f32>;

const INVOCATIONS = 64u;
const SPAN = 16u; // columns of an invocation of forward: four groups of four, a quarter of the row apart

var<workgroup> sh_sum: array<f32, 64>;

// m of four elements from `first` on: rows need not begin with a draw.
fn mask(first: u32) -> vec4<f32> {
    if (WHOLE_GROUPS || params.width % 4u == 0u) {
        return dropout_scale4(first / 4u, params.p, params.stream);
    }
    var scale: vec4<f32>;
    @unroll for (var c = 0u; c < 4u; c++) {
        scale[c] = dropout_scale(first + c, params.p, params.stream);
    }
    return scale;
}

// An invocation owns a quarter of the groups of a row of y.
// grid: tokens * (width / SPAN) / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let quarter = (params.width + SPAN - 1u) / SPAN;
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let token = i / quarter;
    let column = i % quarter;
    if (token >= params.tokens) {
        return;
    }
    var sum = array<vec4<f32>, 4>();
    for (var k = 0u; k < params.experts_per_token; k++) {
        let choice = token * params.experts_per_token + k;
        let slot = slot_of[choice];
        let weight = vec4<f32>(gate[choice]);
        @unroll for (var q = 0u; q < 4u; q++) {
            let group = column + q * quarter;
            if (4u * group < params.width) {
                sum[q] = fma(weight, load_out(vec2<u32>(group, slot), params.width), sum[q]);
            }
        }
    }
    @unroll for (var q = 0u; q < 4u; q++) {
        let at = vec2<u32>(column + q * quarter, token);
        if (4u * at.x < params.width) {
            var value = sum[q] * mask(token * params.width + 4u * at.x);
            if (params.has_residual != 0u) {
                value += load_residual(at, params.width);
            }
            store_y(at, params.width, value);
        }
    }
}

// A workgroup owns a slot, an invocation every 64th element of its row.
// grid: tokens * experts_per_token
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
        sum = fma(d, saved_out[slot * params.width + i], sum);
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
