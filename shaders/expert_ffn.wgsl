// Biases of the experts: y [A, F] = x + b [E, F] of the row's expert, rows offsets_e .. offsets_{e+1} - 1 being those of
// expert e. d_x = d_y        d_b_e += sum of d_y over the rows of e, in order

import package::lib::index::flat_workgroup;

struct Params {
    rows: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> offsets: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> d_y: array<f32>;
@group(0) @binding(6) var<storage, read_write> d_b: array<f32>;

const INVOCATIONS = 64u;

// An invocation owns one element of y.
// grid: rows * width / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn add_bias(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let row = i / params.width;
    if (row < params.rows) {
        var e = 0u;
        while (offsets[e + 1u] <= row) { // offsets ends with the number of rows
            e++;
        }
        y[i] = x[i] + b[e * params.width + i % params.width];
    }
}

// An invocation owns one bias; y of the grid is the expert.
// grid: width / INVOCATIONS, len(d_b) / width
@compute @workgroup_size(INVOCATIONS)
fn backward_bias(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= params.width) {
        return;
    }
    var sum = 0.0;
    for (var row = offsets[id.y]; row < offsets[id.y + 1u]; row++) {
        sum += d_y[row * params.width + id.x];
    }
    d_b[id.y * params.width + id.x] += sum;
}
