// Activation of an FFN's inner layer, n elements in rows of `width`, of which the last may be short; f one of
// lib/activation.wgsl, m the mask of inner dropout:
//   y = f(x) m        d_x = f'(x) m d_y
//   gated (Shazeer, arXiv 2002.05202): y = f(gate) up m        d_gate = f'(gate) up m d_y        d_up = f(gate) m d_y
// In all entry points the repeats are a loop, because unrolled code is slow to compile.
//
// halves: results

import package::lib::activation::{activate, activate_slope};
import package::lib::dropout::dropout_scale4;
import package::lib::operand::{Operand, Result, WHOLE_GROUPS};
import package::lib::rows::{COLUMNS, REPEATS, ROWS, TILE_ROWS, TILE_WIDTH, place};

struct Params {
    n: u32,
    width: u32, // a multiple of 64
    p: f32,     // probability of dropout
    stream: u32,
    first: u32, // elements of the layer before these, a multiple of 4
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: Operand;
@group(0) @binding(2) var<storage, read> up: Operand;
@group(0) @binding(3) var<storage, read> d_y: Operand;
@group(0) @binding(4) var<storage, read_write> y: Result;
@group(0) @binding(5) var<storage, read_write> d_x: Result;
@group(0) @binding(6) var<storage, read_write> d_up: Result;

fn is_inside(at: vec2<u32>) -> bool {
    return at.y * params.width + 4u * at.x < params.n;
}

fn mask(at: vec2<u32>) -> vec4<f32> {
    return dropout_scale4(params.first / 4u + at.y * (params.width / 4u) + at.x, params.p, params.stream);
}

// y = f(x) m.
// grid: width / TILE_WIDTH, n / width / TILE_ROWS
@compute @workgroup_size(COLUMNS, ROWS)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    for (var repeat = 0u; repeat < REPEATS; repeat++) {
        let at = place(workgroup, local, repeat);
        if (is_inside(at)) {
            store_y_of(at, params.width, params.n, activate(load_x_of(at, params.width, params.n)) * mask(at));
        }
    }
}

// d_x = f'(x) m d_y.
// grid: width / TILE_WIDTH, n / width / TILE_ROWS
@compute @workgroup_size(COLUMNS, ROWS)
fn backward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    for (var repeat = 0u; repeat < REPEATS; repeat++) {
        let at = place(workgroup, local, repeat);
        if (is_inside(at)) {
            let slope = activate_slope(load_x_of(at, params.width, params.n)) * mask(at);
            store_d_x_of(at, params.width, params.n, slope * load_d_y_of(at, params.width, params.n));
        }
    }
}

// y = f(x) up m, x the gate.
// grid: width / TILE_WIDTH, n / width / TILE_ROWS
@compute @workgroup_size(COLUMNS, ROWS)
fn forward_gated(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    for (var repeat = 0u; repeat < REPEATS; repeat++) {
        let at = place(workgroup, local, repeat);
        if (is_inside(at)) {
            let value = activate(load_x_of(at, params.width, params.n)) * mask(at);
            store_y_of(at, params.width, params.n, value * load_up_of(at, params.width, params.n));
        }
    }
}

// d_x = f'(x) up m d_y and d_up = f(x) m d_y, x the gate. Images multiply d_y by m, buffers f and f': each keeps its order of
// products, so that a run gives the same bits from release to release.
// grid: width / TILE_WIDTH, n / width / TILE_ROWS
@compute @workgroup_size(COLUMNS, ROWS)
fn backward_gated(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    for (var repeat = 0u; repeat < REPEATS; repeat++) {
        let at = place(workgroup, local, repeat);
        if (is_inside(at)) {
            let a = load_x_of(at, params.width, params.n);
            let m = mask(at);
            let m_first = select(m, vec4<f32>(1.0), WHOLE_GROUPS);
            let d = load_d_y_of(at, params.width, params.n) * select(vec4<f32>(1.0), m, WHOLE_GROUPS);
            store_d_x_of(at, params.width, params.n, activate_slope(a) * m_first * load_up_of(at, params.width, params.n) * d);
            store_d_up_of(at, params.width, params.n, activate(a) * m_first * d);
        }
    }
}

// As backward, and y again, so that it need not be kept from forward to backward.
// grid: width / TILE_WIDTH, n / width / TILE_ROWS
@compute @workgroup_size(COLUMNS, ROWS)
fn backward_again(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    for (var repeat = 0u; repeat < REPEATS; repeat++) {
        let at = place(workgroup, local, repeat);
        if (is_inside(at)) {
            let a = load_x_of(at, params.width, params.n);
            let m = mask(at);
            store_d_x_of(at, params.width, params.n, activate_slope(a) * m * load_d_y_of(at, params.width, params.n));
            store_y_of(at, params.width, params.n, activate(a) * m);
        }
    }
}

// As backward_gated, and y again.
// grid: width / TILE_WIDTH, n / width / TILE_ROWS
@compute @workgroup_size(COLUMNS, ROWS)
fn backward_gated_again(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    for (var repeat = 0u; repeat < REPEATS; repeat++) {
        let at = place(workgroup, local, repeat);
        if (is_inside(at)) {
            let a = load_x_of(at, params.width, params.n);
            let m = mask(at);
            let value = activate(a) * m;
            let other = load_up_of(at, params.width, params.n);
            let d = load_d_y_of(at, params.width, params.n);
            store_d_x_of(at, params.width, params.n, activate_slope(a) * m * other * d);
            store_d_up_of(at, params.width, params.n, value * d);
            store_y_of(at, params.width, params.n, value * other);
        }
    }
}
