// A row for all rows: v [D] -> y [N, D], y_n = v        d_v += sum_n d_y_n, blocks of rows first, in a fixed order

import package::lib::index::flat_workgroup;

struct Params {
    rows: u32,
    width: u32,
    block_rows: u32, // rows that one invocation of backward sums
    blocks: u32,     // rows / block_rows, rounded up
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> v: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<storage, read> d_y: array<f32>;
@group(0) @binding(4) var<storage, read_write> partial: array<f32>; // [blocks, width]
@group(0) @binding(5) var<storage, read_write> d_v: array<f32>;

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
        y[i] = v[i % params.width];
    }
}

// A workgroup owns 64 columns of a block of rows, an invocation one column: it walks the block in order.
@compute @workgroup_size(INVOCATIONS)
fn backward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let column = workgroup.x * INVOCATIONS + local;
    if (column >= params.width) {
        return;
    }
    var sum = 0.0;
    for (var row = workgroup.y * params.block_rows; row < min((workgroup.y + 1u) * params.block_rows, params.rows); row++) {
        sum += d_y[row * params.width + column];
    }
    partial[workgroup.y * params.width + column] = sum;
}

// An invocation owns a column: it adds the blocks' sums in order.
@compute @workgroup_size(INVOCATIONS)
fn reduce(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.width) {
        return;
    }
    var sum = 0.0;
    for (var i = id.x; i < params.blocks * params.width; i += params.width) {
        sum += partial[i];
    }
    d_v[id.x] += sum;
}
