// Products of f32 matrices on CPU rasterisers, as matmul.wgsl; operands are read through texture images, so their rows
// are multiples of 64 elements, and n of 4. Batches lie below one another in the images.
//
// requires: images
// fits: n % 4 == 0
// folded: b
// rank: 10

import package::lib::image_tile::{
    HALF_ROWS, LANES, LANE_COLUMNS, STORED_ROWS, SUMS, TILE_COLUMNS, TILE_ROWS, multiply_nn, multiply_nt, multiply_tn, next_half, next_rows,
};

struct Params {
    m: u32,
    n: u32,
    k: u32,
    alpha: f32,
    beta: f32,
    diagonal: f32,
    k_part: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var a: texture_2d<f32>;
@group(0) @binding(2) var b: texture_2d<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> residual: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> d_w: array<vec4<f32>>;

// Row and texel column of the first of an invocation's elements.
fn place(workgroup: vec3<u32>, local: u32) -> vec2<u32> {
    return workgroup.xy * vec2<u32>(TILE_ROWS, TILE_COLUMNS / 4u) + vec2<u32>(0u, local);
}

fn is_inside(at: vec2<u32>) -> bool {
    return at.x < params.m && at.y < params.n / 4u;
}

fn index(batch: u32, at: vec2<u32>) -> u32 {
    return (batch * params.m + at.x) * (params.n / 4u) + at.y;
}

fn store(batch: u32, start: vec2<u32>, sum: ptr<function, array<vec4<f32>, SUMS>>) {
    for (var half = start.x; half < min(start.x + TILE_ROWS, params.m); half += HALF_ROWS) {
        for (var row = half; row < min(half + HALF_ROWS, params.m); row += STORED_ROWS) {
            @unroll for (var i = 0u; i < STORED_ROWS; i++) {
                @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
                    let at = vec2<u32>(row + i, start.y + c * LANES);
                    if (is_inside(at)) {
                        y[index(batch, at)] = (*sum)[i * LANE_COLUMNS + c];
                    }
                }
            }
            next_rows(sum);
        }
        next_half(sum);
    }
}

fn store_add(batch: u32, start: vec2<u32>, sum: ptr<function, array<vec4<f32>, SUMS>>) {
    for (var half = start.x; half < min(start.x + TILE_ROWS, params.m); half += HALF_ROWS) {
        for (var row = half; row < min(half + HALF_ROWS, params.m); row += STORED_ROWS) {
            @unroll for (var i = 0u; i < STORED_ROWS; i++) {
                @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
                    let at = vec2<u32>(row + i, start.y + c * LANES);
                    if (is_inside(at)) {
                        let to = index(batch, at);
                        let columns = 4u * at.y + vec4<u32>(0u, 1u, 2u, 3u);
                        let diagonal = select(vec4<f32>(), vec4<f32>(params.diagonal), columns == vec4<u32>(at.x));
                        y[to] = params.alpha * (*sum)[i * LANE_COLUMNS + c] + params.beta * residual[to] + diagonal;
                    }
                }
            }
            next_rows(sum);
        }
        next_half(sum);
    }
}

fn product_nn(batch: u32, start: vec2<u32>, sum: ptr<function, array<vec4<f32>, SUMS>>) {
    multiply_nn(sum, a, b, batch * params.m + start.x, batch * params.k, start.y, params.k / 4u);
}

fn product_nt(batch: u32, start: vec2<u32>, sum: ptr<function, array<vec4<f32>, SUMS>>) {
    multiply_nt(sum, a, b, batch * params.m + start.x, batch * params.n, start.y, params.k / 4u);
}

fn product_tn(batch: u32, start: vec2<u32>, sum: ptr<function, array<vec4<f32>, SUMS>>) {
    let rows = batch * params.k + vec2<u32>(0u, params.k);
    multiply_tn(sum, a, b, start.x / 4u, start.y, rows);
}

// A workgroup owns a tile of y, an invocation all its rows and every LANES-th texel column; so do all entry
// points.
// grid: m / TILE_ROWS, n / TILE_COLUMNS, len(y) / (m * n)
@compute @workgroup_size(LANES)
fn nn(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let start = place(workgroup, local);
    var sum: array<vec4<f32>, SUMS>;
    product_nn(workgroup.z, start, &sum);
    store(workgroup.z, start, &sum);
}

// grid: m / TILE_ROWS, n / TILE_COLUMNS, len(y) / (m * n)
@compute @workgroup_size(LANES)
fn nt(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let start = place(workgroup, local);
    var sum: array<vec4<f32>, SUMS>;
    product_nt(workgroup.z, start, &sum);
    store(workgroup.z, start, &sum);
}

// grid: m / TILE_ROWS, n / TILE_COLUMNS, len(y) / (m * n)
@compute @workgroup_size(LANES)
fn tn(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let start = place(workgroup, local);
    var sum: array<vec4<f32>, SUMS>;
    product_tn(workgroup.z, start, &sum);
    store(workgroup.z, start, &sum);
}

// grid: m / TILE_ROWS, n / TILE_COLUMNS, len(y) / (m * n)
@compute @workgroup_size(LANES)
fn nn_add(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let start = place(workgroup, local);
    var sum: array<vec4<f32>, SUMS>;
    product_nn(workgroup.z, start, &sum);
    store_add(workgroup.z, start, &sum);
}

// grid: m / TILE_ROWS, n / TILE_COLUMNS, len(y) / (m * n)
@compute @workgroup_size(LANES)
fn nt_add(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let start = place(workgroup, local);
    var sum: array<vec4<f32>, SUMS>;
    product_nt(workgroup.z, start, &sum);
    store_add(workgroup.z, start, &sum);
}

// Adds to the gradient of a parameter.
// grid: m / TILE_ROWS, n / TILE_COLUMNS, len(d_w) / (m * n)
@compute @workgroup_size(LANES)
fn tn_accumulate(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let start = place(workgroup, local);
    var sum: array<vec4<f32>, SUMS>;
    product_tn(workgroup.z, start, &sum);
    for (var half = start.x; half < min(start.x + TILE_ROWS, params.m); half += HALF_ROWS) {
        for (var row = half; row < min(half + HALF_ROWS, params.m); row += STORED_ROWS) {
            @unroll for (var i = 0u; i < STORED_ROWS; i++) {
                @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
                    let at = vec2<u32>(row + i, start.y + c * LANES);
                    if (is_inside(at)) {
                        d_w[index(workgroup.z, at)] += sum[i * LANE_COLUMNS + c];
                    }
                }
            }
            next_rows(&sum);
        }
        next_half(&sum);
    }
}
