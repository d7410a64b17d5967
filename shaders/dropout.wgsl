// Inverted dropout of n elements: y = x m, m = 0 with probability p, else 1 / (1 - p), drawn anew from the step's
// random stream. The map is linear and diagonal, so backward is forward applied to d_y.

import package::lib::dropout::dropout_scale4;
import package::lib::index::flat_workgroup;

struct Params {
    n: u32,
    p: f32,
    stream: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

const INVOCATIONS = 64u;

// An invocation owns four consecutive elements.
@compute @workgroup_size(INVOCATIONS)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let group = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let first = 4u * group;
    if (first >= params.n) {
        return;
    }
    let scale = dropout_scale4(group, params.p, params.stream);
    @unroll for (var c = 0u; c < 4u; c++) {
        if (first + c < params.n) {
            y[first + c] = x[first + c] * scale[c];
        }
    }
}
