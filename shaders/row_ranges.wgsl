// A range of rows of a tensor [all rows, width], and the experts' offsets within it: for tensors that an adapter cannot bind whole.
//   take: part = whole[first_row .. first_row + rows]        put: the other way
//   segments: the offsets of rows sorted by expert, as they are within the range

import package::lib::index::flat_workgroup;

struct Params {
    rows: u32, // of the range
    width: u32,
    first_row: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> whole: array<f32>;
@group(0) @binding(2) var<storage, read_write> part: array<f32>; // [rows, width]
@group(0) @binding(3) var<storage, read> offsets: array<u32>;    // [E + 1]
@group(0) @binding(4) var<storage, read_write> part_offsets: array<u32>;

const INVOCATIONS = 256u;

// An invocation owns one element.
// grid: rows * width / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn take(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i < params.rows * params.width) {
        part[i] = whole[params.first_row * params.width + i];
    }
}

// An invocation owns one element.
// grid: rows * width / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn put(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i < params.rows * params.width) {
        whole[params.first_row * params.width + i] = part[i];
    }
}

// An invocation owns one offset.
// grid: len(offsets) / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn segments(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < arrayLength(&offsets)) {
        let end = params.first_row + params.rows;
        part_offsets[id.x] = clamp(offsets[id.x], params.first_row, end) - params.first_row;
    }
}
