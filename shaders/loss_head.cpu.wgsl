// Cross-entropy for CPU rasterisers, see loss_head.wgsl: the logits of a chunk are read as texels, and
// their gradient takes their place in the buffer. One invocation walks a row, without barriers.
//
// requires: images
// rank: 10

import package::lib::finite::is_finite_bits;
import package::lib::step::step;

struct Params {
    rows: u32,       // of this chunk; of all chunks in `reduce`
    vocabulary: u32,
    first_row: u32,  // of this chunk
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> targets: array<u32>;
@group(0) @binding(2) var logits_texels: texture_2d<f32>; // of this chunk
@group(0) @binding(3) var<storage, read> d_loss: array<f32>; // [1]
@group(0) @binding(4) var<storage, read_write> row_totals: array<vec4<f32>>; // (loss, counts, correct, non-finite) of a row
@group(0) @binding(5) var<storage, read_write> logits: array<vec4<f32>>; // `gradient` leaves d_logits here
@group(0) @binding(6) var<storage, read_write> totals: array<vec4<f32>>; // row_totals summed [1]
@group(0) @binding(7) var<storage, read_write> loss: array<f32>; // totals.x inverse_targets [1]

const ROWS = 8u; // of a workgroup
const UNROLL = 4u;
const REDUCE_BLOCK = 64u;
const MAX_REDUCE_ROWS = 32768u; // lavapipe leaves a kernel's loops after 65,535 iterations in all
const IGNORED = 0xffffffffu;
const LOWEST = -3.4028234e38;

fn texels() -> u32 {
    return params.vocabulary / 4u;
}

struct Summary {
    peak: f32,   // largest logit
    sum: f32,    // of exp(logit - peak)
    before: f32, // largest logit below the target's index
    worst: u32,  // largest exponent, as masked bits
}

fn largest(v: vec4<f32>) -> f32 {
    return max(max(v.x, v.y), max(v.z, v.w));
}

fn logits_at(texel: u32, row: u32) -> vec4<f32> {
    return textureLoad(logits_texels, vec2<u32>(texel, row), 0);
}

fn indices_of(texel: u32) -> vec4<u32> {
    return vec4<u32>(0u, 1u, 2u, 3u) + 4u * texel;
}

// Four running maxima and sums, one a component; a block's sum is added at once, which also keeps rounding small.
fn summarize(row: u32, target_index: u32) -> Summary {
    let lowest = vec4<f32>(LOWEST);
    var peak = lowest;
    var before = lowest;
    var sum = vec4<f32>();
    var worst = vec4<u32>();
    for (var texel = 0u; texel < texels(); texel += UNROLL) {
        var values: array<vec4<f32>, 4>;
        var block = peak;
        @unroll for (var i = 0u; i < UNROLL; i++) {
            values[i] = logits_at(texel + i, row);
            block = max(block, values[i]);
            before = max(before, select(lowest, values[i], indices_of(texel + i) < vec4<u32>(target_index)));
            worst = max(worst, bitcast<vec4<u32>>(values[i]) & vec4<u32>(0x7f800000u));
        }
        var block_sum = vec4<f32>();
        @unroll for (var i = 0u; i < UNROLL; i++) {
            block_sum += exp(values[i] - block);
        }
        sum = sum * exp(peak - block) + block_sum;
        peak = block;
    }
    let top = largest(peak);
    let scaled = sum * exp(peak - top);
    let total = (scaled.x + scaled.y) + (scaled.z + scaled.w);
    return Summary(top, total, largest(before), max(max(worst.x, worst.y), max(worst.z, worst.w)));
}

// 0, or NaN if the row has a non-finite logit.
fn poison(summary: Summary) -> f32 {
    return bitcast<f32>(select(0u, summary.worst | 0x400000u, !is_finite_bits(summary.worst)));
}

fn totals_of_row(summary: Summary, row: u32, target_index: u32) -> vec4<f32> {
    let texel = min(target_index / 4u, texels() - 1u);
    let logit = largest(select(vec4<f32>(LOWEST), logits_at(texel, row), indices_of(texel) == vec4<u32>(target_index)));
    let row_loss = log(summary.sum) + (summary.peak - logit) + poison(summary);
    let is_correct = logit == summary.peak && summary.before < logit;
    let counted = vec4<f32>(row_loss, 1.0, f32(is_correct), f32(!is_finite_bits(summary.worst)));
    return select(counted, vec4<f32>(), target_index == IGNORED);
}

// Loss alone. An invocation owns a row.
// grid: rows / ROWS
@compute @workgroup_size(ROWS)
fn evaluate(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.rows) {
        return;
    }
    let target_index = targets[params.first_row + id.x];
    row_totals[params.first_row + id.x] = totals_of_row(summarize(id.x, target_index), id.x, target_index);
}

// Loss and the logits' gradient. An invocation owns a row.
// grid: rows / ROWS
@compute @workgroup_size(ROWS)
fn gradient(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.rows) {
        return;
    }
    let target_index = targets[params.first_row + id.x];
    let summary = summarize(id.x, target_index);
    row_totals[params.first_row + id.x] = totals_of_row(summary, id.x, target_index);
    let weight = select(step.inverse_targets * d_loss[0], 0.0, target_index == IGNORED);
    let factor = weight / summary.sum;
    let shift = poison(summary);
    for (var texel = 0u; texel < texels(); texel += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            let onehot = select(vec4<f32>(), vec4<f32>(weight), indices_of(texel + i) == vec4<u32>(target_index));
            let gradient = exp(logits_at(texel + i, id.x) - summary.peak) * factor - onehot + shift;
            logits[id.x * texels() + texel + i] = gradient;
        }
    }
}

// One invocation sums the rows, block by block so that rounding stays small.
// fits: rows <= MAX_REDUCE_ROWS
// grid: 1
@compute @workgroup_size(1)
fn reduce() {
    var sum = vec4<f32>();
    for (var first = 0u; first < params.rows; first += REDUCE_BLOCK) {
        var block_sum = vec4<f32>();
        for (var row = first; row < min(first + REDUCE_BLOCK, params.rows); row++) {
            block_sum += row_totals[row];
        }
        sum += block_sum;
    }
    totals[0] = sum;
    loss[0] = sum.x * step.inverse_targets;
}
