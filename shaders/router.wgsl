// Router of a mixture of experts (Shazeer et al., arXiv 1701.06538), x [N, D], w [E, D], K experts a token:
//   logits = x w^T + s z, z ~ N(0, 1)        p = softmax_e(logits)        logsumexp = log sum_e exp(logits_e)
//   expert_k = the k-th largest logit, ties to the lowest index        entropy = -sum_e p_e log p_e
//   gate = softmax over the K selected logits, or with gate_over_all the selected p
//   d_logits_e = p_e (d_p_e - sum_j p_j d_p_j) + p_e d_logsumexp                          (from the auxiliary losses)
//              + sum_{k: expert_k = e} gate_k (d_gate_k - g), g = sum_k gate_k d_gate_k    (selected)
//           or + sum_{k: expert_k = e} gate_k d_gate_k - p_e g                             (gate_over_all)
//   d_x = d_logits w + what x's other readers gave (d_residual)        d_w += d_logits^T x
// The noise is drawn once: the logits that are kept are the noisy ones. The choice of experts has no gradient.

import package::lib::index::flat_workgroup;
import package::lib::random::{normal, random_bits};
import package::lib::step::step;

struct Params {
    tokens: u32,
    width: u32,
    experts: u32,
    experts_per_token: u32,
    gate_over_all: u32,
    noise_std: f32,
    stream: u32,
    stride: u32,            // row length of d_logits, E or more: the rest up to a multiple of 4 is zero
    has_d_gate: u32,
    has_d_probabilities: u32,
    has_d_logsumexp: u32,
    has_d_residual: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read_write> logits: array<f32>;
@group(0) @binding(4) var<storage, read> saved_logits: array<f32>;
@group(0) @binding(5) var<storage, read_write> expert: array<u32>;
@group(0) @binding(6) var<storage, read_write> gate: array<f32>;
@group(0) @binding(7) var<storage, read_write> probabilities: array<f32>;
@group(0) @binding(8) var<storage, read_write> logsumexp: array<f32>;
@group(0) @binding(9) var<storage, read_write> entropy: array<f32>;
@group(0) @binding(10) var<storage, read> saved_expert: array<u32>;
@group(0) @binding(11) var<storage, read> saved_gate: array<f32>;
@group(0) @binding(12) var<storage, read> saved_probabilities: array<f32>;
@group(0) @binding(13) var<storage, read> d_gate: array<f32>;
@group(0) @binding(14) var<storage, read> d_probabilities: array<f32>;
@group(0) @binding(15) var<storage, read> d_logsumexp: array<f32>;
@group(0) @binding(16) var<storage, read_write> d_logits: array<f32>;
@group(0) @binding(17) var<storage, read> saved_d_logits: array<f32>;
@group(0) @binding(18) var<storage, read> d_residual: array<f32>;
@group(0) @binding(19) var<storage, read_write> d_x: array<f32>;
@group(0) @binding(20) var<storage, read_write> d_w: array<f32>;

const INVOCATIONS = 64u;
const MAX_EXPERTS_PER_TOKEN = 8u;
const COLUMNS = 16u; // of d_w, a workgroup
const LANES = 16u;   // that share the tokens of a column

var<workgroup> sh_sum: array<f32, 256>;

// An invocation owns one logit.
@compute @workgroup_size(INVOCATIONS)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i >= params.tokens * params.experts) {
        return;
    }
    let row = i / params.experts * params.width;
    let column = i % params.experts * params.width;
    var sum = 0.0;
    for (var d = 0u; d < params.width; d++) {
        sum = fma(x[row + d], w[column + d], sum);
    }
    logits[i] = sum;
}

// Adds the noise; without it this is not launched. An invocation owns one logit.
@compute @workgroup_size(INVOCATIONS)
fn add_noise(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i < params.tokens * params.experts) {
        let z = normal(random_bits(i, params.stream, step.micro_step, step.seed_low, step.seed_high));
        logits[i] = saved_logits[i] + params.noise_std * z;
    }
}

// Up to 64 experts as a bit set.
fn bit(e: u32) -> vec2<u32> {
    return select(vec2<u32>(1u << e, 0u), vec2<u32>(0u, 1u << (e & 31u)), e >= 32u);
}

// An invocation owns one token. Comparisons are written so that even a NaN yields K different experts.
@compute @workgroup_size(INVOCATIONS)
fn top_k(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.tokens) {
        return;
    }
    let row = id.x * params.experts;
    var peak = saved_logits[row];
    for (var e = 1u; e < params.experts; e++) {
        peak = max(peak, saved_logits[row + e]);
    }
    var total = 0.0;
    for (var e = 0u; e < params.experts; e++) {
        total += exp(saved_logits[row + e] - peak);
    }
    var mean = 0.0; // of logit - peak, under p
    for (var e = 0u; e < params.experts; e++) {
        let below = saved_logits[row + e] - peak;
        let p = exp(below) / total;
        probabilities[row + e] = p;
        mean += p * below;
    }
    logsumexp[id.x] = peak + log(total);
    entropy[id.x] = log(total) - mean;

    var taken = vec2<u32>();
    var selected = array<f32, MAX_EXPERTS_PER_TOKEN>(); // exp(logit - peak)
    var selected_total = 0.0;
    for (var k = 0u; k < params.experts_per_token; k++) {
        var best = params.experts;
        var best_logit = 0.0;
        for (var e = 0u; e < params.experts; e++) {
            let logit = saved_logits[row + e];
            if (all((taken & bit(e)) == vec2<u32>()) && (best == params.experts || logit > best_logit)) {
                best = e;
                best_logit = logit;
            }
        }
        taken |= bit(best);
        expert[id.x * params.experts_per_token + k] = best;
        selected[k] = exp(best_logit - peak);
        selected_total += selected[k];
    }
    let denominator = select(selected_total, total, params.gate_over_all != 0u);
    for (var k = 0u; k < params.experts_per_token; k++) {
        gate[id.x * params.experts_per_token + k] = selected[k] / denominator;
    }
}

// d_logits. An invocation owns one token.
@compute @workgroup_size(INVOCATIONS)
fn backward_logits(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.tokens) {
        return;
    }
    let row = id.x * params.experts;
    let choice = id.x * params.experts_per_token;
    var mean_d_gate = 0.0;
    if (params.has_d_gate != 0u) {
        for (var k = 0u; k < params.experts_per_token; k++) {
            mean_d_gate += saved_gate[choice + k] * d_gate[choice + k];
        }
    }
    var mean_d_p = 0.0;
    if (params.has_d_probabilities != 0u) {
        for (var e = 0u; e < params.experts; e++) {
            mean_d_p += saved_probabilities[row + e] * d_probabilities[row + e];
        }
    }
    var shift = -mean_d_p;
    if (params.has_d_logsumexp != 0u) {
        shift += d_logsumexp[id.x];
    }
    for (var e = 0u; e < params.experts; e++) {
        let p = saved_probabilities[row + e];
        var d = p * shift;
        if (params.has_d_probabilities != 0u) {
            d += p * d_probabilities[row + e];
        }
        if (params.has_d_gate != 0u) {
            var share = select(0.0, p, params.gate_over_all != 0u);
            for (var k = 0u; k < params.experts_per_token; k++) {
                if (saved_expert[choice + k] == e) {
                    share = saved_gate[choice + k];
                    d += share * d_gate[choice + k];
                }
            }
            d -= share * mean_d_gate;
        }
        d_logits[id.x * params.stride + e] = d;
    }
    for (var e = params.experts; e < min(params.stride, (params.experts + 3u) / 4u * 4u); e++) {
        d_logits[id.x * params.stride + e] = 0.0;
    }
}

// d_x. An invocation owns one element.
@compute @workgroup_size(INVOCATIONS)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i >= params.tokens * params.width) {
        return;
    }
    let row = i / params.width * params.stride;
    var sum = 0.0;
    for (var e = 0u; e < params.experts; e++) {
        sum = fma(saved_d_logits[row + e], w[e * params.width + i % params.width], sum);
    }
    if (params.has_d_residual != 0u) {
        sum += d_residual[i];
    }
    d_x[i] = sum;
}

// d_w. A workgroup owns 16 columns of one expert's row (y of the grid); 16 invocations share a column: each walks every
// 16th token in order, then their sums meet in a fixed tree.
@compute @workgroup_size(256)
fn backward_weight(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let column = workgroup.x * COLUMNS + local % COLUMNS;
    var sum = 0.0;
    if (column < params.width) {
        for (var n = local / COLUMNS; n < params.tokens; n += LANES) {
            sum = fma(saved_d_logits[n * params.stride + workgroup.y], x[n * params.width + column], sum);
        }
    }
    sh_sum[local] = sum;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if (local < half * COLUMNS) {
            sh_sum[local] += sh_sum[local + half * COLUMNS];
        }
        workgroupBarrier();
    }
    if (local < COLUMNS && column < params.width) {
        d_w[workgroup.y * params.width + column] += sh_sum[local];
    }
}
