// Root-mean-square norm over the last dimension (Zhang & Sennrich, arXiv 1910.07467), x [rows, width], w [width]:
//   r = 1 / sqrt(mean_i(x_i^2) + eps)        y_i = x_i r w_i
//   d_x_i = r (w_i d_y_i - x_i r^2 mean_j(w_j d_y_j x_j))        d_w_i += sum_rows d_y_i x_i r
// add_forward is that of x = a + b, `added`.

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
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> r: array<f32>;
@group(0) @binding(5) var<storage, read> d_y: array<f32>;
@group(0) @binding(6) var<storage, read_write> d_x: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_w: array<f32>;
@group(0) @binding(8) var<storage, read> d_residual: array<f32>;
@group(0) @binding(9) var<storage, read_write> partial: array<f32>; // [blocks, width]
@group(0) @binding(10) var<storage, read> a: array<f32>;
@group(0) @binding(11) var<storage, read> b: array<f32>;
@group(0) @binding(12) var<storage, read_write> added: array<f32>;

const INVOCATIONS = 64u;
const BLOCK_ROWS = 64u; // that one invocation of backward_weight sums
const WIDE = 256u;       // invocations of a workgroup of backward_block and reduce_blocks
const OWN_ROWS = 8u;     // of a workgroup of backward_block
const ROW_LANES = 32u;   // invocations that share a row in it
const COLUMNS = 16u;     // of d_w, a workgroup of reduce_blocks
const LANES = 16u;       // that share the blocks of a column

var<workgroup> sh_sum: array<f32, 64>;
var<workgroup> sh_wide: array<f32, WIDE>;
var<workgroup> sh_scale: array<f32, OWN_ROWS>;
var<workgroup> sh_mean: array<f32, OWN_ROWS>;

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

// As forward, of a + b, which is written as well. A workgroup owns a row, an invocation every 64th element of it.
// grid: rows
@compute @workgroup_size(INVOCATIONS)
fn add_forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let row = min(flat_workgroup(workgroup, workgroups), params.rows - 1u);
    let base = row * params.width;
    var sum = 0.0;
    for (var i = local; i < params.width; i += INVOCATIONS) {
        let value = a[base + i] + b[base + i];
        sum += value * value;
    }
    let scale = inverseSqrt(workgroup_sum(sum, local) / f32(params.width) + params.eps);
    if (local == 0u) {
        r[row] = scale;
    }
    for (var i = local; i < params.width; i += INVOCATIONS) {
        let value = a[base + i] + b[base + i];
        added[base + i] = value;
        y[base + i] = value * scale * w[i];
    }
}

// y again, from the r of forward. An invocation owns one element.
// grid: rows * width / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn forward_again(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i < params.rows * params.width) {
        y[i] = x[i] * r[i / params.width] * w[i % params.width];
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

// Of each row of a workgroup r, in sh_scale, and r^2 mean_j(w_j d_y_j x_j), in sh_mean. ROW_LANES invocations share a row, whose sums
// meet in a fixed tree.
fn block_projections(first: u32, local: u32) {
    let lane = local % ROW_LANES;
    let row = min(first + local / ROW_LANES, params.rows - 1u);
    var sum = 0.0;
    for (var i = lane; i < params.width; i += ROW_LANES) {
        sum += w[i] * d_y[row * params.width + i] * x[row * params.width + i];
    }
    sh_wide[local] = sum;
    workgroupBarrier();
    for (var half = ROW_LANES / 2u; half > 0u; half /= 2u) {
        if (lane < half) {
            sh_wide[local] += sh_wide[local + half];
        }
        workgroupBarrier();
    }
    if (lane == 0u) {
        sh_scale[local / ROW_LANES] = r[row];
        sh_mean[local / ROW_LANES] = sh_wide[local] / f32(params.width) * (r[row] * r[row]);
    }
    workgroupBarrier();
}

// Where an element of a workgroup's row is; beyond the last row, where the last row's is.
fn block_place(row: u32, i: u32) -> u32 {
    return min(row, params.rows - 1u) * params.width + i;
}

// d_x of a column of a workgroup's rows, and the sum that is theirs of d_w. All is read before anything is written, so that the reads
// need not wait for each other.
fn block_gradients(first: u32, i: u32, d: ptr<function, array<f32, OWN_ROWS>>) -> f32 {
    let gain = w[i];
    var sum = 0.0;
    @unroll for (var k = 0u; k < OWN_ROWS; k++) {
        let at = block_place(first + k, i);
        let d_out = select(0.0, d_y[at], first + k < params.rows);
        (*d)[k] = sh_scale[k] * (gain * d_out - x[at] * sh_mean[k]);
        sum += d_out * x[at] * sh_scale[k];
    }
    return sum;
}

fn store_block(block: u32, i: u32, d: ptr<function, array<f32, OWN_ROWS>>, sum: f32) {
    @unroll for (var k = 0u; k < OWN_ROWS; k++) {
        if (block * OWN_ROWS + k < params.rows) {
            d_x[block_place(block * OWN_ROWS + k, i)] = (*d)[k];
        }
    }
    partial[block * params.width + i] = sum;
}

// d_x and the sums of d_w over blocks of OWN_ROWS rows, so that x and d_y are read for both in one launch. A workgroup owns a block, an
// invocation every 256th column of it.
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
        let sum = block_gradients(block * OWN_ROWS, i, &d);
        store_block(block, i, &d, sum);
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
        let sum = block_gradients(block * OWN_ROWS, i, &d);
        @unroll for (var k = 0u; k < OWN_ROWS; k++) {
            d[k] += d_residual[block_place(block * OWN_ROWS + k, i)];
        }
        store_block(block, i, &d, sum);
    }
}

// A workgroup owns 16 columns; 16 invocations share a column: each adds every 16th block's sum in order, then theirs meet in a fixed
// tree. Blocks of few rows are too many for one invocation.
// grid: width / COLUMNS
@compute @workgroup_size(WIDE)
fn reduce_blocks(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let column = workgroup.x * COLUMNS + local % COLUMNS;
    var sum = 0.0;
    if (column < params.width) {
        for (var block = local / COLUMNS; block < params.blocks; block += LANES) {
            sum += partial[block * params.width + column];
        }
    }
    sh_wide[local] = sum;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if (local < half * COLUMNS) {
            sh_wide[local] += sh_wide[local + half * COLUMNS];
        }
        workgroupBarrier();
    }
    if (local < COLUMNS && column < params.width) {
        d_w[column] += sh_wide[local];
    }
}
