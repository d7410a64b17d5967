// Router of a mixture of experts (Shazeer et al., arXiv 1701.06538), x [N, D], w [E, D], K experts a token:
//   logits = x w^T + bias + noise_std z, z ~ N(0, 1)        logsumexp = log sum_e exp(logits_e)
//   score = softmax_e(logits), or sigmoid(logits) (DeepSeek-V3, arXiv 2412.19437; sigma-MoE, arXiv 2310.10837)
//   p = score / sum_e score        entropy = -sum_e p_e log p_e
//   choice score = score + selection_bias (arXiv 2408.15664); a group's is the sum of the two best of its experts
//   expert_k = the k-th largest choice score in the kept_groups best of the groups, ties to the lowest index
//   or, if balance is forced, expert_k of token n = (n K + k) mod E
//   gate_k = scale score of expert_k, divided by the sum of the K scores if it renormalizes
//   d_logits_e = l_e (p_e (d_p_e - sum_j p_j d_p_j) + sum_{k: expert_k = e} gate_k d_gate_k - share_e g)
//              + softmax_e(logits) d_logsumexp, g = sum_k gate_k d_gate_k
//     l_e = 1 for softmax, 1 - score_e for sigmoid
//     share_e = sum_{k: expert_k = e} gate_k / scale if it renormalizes; else p_e for softmax, 0 for sigmoid
//   d_x = d_logits w + what x's other readers gave (d_residual)        d_w += d_logits^T x        d_bias += sum_n d_logits_n
// The noise is drawn once: the logits that are kept are the noisy ones. The choice of experts has no gradient, so neither
// has selection_bias.

import package::lib::index::flat_workgroup;
import package::lib::random::{normal, random_bits};
import package::lib::step::step;

struct Params {
    tokens: u32,
    width: u32,
    experts: u32,
    experts_per_token: u32,
    is_sigmoid: u32,
    renormalizes: u32,
    scale: f32,
    forces_balance: u32,
    groups: u32,
    kept_groups: u32,
    chooses_by_logit: u32,  // no selection bias and one group: scores need not be compared
    has_selection_bias: u32,
    has_bias: u32,
    noise_std: f32,
    adds_noise: u32,        // forward adds the noise
    stream: u32,
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
@group(0) @binding(21) var<storage, read> bias: array<f32>;
@group(0) @binding(22) var<storage, read> selection_bias: array<f32>;
@group(0) @binding(23) var<storage, read_write> d_bias: array<f32>;
@group(0) @binding(24) var<storage, read_write> parts: array<f32>; // of d_w, [parts, E, D]

const INVOCATIONS = 64u;
const MAX_EXPERTS_PER_TOKEN = 16u;
const EPSILON = 1e-20; // in denominators, as DeepSeek-V3
const MAX_EXPERTS = 64u;
const STRIDE = MAX_EXPERTS; // row length of d_logits: beyond E, zeros up to a multiple of 4
const LOWEST = -3.4028234e38;
const COLUMNS = 16u; // of d_w, a workgroup
const LANES = 16u;   // that share the tokens of a column
const TOKENS_OF_PART = 512u;

var<workgroup> sh_sum: array<f32, 256>;
var<workgroup> sh_sum4: array<vec4<f32>, 256>;

// An invocation owns one logit.
// grid: tokens * experts / INVOCATIONS
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
    if (params.has_bias != 0u) {
        sum += bias[i % params.experts];
    }
    if (params.adds_noise != 0u) {
        sum += noise(i);
    }
    logits[i] = sum;
}

fn noise(i: u32) -> f32 {
    return params.noise_std * normal(random_bits(i, params.stream, step.micro_step, step.seed_low, step.seed_high));
}

// Adds the noise where forward has not. An invocation owns one logit.
// grid: tokens * experts / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn add_noise(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i < params.tokens * params.experts) {
        logits[i] = saved_logits[i] + noise(i);
    }
}

// Up to 64 experts or groups as a bit set.
fn bit(e: u32) -> vec2<u32> {
    return select(vec2<u32>(1u << e, 0u), vec2<u32>(0u, 1u << (e & 31u)), e >= 32u);
}

fn has_bit(bits: vec2<u32>, e: u32) -> bool {
    return any((bits & bit(e)) != vec2<u32>());
}

fn largest_logit(row: u32) -> f32 {
    var peak = saved_logits[row];
    for (var e = 1u; e < params.experts; e++) {
        peak = max(peak, saved_logits[row + e]);
    }
    return peak;
}

fn exp_sum(row: u32, peak: f32) -> f32 {
    var sum = 0.0;
    for (var e = 0u; e < params.experts; e++) {
        sum += exp(saved_logits[row + e] - peak);
    }
    return sum;
}

fn sigmoid(logit: f32) -> f32 {
    let small = exp(-abs(logit));
    return select(small, 1.0, logit >= 0.0) / (1.0 + small);
}

// A score before it is divided by `whole` (see top_k).
fn raw_score(logit: f32, peak: f32) -> f32 {
    if (params.is_sigmoid != 0u) {
        return sigmoid(logit);
    }
    return exp(logit - peak);
}

fn log_raw_score(logit: f32, peak: f32) -> f32 {
    if (params.is_sigmoid != 0u) {
        return min(logit, 0.0) - log(1.0 + exp(-abs(logit)));
    }
    return logit - peak;
}

fn choice_score(i: u32, e: u32, peak: f32, whole: f32) -> f32 {
    if (params.chooses_by_logit != 0u) {
        return saved_logits[i];
    }
    let score = raw_score(saved_logits[i], peak) / whole;
    if (params.has_selection_bias != 0u) {
        return score + selection_bias[e];
    }
    return score;
}

// The kept groups as a bit set; a group of one expert counts with that one's choice score.
fn best_groups(row: u32, peak: f32, whole: f32) -> vec2<u32> {
    let members = params.experts / params.groups;
    var kept = vec2<u32>();
    for (var i = 0u; i < params.kept_groups; i++) {
        var best = params.groups;
        var best_score = 0.0;
        for (var group = 0u; group < params.groups; group++) {
            var first = LOWEST;
            var second = LOWEST;
            for (var e = group * members; e < (group + 1u) * members; e++) {
                let score = choice_score(row + e, e, peak, whole);
                second = max(second, min(first, score));
                first = max(first, score);
            }
            let score = select(first + second, first, members == 1u);
            if (!has_bit(kept, group) && (best == params.groups || score > best_score)) {
                best = group;
                best_score = score;
            }
        }
        kept |= bit(best);
    }
    return kept;
}

// An invocation owns one token. Comparisons are written so that even a NaN yields K different experts.
// grid: tokens / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn top_k(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.tokens) {
        return;
    }
    let row = id.x * params.experts;
    let peak = largest_logit(row);
    var total = exp_sum(row, peak);
    logsumexp[id.x] = peak + log(total);
    if (params.is_sigmoid != 0u) {
        total = EPSILON;
        for (var e = 0u; e < params.experts; e++) {
            total += sigmoid(saved_logits[row + e]);
        }
    }
    var mean = 0.0; // of log_raw_score, under p
    for (var e = 0u; e < params.experts; e++) {
        let p = raw_score(saved_logits[row + e], peak) / total;
        probabilities[row + e] = p;
        mean += p * log_raw_score(saved_logits[row + e], peak);
    }
    entropy[id.x] = log(total) - mean;

    let whole = select(total, 1.0, params.is_sigmoid != 0u);
    var kept = bit(0u);
    if (params.groups > 1u) {
        kept = best_groups(row, peak, whole);
    }
    let members = params.experts / params.groups;
    let is_forced = params.forces_balance != 0u;
    let searched = select(params.experts, 0u, is_forced);
    var taken = vec2<u32>();
    var selected = array<f32, MAX_EXPERTS_PER_TOKEN>(); // raw scores
    var selected_total = EPSILON;
    for (var k = 0u; k < params.experts_per_token; k++) {
        var best = select(params.experts, (id.x * params.experts_per_token + k) % params.experts, is_forced);
        var best_score = 0.0;
        for (var e = 0u; e < searched; e++) {
            let score = choice_score(row + e, e, peak, whole);
            if (has_bit(kept, e / members) && !has_bit(taken, e) && (best == params.experts || score > best_score)) {
                best = e;
                best_score = score;
            }
        }
        taken |= bit(best);
        expert[id.x * params.experts_per_token + k] = best;
        selected[k] = raw_score(saved_logits[row + best], peak);
        selected_total += selected[k];
    }
    let denominator = select(whole, selected_total, params.renormalizes != 0u);
    for (var k = 0u; k < params.experts_per_token; k++) {
        gate[id.x * params.experts_per_token + k] = params.scale * (selected[k] / denominator);
    }
}

// d_logits. An invocation owns one token.
// grid: tokens / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn backward_logits(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.tokens) {
        return;
    }
    let is_sigmoid = params.is_sigmoid != 0u;
    let renormalizes = params.renormalizes != 0u;
    let row = id.x * params.experts;
    let choice = id.x * params.experts_per_token;
    var mean_d_gate = 0.0;
    if (params.has_d_gate != 0u) {
        for (var k = 0u; k < params.experts_per_token; k++) {
            mean_d_gate += saved_gate[choice + k] * d_gate[choice + k];
        }
        mean_d_gate /= select(1.0, params.scale, renormalizes);
    }
    var mean_d_p = 0.0;
    if (params.has_d_probabilities != 0u) {
        for (var e = 0u; e < params.experts; e++) {
            mean_d_p += saved_probabilities[row + e] * d_probabilities[row + e];
        }
    }
    var shift = -mean_d_p;
    var log_total = 0.0; // The logsumexp, where p is not the softmax.
    if (params.has_d_logsumexp != 0u) {
        if (is_sigmoid) {
            let peak = largest_logit(row);
            log_total = peak + log(exp_sum(row, peak));
        } else {
            shift += d_logsumexp[id.x];
        }
    }
    for (var e = 0u; e < params.experts; e++) {
        let p = saved_probabilities[row + e];
        var d = p * shift;
        if (params.has_d_probabilities != 0u) {
            d += p * d_probabilities[row + e];
        }
        if (params.has_d_gate != 0u) {
            var weight = 0.0;
            for (var k = 0u; k < params.experts_per_token; k++) {
                if (saved_expert[choice + k] == e) {
                    weight = saved_gate[choice + k];
                    d += weight * d_gate[choice + k];
                }
            }
            let share = select(select(p, 0.0, is_sigmoid), weight, renormalizes);
            d -= share * mean_d_gate;
        }
        if (is_sigmoid) {
            d *= sigmoid(-saved_logits[row + e]);
            if (params.has_d_logsumexp != 0u) {
                d += exp(saved_logits[row + e] - log_total) * d_logsumexp[id.x];
            }
        }
        d_logits[id.x * STRIDE + e] = d;
    }
    for (var e = params.experts; e < (params.experts + 3u) / 4u * 4u; e++) {
        d_logits[id.x * STRIDE + e] = 0.0;
    }
}

// d_x. An invocation owns one element.
// grid: tokens * width / INVOCATIONS
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
    let row = i / params.width * STRIDE;
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
// grid: width / COLUMNS, experts
@compute @workgroup_size(256)
fn backward_weight(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let column = workgroup.x * COLUMNS + local % COLUMNS;
    var sum = 0.0;
    if (column < params.width) {
        for (var n = local / COLUMNS; n < params.tokens; n += LANES) {
            sum = fma(saved_d_logits[n * STRIDE + workgroup.y], x[n * params.width + column], sum);
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

// d_w in parts of TOKENS_OF_PART tokens (z of the grid), [parts, experts, width], which are summed in order afterwards: a few experts
// make too few workgroups to walk many tokens. A workgroup owns 16 columns of four experts' rows (y of the grid), its 16 invocations a
// column share the tokens as in backward_weight.
// grid: width / COLUMNS, experts / 4, tokens / TOKENS_OF_PART
@compute @workgroup_size(256)
fn backward_weight_parts(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let column = workgroup.x * COLUMNS + local % COLUMNS;
    let expert = 4u * workgroup.y;
    let first = workgroup.z * TOKENS_OF_PART;
    var sum = vec4<f32>();
    if (column < params.width) {
        for (var n = first + local / COLUMNS; n < min(first + TOKENS_OF_PART, params.tokens); n += LANES) {
            let at = n * STRIDE + expert; // Rows of saved_d_logits are zero beyond E up to a multiple of 4.
            let d = vec4<f32>(saved_d_logits[at], saved_d_logits[at + 1u], saved_d_logits[at + 2u], saved_d_logits[at + 3u]);
            sum = fma(d, vec4<f32>(x[n * params.width + column]), sum);
        }
    }
    sh_sum4[local] = sum;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if (local < half * COLUMNS) {
            sh_sum4[local] += sh_sum4[local + half * COLUMNS];
        }
        workgroupBarrier();
    }
    let row = expert + local / COLUMNS;
    if (local < 4u * COLUMNS && row < params.experts && column < params.width) {
        parts[(workgroup.z * params.experts + row) * params.width + column] = sh_sum4[local % COLUMNS][local / COLUMNS];
    }
}

// d_bias. A workgroup owns one expert: each invocation walks every 256th token in order, then their sums meet in a fixed
// tree.
// grid: experts
@compute @workgroup_size(256)
fn backward_bias(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var sum = 0.0;
    for (var n = local; n < params.tokens; n += 256u) {
        sum += saved_d_logits[n * STRIDE + workgroup.x];
    }
    sh_sum[local] = sum;
    workgroupBarrier();
    for (var half = 128u; half > 0u; half /= 2u) {
        if (local < half) {
            sh_sum[local] += sh_sum[local + half];
        }
        workgroupBarrier();
    }
    if (local == 0u) {
        d_bias[workgroup.x] += sh_sum[0];
    }
}
