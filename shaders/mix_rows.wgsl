// Whole sequences of two tensors, a and b [N, D], N rows of T-token sequences, by mask [N / T]:
//   y_n = b_n where mask_{n / T} is not 0, else a_n
//   d_a_n = d_y_n or 0, d_b_n = 0 or d_y_n: the operand that was taken gets the gradient

import package::lib::index::flat_workgroup;

struct Params {
    elements: u32,          // N D
    sequence_elements: u32, // T D
    wanted: u32,            // whose gradient: 0 = a, 1 = b
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read> mask: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> d_y: array<f32>;
@group(0) @binding(6) var<storage, read_write> d_x: array<f32>;

const INVOCATIONS = 64u;

fn takes_b(element: u32) -> bool {
    return mask[element / params.sequence_elements] != 0.0;
}

// An invocation owns one element of y.
@compute @workgroup_size(INVOCATIONS)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i < params.elements) {
        y[i] = select(a[i], b[i], takes_b(i));
    }
}

// An invocation owns one element of d_a or d_b.
@compute @workgroup_size(INVOCATIONS)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i < params.elements) {
        d_x[i] = select(0.0, d_y[i], takes_b(i) == (params.wanted != 0u));
    }
}
