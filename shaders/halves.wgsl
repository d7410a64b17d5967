// The elements of a tensor rounded to f16, for products on cooperative matrices.
//
// requires: f16

import package::lib::index::flat_workgroup;

enable f16;

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<mat2x4<f16>>; // eight elements each

const INVOCATIONS = 256u;

// An invocation owns eight elements.
// fits: len(x) % 8 == 0
// grid: len(x) / 8 / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn round(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i < arrayLength(&y)) {
        y[i] = mat2x4<f16>(vec4<f16>(x[2u * i]), vec4<f16>(x[2u * i + 1u]));
    }
}
