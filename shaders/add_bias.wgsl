// One bias for every row of x [rows, width]; rows of b come round with a period, 1 for a bias [width] and T for the positions of
// a sequence, the first T rows of a table:
//   y[n] = x[n] + b[n % period]
// Backward: d_x is d_y, and d_b its column sums, see column_sums.wgsl.

import package::lib::operand::{Operand, Result};
import package::lib::rows::{COLUMNS, REPEATS, ROWS, TILE_ROWS, TILE_WIDTH, place};

struct Params {
    rows: u32,
    width: u32,
    period: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: Operand;
@group(0) @binding(2) var<storage, read> b: Operand;    // [period or more, width]
@group(0) @binding(3) var<storage, read_write> y: Result;

// grid: width / TILE_WIDTH, rows / TILE_ROWS
@compute @workgroup_size(COLUMNS, ROWS)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    @unroll for (var i = 0u; i < REPEATS; i++) {
        let at = place(workgroup, local, i);
        if (at.y < params.rows && 4u * at.x < params.width) {
            let bias = load_b(vec2<u32>(at.x, at.y % params.period), params.width);
            store_y(at, params.width, load_x(at, params.width) + bias);
        }
    }
}
