// The gradient of the logits as f16, for products on cooperative matrices: see loss_head.vec4.wgsl.
//
// requires: buffers, f16
// fits: vocabulary % 8 == 0
// rank: 6

import package::lib::step::step;
import package::loss_head::{IGNORED, INVOCATIONS, d_loss, params, poison, row_totals, targets};
import package::loss_head_vec4::{groups, indices_of, logits, summarize, totals_of_row};

enable f16;

@group(0) @binding(7) var<storage, read_write> d_logits: array<vec4<f16>>;

// As gradient, but that the logits stay. A workgroup owns a row, an invocation every 256th group of it.
// grid: rows
@compute @workgroup_size(INVOCATIONS)
fn gradient_halves(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row = workgroup.x;
    let base = row * groups();
    let target_index = targets[params.first_row + row];
    let summary = summarize(base, target_index, local);
    if (local == 0u) {
        row_totals[params.first_row + row] = totals_of_row(summary, base, target_index);
    }
    let weight = select(step.inverse_targets * d_loss[0], 0.0, target_index == IGNORED);
    let factor = weight / summary.sum;
    let shift = poison(summary) * weight;
    for (var group = local; group < groups(); group += INVOCATIONS) {
        let onehot = select(vec4<f32>(), vec4<f32>(weight), indices_of(group) == vec4<u32>(target_index));
        d_logits[base + group] = vec4<f16>(exp(logits[base + group] - summary.peak) * factor - onehot + shift);
    }
}
