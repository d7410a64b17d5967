// Whole sequences of two tensors, a and b [N, width], N rows of T-token sequences, by mask [N / T]:
//   y_n = b_n where mask_{n / T} is not 0, else a_n
//   d_a_n = d_y_n or 0, d_b_n = 0 or d_y_n: the operand that was taken gets the gradient

import package::lib::operand::{Operand, Result};
import package::lib::rows::{COLUMNS, REPEATS, ROWS, TILE_ROWS, TILE_WIDTH, place};

struct Params {
    rows: u32,   // N
    tokens: u32, // T
    width: u32,
    wanted: u32, // whose gradient: 0 = a, 1 = b
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: Operand;
@group(0) @binding(2) var<storage, read> b: Operand;
@group(0) @binding(3) var<storage, read> mask: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: Result;
@group(0) @binding(5) var<storage, read> d_y: Operand;
@group(0) @binding(6) var<storage, read_write> d_x: Result;

// Within a sequence, z of the grid.
fn is_inside(at: vec2<u32>) -> bool {
    return at.y < params.tokens && 4u * at.x < params.width;
}

// grid: width / TILE_WIDTH, tokens / TILE_ROWS, rows / tokens
@compute @workgroup_size(COLUMNS, ROWS)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let takes_b = mask[workgroup.z] != 0.0;
    @unroll for (var i = 0u; i < REPEATS; i++) {
        let at = place(workgroup, local, i);
        if (is_inside(at)) {
            let row = at + vec2<u32>(0u, workgroup.z * params.tokens);
            store_y(row, params.width, select(load_a(row, params.width), load_b(row, params.width), takes_b));
        }
    }
}

// grid: width / TILE_WIDTH, tokens / TILE_ROWS, rows / tokens
@compute @workgroup_size(COLUMNS, ROWS)
fn backward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let is_taken = (mask[workgroup.z] != 0.0) == (params.wanted != 0u);
    @unroll for (var i = 0u; i < REPEATS; i++) {
        let at = place(workgroup, local, i);
        if (is_inside(at)) {
            let row = at + vec2<u32>(0u, workgroup.z * params.tokens);
            store_d_x(row, params.width, select(vec4<f32>(), load_d_y(row, params.width), is_taken));
        }
    }
}
