// Element by element, over tensors of n elements in rows of `width`, of which the last may be short:
// add y = a + b, scale y = factor a.
// Residual connections are adds; where a tensor feeds several ops, its gradients meet in one.

import package::lib::operand::{Operand, Result};
import package::lib::rows::{COLUMNS, REPEATS, ROWS, TILE_ROWS, TILE_WIDTH, place};

struct Params {
    n: u32,
    width: u32, // a multiple of 64
    factor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: Operand;
@group(0) @binding(2) var<storage, read> b: Operand;
@group(0) @binding(3) var<storage, read_write> y: Result;

fn is_inside(at: vec2<u32>) -> bool {
    return at.y * params.width + 4u * at.x < params.n;
}

// grid: width / TILE_WIDTH, n / width / TILE_ROWS
@compute @workgroup_size(COLUMNS, ROWS)
fn add(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    @unroll for (var i = 0u; i < REPEATS; i++) {
        let at = place(workgroup, local, i);
        if (is_inside(at)) {
            let sum = load_a_of(at, params.width, params.n) + load_b_of(at, params.width, params.n);
            store_y_of(at, params.width, params.n, sum);
        }
    }
}

// grid: width / TILE_WIDTH, n / width / TILE_ROWS
@compute @workgroup_size(COLUMNS, ROWS)
fn scale(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    @unroll for (var i = 0u; i < REPEATS; i++) {
        let at = place(workgroup, local, i);
        if (is_inside(at)) {
            store_y_of(at, params.width, params.n, params.factor * load_a_of(at, params.width, params.n));
        }
    }
}
