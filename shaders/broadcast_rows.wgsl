// A row for all rows: v [width] -> y [rows, width], y_n = v. Backward: d_v is the column sums of d_y, see column_sums.wgsl.

import package::lib::operand::{Operand, Result};
import package::lib::rows::{COLUMNS, REPEATS, ROWS, TILE_ROWS, TILE_WIDTH, place};

struct Params {
    rows: u32,
    width: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> v: Operand;
@group(0) @binding(2) var<storage, read_write> y: Result;

// grid: width / TILE_WIDTH, rows / TILE_ROWS
@compute @workgroup_size(COLUMNS, ROWS)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let column = place(workgroup, local, 0u).x;
    if (4u * column >= params.width) {
        return;
    }
    let value = load_v(vec2<u32>(column, 0u), params.width);
    @unroll for (var i = 0u; i < REPEATS; i++) {
        let at = place(workgroup, local, i);
        if (at.y < params.rows) {
            store_y(at, params.width, value);
        }
    }
}
