// Column sums of x [rows, width] whose rows come round with a period, added to sums [period, width]:
//   sums[i] += sum over n with n % period = i of x[n]
// In two launches: blocks of rows first, then the blocks, both in order. x is seen as [rows / period, period width].

import package::lib::index::flat_workgroup;

struct Params {
    rows: u32,
    width: u32,
    period: u32,
    blocks: u32, // rows / period / BLOCK_ROWS, rounded up
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> partial: array<f32>; // [blocks, period, width]
@group(0) @binding(3) var<storage, read> saved_partial: array<f32>;
@group(0) @binding(4) var<storage, read_write> sums: array<f32>;

const INVOCATIONS = 64u;
const BLOCK_ROWS = 64u; // that one invocation sums

// A workgroup owns 64 columns of a block of rows, z of the grid, an invocation one column: it walks the block in order.
// grid: period * width / INVOCATIONS, 1, blocks
@compute @workgroup_size(INVOCATIONS)
fn block_sums(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let width = params.period * params.width;
    let rows = params.rows / params.period;
    let column = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (column >= width) {
        return;
    }
    var sum = 0.0;
    for (var row = workgroup.z * BLOCK_ROWS; row < min((workgroup.z + 1u) * BLOCK_ROWS, rows); row++) {
        sum += x[row * width + column];
    }
    partial[workgroup.z * width + column] = sum;
}

// An invocation owns a column: it adds the blocks' sums in order.
// grid: period * width / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn reduce(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let width = params.period * params.width;
    let column = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (column >= width) {
        return;
    }
    var sum = 0.0;
    for (var block = 0u; block < params.blocks; block++) {
        sum += saved_partial[block * width + column];
    }
    sums[column] += sum;
}
