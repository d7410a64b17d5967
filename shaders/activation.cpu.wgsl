// Activation of an FFN's inner layer, [rows, 4 texels]: as activation.wgsl, every operand read through its image.
//
// requires: images

import package::lib::activation::{activate, activate_slope};
import package::lib::dropout::dropout_scale4;

struct Params {
    rows: u32,
    texels: u32, // of a row, a multiple of 16
    p: f32, // probability of dropout
    stream: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var x: texture_2d<f32>;
@group(0) @binding(2) var up: texture_2d<f32>;
@group(0) @binding(3) var d_y: texture_2d<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> d_x: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> d_up: array<vec4<f32>>;

const COLUMNS = 16u; // texels of a row that a workgroup owns
const ROWS = 4u;
const REPEATS = 4u; // rows that an invocation owns, ROWS apart: a loop, because unrolled code is slow to compile

// y = f(x) m. A workgroup owns 16 texels of 16 rows, an invocation every fourth row of one column.
@compute @workgroup_size(COLUMNS, ROWS)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let first = workgroup * vec3<u32>(COLUMNS, ROWS * REPEATS, 1u) + local;
    for (var repeat = 0u; repeat < REPEATS; repeat++) {
        let at = vec2<u32>(first.x, first.y + repeat * ROWS);
        if (at.y < params.rows) {
            let i = at.y * params.texels + at.x;
            y[i] = activate(textureLoad(x, at, 0)) * dropout_scale4(i, params.p, params.stream);
        }
    }
}

// d_x = f'(x) m d_y. A workgroup owns 16 texels of 16 rows, an invocation every fourth row of one column.
@compute @workgroup_size(COLUMNS, ROWS)
fn backward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let first = workgroup * vec3<u32>(COLUMNS, ROWS * REPEATS, 1u) + local;
    for (var repeat = 0u; repeat < REPEATS; repeat++) {
        let at = vec2<u32>(first.x, first.y + repeat * ROWS);
        if (at.y < params.rows) {
            let i = at.y * params.texels + at.x;
            let scale = dropout_scale4(i, params.p, params.stream);
            d_x[i] = activate_slope(textureLoad(x, at, 0)) * scale * textureLoad(d_y, at, 0);
        }
    }
}

// y = f(x) up m, x the gate. A workgroup owns 16 texels of 16 rows, an invocation every fourth row of one column.
@compute @workgroup_size(COLUMNS, ROWS)
fn forward_gated(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let first = workgroup * vec3<u32>(COLUMNS, ROWS * REPEATS, 1u) + local;
    for (var repeat = 0u; repeat < REPEATS; repeat++) {
        let at = vec2<u32>(first.x, first.y + repeat * ROWS);
        if (at.y < params.rows) {
            let i = at.y * params.texels + at.x;
            let scale = dropout_scale4(i, params.p, params.stream);
            y[i] = activate(textureLoad(x, at, 0)) * scale * textureLoad(up, at, 0);
        }
    }
}

// d_x = f'(x) up m d_y and d_up = f(x) m d_y, x the gate.
// A workgroup owns 16 texels of 16 rows, an invocation every fourth row of one column.
@compute @workgroup_size(COLUMNS, ROWS)
fn backward_gated(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let first = workgroup * vec3<u32>(COLUMNS, ROWS * REPEATS, 1u) + local;
    for (var repeat = 0u; repeat < REPEATS; repeat++) {
        let at = vec2<u32>(first.x, first.y + repeat * ROWS);
        if (at.y < params.rows) {
            let i = at.y * params.texels + at.x;
            let a = textureLoad(x, at, 0);
            let d = textureLoad(d_y, at, 0) * dropout_scale4(i, params.p, params.stream);
            d_x[i] = activate_slope(a) * textureLoad(up, at, 0) * d;
            d_up[i] = activate(a) * d;
        }
    }
}
