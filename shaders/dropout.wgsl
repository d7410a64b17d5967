// Inverted dropout of n elements in rows of `width`, of which the last may be short: y = x m, m = 0 with probability p, else
// 1 / (1 - p), sampled from the step's random stream. The map is linear and diagonal, so backward is forward applied to d_y.

import package::lib::dropout::dropout_scale4;
import package::lib::operand::{Operand, Result};
import package::lib::rows::{COLUMNS, REPEATS, ROWS, TILE_ROWS, TILE_WIDTH, place};

struct Params {
    n: u32,
    width: u32, // a multiple of 64
    p: f32,
    stream: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: Operand;
@group(0) @binding(2) var<storage, read_write> y: Result;

// The repeats are a loop, because unrolled code is slow to compile.
// grid: width / TILE_WIDTH, n / width / TILE_ROWS
@compute @workgroup_size(COLUMNS, ROWS)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    for (var repeat = 0u; repeat < REPEATS; repeat++) {
        let at = place(workgroup, local, repeat);
        let group = at.y * (params.width / 4u) + at.x;
        if (4u * group < params.n) {
            let value = load_x_of(at, params.width, params.n) * dropout_scale4(group, params.p, params.stream);
            store_y_of(at, params.width, params.n, value);
        }
    }
}
