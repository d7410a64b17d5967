// Layer norm over the last dimension (Ba et al., arXiv 1607.06450), x [rows, width], w and b [width]:
//   mean = mean_i(x_i)        r = 1 / sqrt(mean_i((x_i - mean)^2) + eps)        u_i = (x_i - mean) r        y_i = u_i w_i + b_i
//   g_i = w_i d_y_i           d_x_i = r (g_i - mean_j(g_j) - u_i mean_j(g_j u_j))
//   d_w_i += sum_rows d_y_i u_i        d_b_i += sum_rows d_y_i

import package::lib::index::flat_workgroup;

struct Params {
    rows: u32,
    width: u32,
    eps: f32,
    blocks: u32, // of rows, each with its row of partial
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
@group(0) @binding(14) var<storage, read_write> partial: array<f32>; // [blocks, 2 width], of w and of b

const INVOCATIONS = 64u;
const BLOCK_ROWS = 64u; // that one invocation of backward_weight sums
const WIDE = 256u;       // invocations of a workgroup of backward_block and reduce_blocks
const OWN_ROWS = 8u;     // of a workgroup of backward_block
const ROW_LANES = 32u;   // invocations that share a row in it
const COLUMNS = 16u;     // of d_w and d_b, a workgroup of reduce_blocks
const LANES = 16u;       // that share the blocks of a column

var<workgroup> sh_sum: array<vec2<f32>, 64>;
var<workgroup> sh_wide: array<vec2<f32>, WIDE>;
var<workgroup> sh_column: array<f32, WIDE>;
var<workgroup> sh_center: array<f32, OWN_ROWS>;
var<workgroup> sh_scale: array<f32, OWN_ROWS>;
var<workgroup> sh_means: array<vec2<f32>, OWN_ROWS>;

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

// Of each row of a workgroup mean, in sh_center, r, in sh_scale, and (mean_j(g_j), mean_j(g_j u_j)), in sh_means. ROW_LANES invocations
// share a row, whose sums meet in a fixed tree.
fn block_projections(first: u32, local: u32) {
    let lane = local % ROW_LANES;
    let row = min(first + local / ROW_LANES, params.rows - 1u);
    var sums = vec2<f32>();
    for (var i = lane; i < params.width; i += ROW_LANES) {
        let at = row * params.width + i;
        sums += w[i] * d_y[at] * vec2<f32>(1.0, (x[at] - mean[row]) * r[row]);
    }
    sh_wide[local] = sums;
    workgroupBarrier();
    for (var half = ROW_LANES / 2u; half > 0u; half /= 2u) {
        if (lane < half) {
            sh_wide[local] += sh_wide[local + half];
        }
        workgroupBarrier();
    }
    if (lane == 0u) {
        sh_center[local / ROW_LANES] = mean[row];
        sh_scale[local / ROW_LANES] = r[row];
        sh_means[local / ROW_LANES] = sh_wide[local] / f32(params.width);
    }
    workgroupBarrier();
}

// Where an element of a workgroup's row is; beyond the last row, where the last row's is.
fn block_place(row: u32, i: u32) -> u32 {
    return min(row, params.rows - 1u) * params.width + i;
}

// d_x of a column of a workgroup's rows, and the sums that are theirs of d_w and d_b. All is read before anything is written, so that
// the reads need not wait for each other.
fn block_gradients(first: u32, i: u32, d: ptr<function, array<f32, OWN_ROWS>>) -> vec2<f32> {
    let gain = w[i];
    var sums = vec2<f32>();
    @unroll for (var k = 0u; k < OWN_ROWS; k++) {
        let at = block_place(first + k, i);
        let d_out = select(0.0, d_y[at], first + k < params.rows);
        let u = (x[at] - sh_center[k]) * sh_scale[k];
        (*d)[k] = sh_scale[k] * (gain * d_out - sh_means[k].x - u * sh_means[k].y);
        sums += d_out * vec2<f32>(u, 1.0);
    }
    return sums;
}

fn store_block(block: u32, i: u32, d: ptr<function, array<f32, OWN_ROWS>>, sums: vec2<f32>) {
    @unroll for (var k = 0u; k < OWN_ROWS; k++) {
        if (block * OWN_ROWS + k < params.rows) {
            d_x[block_place(block * OWN_ROWS + k, i)] = (*d)[k];
        }
    }
    partial[2u * block * params.width + i] = sums.x;
    partial[(2u * block + 1u) * params.width + i] = sums.y;
}

// d_x and the sums of d_w and d_b over blocks of OWN_ROWS rows, so that x and d_y are read for all in one launch. A workgroup owns a
// block, an invocation every 256th column of it.
// grid: blocks
@compute @workgroup_size(WIDE)
fn backward_block(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let block = min(flat_workgroup(workgroup, workgroups), params.blocks - 1u);
    block_projections(block * OWN_ROWS, local);
    for (var i = local; i < params.width; i += WIDE) {
        var d: array<f32, OWN_ROWS>;
        let sums = block_gradients(block * OWN_ROWS, i, &d);
        store_block(block, i, &d, sums);
    }
}

// As backward_block, plus the gradient that x already has, such as a residual connection's.
// grid: blocks
@compute @workgroup_size(WIDE)
fn backward_block_residual(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let block = min(flat_workgroup(workgroup, workgroups), params.blocks - 1u);
    block_projections(block * OWN_ROWS, local);
    for (var i = local; i < params.width; i += WIDE) {
        var d: array<f32, OWN_ROWS>;
        let sums = block_gradients(block * OWN_ROWS, i, &d);
        @unroll for (var k = 0u; k < OWN_ROWS; k++) {
            d[k] += d_residual[block_place(block * OWN_ROWS + k, i)];
        }
        store_block(block, i, &d, sums);
    }
}

// A workgroup owns 16 columns of w or of b; 16 invocations share a column: each adds every 16th block's sum in order, then theirs meet
// in a fixed tree. Blocks of few rows are too many for one invocation.
// grid: 2 * width / COLUMNS
@compute @workgroup_size(WIDE)
fn reduce_blocks(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let column = workgroup.x * COLUMNS + local % COLUMNS;
    var sum = 0.0;
    if (column < 2u * params.width) {
        for (var block = local / COLUMNS; block < params.blocks; block += LANES) {
            sum += partial[2u * block * params.width + column];
        }
    }
    sh_column[local] = sum;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if (local < half * COLUMNS) {
            sh_column[local] += sh_column[local + half * COLUMNS];
        }
        workgroupBarrier();
    }
    if (local < COLUMNS && column < params.width) {
        d_w[column] += sh_column[local];
    } else if (local < COLUMNS && column < 2u * params.width) {
        d_b[column - params.width] += sh_column[local];
    }
}
