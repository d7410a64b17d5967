// Cross-entropy of logits l [rows, vocabulary] against targets [rows], one chunk of rows at a time:
//   p = softmax(l)     loss = -ln p[target]     d_l = (p - onehot(target)) inverse_targets d_loss
// A row whose target is 2^32 - 1 is ignored. A row is correct if its target has the largest logit and no lower index
// shares it. A row with a non-finite logit, found by bit pattern, is counted and makes loss and gradient NaN.
// Chunking follows Liger Kernel (Hsu et al., arXiv 2410.10989): the gradient takes the place of the logits, so that no
// more than one chunk of logits exists.

import package::lib::finite::is_finite_bits;
import package::lib::index::flat_workgroup;
import package::lib::step::step;

struct Params {
    rows: u32,       // of this chunk; of all chunks in `reduce`
    vocabulary: u32,
    first_row: u32,  // of this chunk
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var<storage, read_write> logits: array<f32>; // of this chunk; `gradient` leaves d_logits here
@group(0) @binding(3) var<storage, read> d_loss: array<f32>;       // [1]
@group(0) @binding(4) var<storage, read_write> row_totals: array<vec4<f32>>; // (loss, counts, correct, non-finite) of a row
@group(0) @binding(5) var<storage, read_write> totals: array<f32>; // row_totals summed [4]
@group(0) @binding(6) var<storage, read_write> loss: array<f32>;   // totals.x inverse_targets [1]

const INVOCATIONS = 256u;
const IGNORED = 0xffffffffu;
const LOWEST = -3.4028234e38;

// The result of one pass over some logits of a row.
struct Summary {
    peak: f32,   // largest logit
    sum: f32,    // of exp(logit - peak)
    before: f32, // largest logit below the target's index
    worst: u32,  // largest exponent, as masked bits
}

var<workgroup> sh_summary: array<Summary, 256>;
var<workgroup> sh_row_totals: array<vec4<f32>, 256>;

fn merge(a: Summary, b: Summary) -> Summary {
    let peak = max(a.peak, b.peak);
    let sum = a.sum * exp(a.peak - peak) + b.sum * exp(b.peak - peak);
    return Summary(peak, sum, max(a.before, b.before), max(a.worst, b.worst));
}

// The row's summary, in a fixed tree; every invocation gets it.
fn summarize(base: u32, target_index: u32, local: u32) -> Summary {
    var own = Summary(LOWEST, 0.0, LOWEST, 0u);
    for (var i = local; i < params.vocabulary; i += INVOCATIONS) {
        let logit = logits[base + i];
        own.worst = max(own.worst, bitcast<u32>(logit) & 0x7f800000u);
        if (i < target_index) {
            own.before = max(own.before, logit);
        }
        if (logit > own.peak) {
            own.sum = own.sum * exp(own.peak - logit) + 1.0;
            own.peak = logit;
        } else {
            own.sum += exp(logit - own.peak);
        }
    }
    sh_summary[local] = own;
    workgroupBarrier();
    for (var half = INVOCATIONS / 2u; half > 0u; half /= 2u) {
        if (local < half) {
            sh_summary[local] = merge(sh_summary[local], sh_summary[local + half]);
        }
        workgroupBarrier();
    }
    return sh_summary[0];
}

// 0, or NaN if the row has a non-finite logit.
fn poison(summary: Summary) -> f32 {
    return bitcast<f32>(select(0u, summary.worst | 0x400000u, !is_finite_bits(summary.worst)));
}

fn totals_of_row(summary: Summary, base: u32, target_index: u32) -> vec4<f32> {
    if (target_index == IGNORED) {
        return vec4<f32>();
    }
    let logit = logits[base + min(target_index, params.vocabulary - 1u)];
    let row_loss = log(summary.sum) + (summary.peak - logit) + poison(summary);
    let is_correct = logit == summary.peak && summary.before < logit;
    return vec4<f32>(row_loss, 1.0, f32(is_correct), f32(!is_finite_bits(summary.worst)));
}

// Loss alone. A workgroup owns a row, an invocation every 256th logit of it.
// grid: rows
@compute @workgroup_size(INVOCATIONS)
fn evaluate(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = workgroup.x;
    let base = row * params.vocabulary;
    let target_index = targets[params.first_row + row];
    let summary = summarize(base, target_index, local);
    if (local == 0u) {
        row_totals[params.first_row + row] = totals_of_row(summary, base, target_index);
    }
}

// Loss, and the logits' gradient in their place. A workgroup owns a row, an invocation every 256th logit of it.
// grid: rows
@compute @workgroup_size(INVOCATIONS)
fn gradient(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = workgroup.x;
    let base = row * params.vocabulary;
    let target_index = targets[params.first_row + row];
    let summary = summarize(base, target_index, local);
    if (local == 0u) {
        row_totals[params.first_row + row] = totals_of_row(summary, base, target_index);
    }
    storageBarrier(); // The target's logit is read before it is replaced.
    let weight = select(step.inverse_targets * d_loss[0], 0.0, target_index == IGNORED);
    let shift = poison(summary);
    for (var i = local; i < params.vocabulary; i += INVOCATIONS) {
        let probability = exp(logits[base + i] - summary.peak) / summary.sum + shift;
        logits[base + i] = (probability - select(0.0, 1.0, i == target_index)) * weight;
    }
}

// One workgroup sums the rows in a fixed tree, an invocation every 256th row.
// grid: 1
@compute @workgroup_size(INVOCATIONS)
fn reduce(@builtin(local_invocation_index) local: u32) {
    var sum = vec4<f32>();
    for (var row = local; row < params.rows; row += INVOCATIONS) {
        sum += row_totals[row];
    }
    sh_row_totals[local] = sum;
    workgroupBarrier();
    for (var half = INVOCATIONS / 2u; half > 0u; half /= 2u) {
        if (local < half) {
            sh_row_totals[local] += sh_row_totals[local + half];
        }
        workgroupBarrier();
    }
    if (local < 4u) {
        totals[local] = sh_row_totals[0][local];
    }
    if (local == 0u) {
        loss[0] = sh_row_totals[0].x * step.inverse_targets;
    }
}
