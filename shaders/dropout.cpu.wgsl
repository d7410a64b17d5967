// Inverted dropout of x [rows, 4 texels]: as dropout.wgsl, x read through its image.
//
// requires: images

import package::lib::dropout::dropout_scale4;

struct Params {
    rows: u32,
    texels: u32, // of a row, a multiple of 16
    p: f32,
    stream: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var x: texture_2d<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

const COLUMNS = 16u; // texels of a row that a workgroup owns
const ROWS = 4u;
const REPEATS = 4u; // rows that an invocation owns, ROWS apart: a loop, because unrolled code is slow to compile

// A workgroup owns 16 texels of 16 rows, an invocation every fourth row of one column.
@compute @workgroup_size(COLUMNS, ROWS)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let first = workgroup * vec3<u32>(COLUMNS, ROWS * REPEATS, 1u) + local;
    for (var repeat = 0u; repeat < REPEATS; repeat++) {
        let at = vec2<u32>(first.x, first.y + repeat * ROWS);
        if (at.y < params.rows) {
            let i = at.y * params.texels + at.x;
            y[i] = textureLoad(x, at, 0) * dropout_scale4(i, params.p, params.stream);
        }
    }
}
