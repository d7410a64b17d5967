// One bias [width] for every row of x [rows, width]:
//   y[n] = x[n] + b        d_x = d_y        d_b += sum over n of d_y[n], in order
// Positions are the same over x [B, T D]: the bias of a sequence is the first T rows of a table, one after another.

import package::lib::index::flat_workgroup;

struct Params {
    rows: u32,
    width: u32,
    block_rows: u32, // rows that one invocation of backward_bias sums
    blocks: u32,     // rows / block_rows, rounded up
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read> d_y: array<f32>;
@group(0) @binding(5) var<storage, read_write> partial: array<f32>; // [blocks, width]
@group(0) @binding(6) var<storage, read_write> d_b: array<f32>;

const INVOCATIONS = 64u;

// An invocation owns one element of y.
@compute @workgroup_size(INVOCATIONS)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i < params.rows * params.width) {
        y[i] = x[i] + b[i % params.width];
    }
}

// A workgroup owns 64 columns of a block of rows, z of the grid, an invocation one column: it walks the block in order.
@compute @workgroup_size(INVOCATIONS)
fn backward_bias(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let column = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (column >= params.width) {
        return;
    }
    var sum = 0.0;
    for (var row = workgroup.z * params.block_rows; row < min((workgroup.z + 1u) * params.block_rows, params.rows); row++) {
        sum += d_y[row * params.width + column];
    }
    partial[workgroup.z * params.width + column] = sum;
}

// An invocation owns a column: it adds the blocks' sums in order.
@compute @workgroup_size(INVOCATIONS)
fn reduce_bias(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let column = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (column >= params.width) {
        return;
    }
    var sum = 0.0;
    for (var block = 0u; block < params.blocks; block++) {
        sum += partial[block * params.width + column];
    }
    d_b[column] += sum;
}
