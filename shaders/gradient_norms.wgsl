// L2 norm of each of some small gradients, for the log:
//   norms_i = sqrt(sum of squares of gradient i), infinity if that is not finite
// A launch takes up to six gradients.

import package::lib::finite::is_finite_bits;
import package::lib::step::{inverse_loss_scale, step};

struct Params {
    first: u32,     // first norm of this launch
    gradients: u32, // of this launch
    n0: u32,        // elements of each gradient
    n1: u32,
    n2: u32,
    n3: u32,
    n4: u32,
    n5: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> d0: array<f32>;
@group(0) @binding(2) var<storage, read> d1: array<f32>;
@group(0) @binding(3) var<storage, read> d2: array<f32>;
@group(0) @binding(4) var<storage, read> d3: array<f32>;
@group(0) @binding(5) var<storage, read> d4: array<f32>;
@group(0) @binding(6) var<storage, read> d5: array<f32>;
@group(0) @binding(7) var<storage, read_write> norms: array<u32>; // bits

const INVOCATIONS = 64u;

var<workgroup> sh_sum: array<f32, INVOCATIONS>;
var<workgroup> sh_bad: array<u32, INVOCATIONS>;

fn gradient(which: u32, i: u32) -> f32 {
    switch which {
        case 0u: { return d0[i]; }
        case 1u: { return d1[i]; }
        case 2u: { return d2[i]; }
        case 3u: { return d3[i]; }
        case 4u: { return d4[i]; }
        default: { return d5[i]; }
    }
}

// A workgroup owns one gradient, an invocation every 64th element of it; their sums meet in a fixed tree.
// grid: gradients
@compute @workgroup_size(INVOCATIONS)
fn norms_of(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var lengths = array<u32, 6>(params.n0, params.n1, params.n2, params.n3, params.n4, params.n5);
    let length = lengths[workgroup.x];
    var sum = 0.0;
    var bad = 0u;
    for (var i = local; i < length; i += INVOCATIONS) {
        let g = gradient(workgroup.x, i);
        sum = fma(g, g, sum);
        bad += select(1u, 0u, is_finite_bits(bitcast<u32>(g)));
    }
    sh_sum[local] = sum;
    sh_bad[local] = bad;
    workgroupBarrier();
    for (var half = INVOCATIONS / 2u; half > 0u; half /= 2u) {
        if (local < half) {
            sh_sum[local] += sh_sum[local + half];
            sh_bad[local] += sh_bad[local + half];
        }
        workgroupBarrier();
    }
    if (local == 0u) {
        // The sum of finite squares may overflow, too.
        let is_finite = sh_bad[0] == 0u && is_finite_bits(bitcast<u32>(sh_sum[0]));
        let norm = sqrt(select(0.0, sh_sum[0], is_finite)) * inverse_loss_scale();
        norms[params.first + workgroup.x] = select(0x7f800000u, bitcast<u32>(norm), is_finite);
    }
}
