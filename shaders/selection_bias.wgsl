// Selection bias of a router, moved by the load alone (loss-free balancing, arXiv 2408.15664), E experts:
//   count:  counts_e += c_e, the assignments of a micro-batch's real tokens        load_e = counts_e / sum_j counts_j
//   update: bias_e += rate sign(mean_j counts_j - counts_e), then counts = 0
// The mean is compared exactly, in integers. Where the gradient was not finite (clip.finite = 0) the bias stays, and the
// counts are cleared all the same.

import package::lib::clip::CLIP_FINITE;
import package::lib::step::real_of;

struct Params {
    tokens: u32, // of the micro-batch, those that fill it up included
    experts_per_token: u32,
    experts: u32,
    rate: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> offsets: array<u32>; // [E + 1]
@group(0) @binding(2) var<storage, read_write> counts: array<u32>;
@group(0) @binding(3) var<storage, read_write> load: array<f32>;
@group(0) @binding(4) var<storage, read> clip: array<u32>;
@group(0) @binding(5) var<storage, read_write> bias: array<f32>;
@group(0) @binding(6) var<storage, read> assignment_of: array<u32>; // of each slot

const INVOCATIONS = 64u; // no fewer than experts

var<workgroup> sh_count: array<u32, INVOCATIONS>;

// The sum of what the experts' invocations share.
fn total() -> u32 {
    var sum = 0u;
    for (var e = 0u; e < params.experts; e++) {
        sum += sh_count[e];
    }
    return sum;
}

// Assignments of real tokens to an expert. Its slots are in the order of the assignments, so that those of tokens that fill the
// micro-batch up come last: the first of them is found by bisection.
fn real_assignments(e: u32) -> u32 {
    let end = real_of(params.tokens) * params.experts_per_token;
    var first = offsets[e];
    var last = offsets[e + 1u];
    while (first < last) {
        let middle = (first + last) / 2u;
        if (assignment_of[middle] < end) {
            first = middle + 1u;
        } else {
            last = middle;
        }
    }
    return first - offsets[e];
}

// One workgroup; an invocation owns one expert.
// grid: 1
@compute @workgroup_size(INVOCATIONS)
fn count(@builtin(local_invocation_index) e: u32) {
    if (e < params.experts) {
        sh_count[e] = counts[e] + real_assignments(e);
    }
    workgroupBarrier();
    if (e < params.experts) {
        counts[e] = sh_count[e];
        load[e] = f32(sh_count[e]) / f32(total());
    }
}

// One workgroup; an invocation owns one expert.
// grid: 1
@compute @workgroup_size(INVOCATIONS)
fn update(@builtin(local_invocation_index) e: u32) {
    if (e < params.experts) {
        sh_count[e] = counts[e];
    }
    workgroupBarrier();
    if (e >= params.experts) {
        return;
    }
    counts[e] = 0u;
    let sum = total();
    let mean = sum / params.experts; // rounded down
    let is_below = sh_count[e] < mean || (sh_count[e] == mean && sum % params.experts > 0u);
    if (clip[CLIP_FINITE] != 0u) {
        bias[e] += params.rate * (f32(is_below) - f32(sh_count[e] > mean));
    }
}
