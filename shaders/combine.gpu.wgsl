// Gradients of the sum of a token's experts four elements at a time, as backward of combine.wgsl: one draw decides four.
//
// requires: buffers
// fits: width % 4 == 0
// rank: 15
// halves: results

import package::combine::{INVOCATIONS, assignment_of, d_gate, gate, params, sh_sum};
import package::lib::dropout::dropout_scale4;
import package::lib::index::flat_workgroup;
import package::lib::rounded::{Rounded, rounded};

@group(0) @binding(7) var<storage, read> d_y: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> d_out: array<Rounded>;
@group(0) @binding(10) var<storage, read> saved_out: array<vec4<f32>>;

// A workgroup owns a slot, an invocation every 64th group of its row.
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
    let groups = params.width / 4u;
    var sum = vec4<f32>();
    for (var i = local; i < groups; i += INVOCATIONS) {
        let group = token * groups + i;
        let d = d_y[group] * dropout_scale4(group, params.p, params.stream);
        d_out[slot * groups + i] = rounded(weight * d);
        sum = fma(d, saved_out[slot * groups + i], sum);
    }
    sh_sum[local] = (sum.x + sum.y) + (sum.z + sum.w);
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
