// Cross-entropy four logits at a time, as loss_head.wgsl: an invocation keeps one peak and four sums, so that a pass over a row
// evaluates five exponentials for four logits and branches nowhere.
//
// requires: buffers
// fits: vocabulary % 4 == 0
// rank: 5

import package::lib::finite::is_finite_bits;
import package::lib::step::step;
import package::loss_head::{IGNORED, INVOCATIONS, LOWEST, Summary, d_loss, merge, params, poison, row_totals, targets};

@group(0) @binding(2) var<storage, read_write> logits: array<vec4<f32>>; // of this chunk; `gradient` leaves d_logits here

var<workgroup> sh_summary: array<Summary, 256>;

fn groups() -> u32 {
    return params.vocabulary / 4u;
}

fn indices_of(group: u32) -> vec4<u32> {
    return 4u * group + vec4<u32>(0u, 1u, 2u, 3u);
}

fn largest(v: vec4<f32>) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

// The row's summary, in a fixed tree; every invocation gets it. `base` is the row's first group.
fn summarize(base: u32, target_index: u32, local: u32) -> Summary {
    let lowest = vec4<f32>(LOWEST);
    var peak = LOWEST;
    var sum = vec4<f32>();
    var before = lowest;
    var worst = vec4<u32>();
    for (var group = local; group < groups(); group += INVOCATIONS) {
        let values = logits[base + group];
        worst = max(worst, bitcast<vec4<u32>>(values) & vec4<u32>(0x7f800000u));
        before = max(before, select(lowest, values, indices_of(group) < vec4<u32>(target_index)));
        let top = max(peak, largest(values));
        sum = sum * exp(peak - top) + exp(values - top);
        peak = top;
    }
    let worst_of_four = max(max(worst.x, worst.y), max(worst.z, worst.w));
    sh_summary[local] = Summary(peak, (sum.x + sum.y) + (sum.z + sum.w), largest(before), worst_of_four);
    workgroupBarrier();
    for (var half = INVOCATIONS / 2u; half > 0u; half /= 2u) {
        if (local < half) {
            sh_summary[local] = merge(sh_summary[local], sh_summary[local + half]);
        }
        workgroupBarrier();
    }
    return sh_summary[0];
}

fn totals_of_row(summary: Summary, base: u32, target_index: u32) -> vec4<f32> {
    if (target_index == IGNORED) {
        return vec4<f32>();
    }
    let index = min(target_index, params.vocabulary - 1u);
    let logit = logits[base + index / 4u][index % 4u];
    let row_loss = log(summary.sum) + (summary.peak - logit) + poison(summary);
    let is_correct = logit == summary.peak && summary.before < logit;
    return vec4<f32>(row_loss, 1.0, f32(is_correct), f32(!is_finite_bits(summary.worst)));
}

// Loss alone. A workgroup owns a row, an invocation every 256th group of it.
// grid: rows
@compute @workgroup_size(INVOCATIONS)
fn evaluate(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = workgroup.x;
    let target_index = targets[params.first_row + row];
    let summary = summarize(row * groups(), target_index, local);
    if (local == 0u) {
        row_totals[params.first_row + row] = totals_of_row(summary, row * groups(), target_index);
    }
}

// Loss, and the logits' gradient in their place. A workgroup owns a row, an invocation every 256th group of it.
// grid: rows
@compute @workgroup_size(INVOCATIONS)
fn gradient(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = workgroup.x;
    let base = row * groups();
    let target_index = targets[params.first_row + row];
    let summary = summarize(base, target_index, local);
    if (local == 0u) {
        row_totals[params.first_row + row] = totals_of_row(summary, base, target_index);
    }
    storageBarrier(); // The target's logit is read before it is replaced.
    let weight = select(step.inverse_targets * d_loss[0], 0.0, target_index == IGNORED);
    let factor = weight / summary.sum;
    let shift = poison(summary) * weight;
    for (var group = local; group < groups(); group += INVOCATIONS) {
        let onehot = select(vec4<f32>(), vec4<f32>(weight), indices_of(group) == vec4<u32>(target_index));
        logits[base + group] = exp(logits[base + group] - summary.peak) * factor - onehot + shift;
    }
}
