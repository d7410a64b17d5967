// Global L2 norm of all gradients and the clip factor of torch.nn.utils.clip_grad_norm_, in two passes of fixed shape:
//   norm = sqrt(sum of squares)        factor = min(1, clip_norm / (norm + 1e-6)), 1 if clip_norm = 0
// Values that are not finite are found by their bits in the same pass; the factor is then 0 and the update is skipped.
// What the optimizers tell about their results, `damage`, is cleared for them.
// A launch of the first pass takes up to six gradients, cut into blocks of 4096 elements.

import package::lib::clip::{CLIP_FACTOR, CLIP_FINITE, CLIP_NORM, CLIP_SKIPPED};
import package::lib::finite::is_finite_bits;
import package::lib::index::flat_workgroup;
import package::lib::step::{inverse_loss_scale, step};

struct Params {
    first: u32,  // first pass: first partial of this launch; second pass: number of partials
    n0: u32,     // elements of each gradient; 0: not used
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
@group(0) @binding(7) var<storage, read_write> partials: array<vec2<u32>>; // bits of a sum of squares, values not finite
@group(0) @binding(8) var<storage, read> saved_partials: array<vec2<u32>>;
@group(0) @binding(9) var<storage, read_write> skipped: array<u32>;
@group(0) @binding(10) var<storage, read_write> clip: array<u32>;
@group(0) @binding(11) var<storage, read_write> damage: array<u32>;

const INVOCATIONS = 64u;
const BLOCK = 4096u;

var<workgroup> sh_sum: array<f32, 64>;
var<workgroup> sh_bad: array<u32, 64>;

// Sums over the workgroup in a fixed tree; the result is in sh_sum[0] and sh_bad[0].
fn workgroup_sum(sum: f32, bad: u32, local: u32) {
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
}

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

// A workgroup owns a block of one gradient, an invocation every 64th element of it.
// grid: n0 / BLOCK + n1 / BLOCK + n2 / BLOCK + n3 / BLOCK + n4 / BLOCK + n5 / BLOCK
@compute @workgroup_size(INVOCATIONS)
fn squares(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = flat_workgroup(workgroup, workgroups);
    var lengths = array<u32, 6>(params.n0, params.n1, params.n2, params.n3, params.n4, params.n5);
    var block = index;
    var which = 0u;
    while (which < 6u && block >= (lengths[which] + BLOCK - 1u) / BLOCK) {
        block -= (lengths[which] + BLOCK - 1u) / BLOCK;
        which++;
    }
    let is_used = which < 6u;
    which = min(which, 5u);
    let end = select(0u, min(lengths[which], (block + 1u) * BLOCK), is_used);
    var sum = 0.0;
    var bad = 0u;
    for (var i = block * BLOCK + local; i < end; i += INVOCATIONS) {
        let g = gradient(which, i);
        sum += g * g;
        bad += select(1u, 0u, is_finite_bits(bitcast<u32>(g)));
    }
    workgroup_sum(sum, bad, local);
    if (local == 0u && is_used) {
        partials[params.first + index] = vec2<u32>(bitcast<u32>(sh_sum[0]), sh_bad[0]);
    }
}

// One workgroup; an invocation owns every 64th partial.
// grid: 1
@compute @workgroup_size(INVOCATIONS)
fn finish(@builtin(local_invocation_index) local: u32) {
    var sum = 0.0;
    var bad = 0u;
    for (var i = local; i < params.first; i += INVOCATIONS) {
        sum += bitcast<f32>(saved_partials[i].x);
        bad += saved_partials[i].y;
    }
    workgroup_sum(sum, bad, local);
    if (local != 0u) {
        return;
    }
    // The sum of finite squares may overflow, too.
    let is_finite = sh_bad[0] == 0u && is_finite_bits(bitcast<u32>(sh_sum[0]));
    if (!is_finite) {
        skipped[0] += 1u;
    }
    let scale = inverse_loss_scale();
    let norm = sqrt(select(0.0, sh_sum[0], is_finite)) * scale;
    let factor = select(min(1.0, step.clip_norm / (norm + 1e-6)), 1.0, step.clip_norm == 0.0) * scale;
    clip[CLIP_NORM] = select(0x7f800000u, bitcast<u32>(norm), is_finite);
    clip[CLIP_FACTOR] = select(0u, bitcast<u32>(factor), is_finite);
    clip[CLIP_FINITE] = select(0u, 1u, is_finite);
    clip[CLIP_SKIPPED] = skipped[0];
    damage[0] = 0u;
}
