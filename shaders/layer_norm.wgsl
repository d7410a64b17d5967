// Layer norm over the last dimension (Ba et al., arXiv 1607.06450), x [rows, width], w and b [width]:
//   mean = mean_i(x_i)        r = 1 / sqrt(mean_i((x_i - mean)^2) + eps)        u_i = (x_i - mean) r        y_i = u_i w_i + b_i
//   g_i = w_i d_y_i           d_x_i = r (g_i - mean_j(g_j) - u_i mean_j(g_j u_j))
//   d_w_i += sum_rows d_y_i u_i        d_b_i += sum_rows d_y_i

import package::lib::index::flat_workgroup;

struct Params {
    rows: u32,
    width: u32,
    eps: f32,
    blocks: u32, // rows / BLOCK_ROWS, rounded up
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> b: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read_write> mean: array<f32>;
@group(0) @binding(6) var<storage, read_write> r: array<f32>;
@group(0) @binding(7) var<storage, read> d_y: array<f32>;
@group(0) @binding(8) var<storage, read> d_residual: array<f32>;
@group(0) @binding(9) var<storage, read_write> d_x: array<f32>;
@group(0) @binding(10) var<storage, read_write> partial_w: array<f32>; // [blocks, width]
@group(0) @binding(11) var<storage, read_write> partial_b: array<f32>; // [blocks, width]
@group(0) @binding(12) var<storage, read_write> d_w: array<f32>;
@group(0) @binding(13) var<storage, read_write> d_b: array<f32>;

const INVOCATIONS = 64u;
const BLOCK_ROWS = 64u; // that one invocation of backward_weight sums

var<workgroup> sh_sum: array<vec2<f32>, 64>;

// Sums two values an invocation over the workgroup and divides by the width, in a fixed tree.
fn workgroup_mean(value: vec2<f32>, local: u32) -> vec2<f32> {
    sh_sum[local] = value;
    workgroupBarrier();
    for (var half = INVOCATIONS / 2u; half > 0u; half /= 2u) {
        if (local < half) {
            sh_sum[local] += sh_sum[local + half];
        }
        workgroupBarrier();
    }
    let sum = sh_sum[0];
    workgroupBarrier(); // the next call writes
    return sum / f32(params.width);
}

// A workgroup owns a row, an invocation every 64th element of it.
// grid: rows
@compute @workgroup_size(INVOCATIONS)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = min(flat_workgroup(workgroup, workgroups), params.rows - 1u);
    let base = row * params.width;
    var sum = 0.0;
    for (var i = local; i < params.width; i += INVOCATIONS) {
        sum += x[base + i];
    }
    let center = workgroup_mean(vec2<f32>(sum, 0.0), local).x;
    var squares = 0.0;
    for (var i = local; i < params.width; i += INVOCATIONS) {
        squares += (x[base + i] - center) * (x[base + i] - center);
    }
    let scale = inverseSqrt(workgroup_mean(vec2<f32>(squares, 0.0), local).x + params.eps);
    if (local == 0u) {
        mean[row] = center;
        r[row] = scale;
    }
    for (var i = local; i < params.width; i += INVOCATIONS) {
        y[base + i] = (x[base + i] - center) * scale * w[i] + b[i];
    }
}

// (mean_j(g_j), mean_j(g_j u_j))
fn projections(row: u32, local: u32) -> vec2<f32> {
    let base = row * params.width;
    var sums = vec2<f32>();
    for (var i = local; i < params.width; i += INVOCATIONS) {
        let g = w[i] * d_y[base + i];
        sums += g * vec2<f32>(1.0, (x[base + i] - mean[row]) * r[row]);
    }
    return workgroup_mean(sums, local);
}

fn input_gradient(row: u32, i: u32, means: vec2<f32>) -> f32 {
    let at = row * params.width + i;
    let u = (x[at] - mean[row]) * r[row];
    return r[row] * (w[i] * d_y[at] - means.x - u * means.y);
}

// A workgroup owns a row, an invocation every 64th element of it.
// grid: rows
@compute @workgroup_size(INVOCATIONS)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = min(flat_workgroup(workgroup, workgroups), params.rows - 1u);
    let means = projections(row, local);
    for (var i = local; i < params.width; i += INVOCATIONS) {
        d_x[row * params.width + i] = input_gradient(row, i, means);
    }
}

// As backward, plus the gradient that x already has, such as a residual connection's.
// grid: rows
@compute @workgroup_size(INVOCATIONS)
fn backward_residual(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = min(flat_workgroup(workgroup, workgroups), params.rows - 1u);
    let means = projections(row, local);
    for (var i = local; i < params.width; i += INVOCATIONS) {
        let at = row * params.width + i;
        d_x[at] = d_residual[at] + input_gradient(row, i, means);
    }
}

// A workgroup owns 64 columns of a block of rows, an invocation one column: it walks the block in order.
// grid: width / INVOCATIONS, blocks
@compute @workgroup_size(INVOCATIONS)
fn backward_weight(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let column = workgroup.x * INVOCATIONS + local;
    if (column >= params.width) {
        return;
    }
    var sums = vec2<f32>();
    for (var row = workgroup.y * BLOCK_ROWS; row < min((workgroup.y + 1u) * BLOCK_ROWS, params.rows); row++) {
        let at = row * params.width + column;
        sums += d_y[at] * vec2<f32>((x[at] - mean[row]) * r[row], 1.0);
    }
    partial_w[workgroup.y * params.width + column] = sums.x;
    partial_b[workgroup.y * params.width + column] = sums.y;
}

// An invocation owns a column: it adds the blocks' sums in order.
// grid: width / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn reduce_weight(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.width) {
        return;
    }
    var sums = vec2<f32>();
    for (var i = id.x; i < params.blocks * params.width; i += params.width) {
        sums += vec2<f32>(partial_w[i], partial_b[i]);
    }
    d_w[id.x] += sums.x;
    d_b[id.x] += sums.y;
}
