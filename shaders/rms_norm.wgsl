// Root-mean-square norm over the last dimension (Zhang & Sennrich, arXiv 1910.07467), x [rows, width], w [width]:
//   r = 1 / sqrt(mean_i(x_i^2) + eps)        y_i = x_i r w_i
//   d_x_i = r (w_i d_y_i - x_i r^2 mean_j(w_j d_y_j x_j))        d_w_i += sum_rows d_y_i x_i r

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
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> r: array<f32>;
@group(0) @binding(5) var<storage, read> d_y: array<f32>;
@group(0) @binding(6) var<storage, read_write> d_x: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_w: array<f32>;
@group(0) @binding(8) var<storage, read> d_residual: array<f32>;
@group(0) @binding(9) var<storage, read_write> partial: array<f32>; // [blocks, width]

const INVOCATIONS = 64u;
const BLOCK_ROWS = 64u; // that one invocation of backward_weight sums

var<workgroup> sh_sum: array<f32, 64>;

// Sums one value an invocation over the workgroup, in a fixed tree.
fn workgroup_sum(value: f32, local: u32) -> f32 {
    sh_sum[local] = value;
    workgroupBarrier();
    for (var half = INVOCATIONS / 2u; half > 0u; half /= 2u) {
        if (local < half) {
            sh_sum[local] += sh_sum[local + half];
        }
        workgroupBarrier();
    }
    return sh_sum[0];
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
        sum += x[base + i] * x[base + i];
    }
    let scale = inverseSqrt(workgroup_sum(sum, local) / f32(params.width) + params.eps);
    if (local == 0u) {
        r[row] = scale;
    }
    for (var i = local; i < params.width; i += INVOCATIONS) {
        y[base + i] = x[base + i] * scale * w[i];
    }
}

// r^2 mean_j(w_j d_y_j x_j)
fn projection(base: u32, scale: f32, local: u32) -> f32 {
    var sum = 0.0;
    for (var i = local; i < params.width; i += INVOCATIONS) {
        sum += w[i] * d_y[base + i] * x[base + i];
    }
    return workgroup_sum(sum, local) / f32(params.width) * scale * scale;
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
    let base = row * params.width;
    let scale = r[row];
    let mean = projection(base, scale, local);
    for (var i = local; i < params.width; i += INVOCATIONS) {
        d_x[base + i] = scale * (w[i] * d_y[base + i] - x[base + i] * mean);
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
    let base = row * params.width;
    let scale = r[row];
    let mean = projection(base, scale, local);
    for (var i = local; i < params.width; i += INVOCATIONS) {
        d_x[base + i] = d_residual[base + i] + scale * (w[i] * d_y[base + i] - x[base + i] * mean);
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
    var sum = 0.0;
    for (var row = workgroup.y * BLOCK_ROWS; row < min((workgroup.y + 1u) * BLOCK_ROWS, params.rows); row++) {
        sum += d_y[row * params.width + column] * x[row * params.width + column] * r[row];
    }
    partial[workgroup.y * params.width + column] = sum;
}

// An invocation owns a column: it adds the blocks' sums in order.
// grid: width / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn reduce_weight(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.width) {
        return;
    }
    var sum = 0.0;
    for (var i = id.x; i < params.blocks * params.width; i += params.width) {
        sum += partial[i];
    }
    d_w[id.x] += sum;
}
