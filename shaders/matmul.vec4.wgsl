// Products of f32 matrices on GPUs, as matmul.wgsl, four elements at a time: see lib/register_tile.wgsl.
//
// fits: m % 4 == 0 && n % 4 == 0 && k % 4 == 0
// rank: 5
// unchecked: bounds

import package::lib::register_tile::{REGISTER_DEPTH, REGISTER_LANES, REGISTER_TILE, multiply_registers, register_row, sh_tiles, stage, staging_block};

struct Params {
    m: u32,
    n: u32,
    k: u32,
    alpha: f32,
    beta: f32,
    diagonal: f32,
    k_part: u32, // of k in each of the parts that are summed in order afterwards
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> residual: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> d_w: array<vec4<f32>>;

// Four rows from `row` and four k of the left operand, 0 outside; column i holds k + i.
fn left(is_transposed: bool, batch: u32, row: u32, k: u32) -> mat4x4<f32> {
    if (row >= params.m || k >= params.k) {
        return mat4x4<f32>();
    }
    let stride = select(params.k, params.m, is_transposed) / 4u;
    let at = batch * params.m * params.k / 4u + select(row * stride + k / 4u, k * stride + row / 4u, is_transposed);
    let block = mat4x4<f32>(a[at], a[at + stride], a[at + 2u * stride], a[at + 3u * stride]);
    if (is_transposed) {
        return block;
    }
    return transpose(block);
}

// Four columns from `column` and four k of the right operand, 0 outside; column i holds k + i.
fn right(is_transposed: bool, batch: u32, column: u32, k: u32) -> mat4x4<f32> {
    if (column >= params.n || k >= params.k) {
        return mat4x4<f32>();
    }
    let stride = select(params.n, params.k, is_transposed) / 4u;
    let at = batch * params.n * params.k / 4u + select(k * stride + column / 4u, column * stride + k / 4u, is_transposed);
    let block = mat4x4<f32>(b[at], b[at + stride], b[at + 2u * stride], b[at + 3u * stride]);
    if (is_transposed) {
        return transpose(block);
    }
    return block;
}

// The block that an invocation stages, from `k` on.
fn load_block(workgroup: vec3<u32>, place: vec3<u32>, batch: u32, k: u32, k_end: u32, a_is_transposed: bool, b_is_transposed: bool) -> mat4x4<f32> {
    let line = 4u * place.y;
    let from_k = k + 4u * place.z;
    if (from_k >= k_end) {
        return mat4x4<f32>();
    }
    if (place.x == 0u) {
        return left(a_is_transposed, batch, workgroup.x * REGISTER_TILE + line, from_k);
    }
    return right(b_is_transposed, batch, workgroup.y * REGISTER_TILE + line, from_k);
}

// An invocation's 8x4 elements of the product over k_start .. k_end; a workgroup owns a tile, x along the rows of y, y along its
// columns.
fn product(workgroup: vec3<u32>, local: u32, batch: u32, k_start: u32, k_end: u32, a_is_transposed: bool, b_is_transposed: bool, sum: ptr<function, array<vec4<f32>, 8>>) {
    let place = staging_block(local, a_is_transposed, b_is_transposed);
    var next = load_block(workgroup, place, batch, k_start, k_end, a_is_transposed, b_is_transposed);
    for (var k = k_start; k < k_end; k += REGISTER_DEPTH) {
        stage(place, next);
        workgroupBarrier();
        next = load_block(workgroup, place, batch, k + REGISTER_DEPTH, k_end, a_is_transposed, b_is_transposed);
        multiply_registers(local, sum);
        workgroupBarrier();
    }
}

// All of k. The length is never the smaller one; it hides the uniform from lavapipe before Mesa 23, see attention.cpu.wgsl.
fn whole_depth() -> u32 {
    return min(params.k, 4u * arrayLength(&a));
}

// Row and column / 4 of row `i` of an invocation's elements.
fn place_of(workgroup: vec3<u32>, local: u32, i: u32) -> vec2<u32> {
    return workgroup.xy * vec2<u32>(REGISTER_TILE, REGISTER_TILE / 4u) + register_row(local, i);
}

fn is_inside(at: vec2<u32>) -> bool {
    return at.x < params.m && at.y < params.n / 4u;
}

fn index(batch: u32, at: vec2<u32>) -> u32 {
    return (batch * params.m + at.x) * (params.n / 4u) + at.y;
}

fn store(workgroup: vec3<u32>, local: u32, sum: ptr<function, array<vec4<f32>, 8>>) {
    @unroll for (var i = 0u; i < 8u; i++) {
        let at = place_of(workgroup, local, i);
        if (is_inside(at)) {
            y[index(workgroup.z, at)] = (*sum)[i];
        }
    }
}

fn store_add(workgroup: vec3<u32>, local: u32, sum: ptr<function, array<vec4<f32>, 8>>) {
    @unroll for (var i = 0u; i < 8u; i++) {
        let at = place_of(workgroup, local, i);
        if (is_inside(at)) {
            let to = index(workgroup.z, at);
            let columns = 4u * at.y + vec4<u32>(0u, 1u, 2u, 3u);
            let diagonal = select(vec4<f32>(), vec4<f32>(params.diagonal), columns == vec4<u32>(at.x));
            y[to] = params.alpha * (*sum)[i] + params.beta * residual[to] + diagonal;
        }
    }
}

// A workgroup owns a tile of y, an invocation 8x4 elements of it; so do all products.
// grid: m / REGISTER_TILE, n / REGISTER_TILE, len(y) / (m * n)
@compute @workgroup_size(REGISTER_LANES)
fn nn(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var sum: array<vec4<f32>, 8>;
    product(workgroup, local, workgroup.z, 0u, whole_depth(), false, false, &sum);
    store(workgroup, local, &sum);
}

// grid: m / REGISTER_TILE, n / REGISTER_TILE, len(y) / (m * n)
@compute @workgroup_size(REGISTER_LANES)
fn nt(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var sum: array<vec4<f32>, 8>;
    product(workgroup, local, workgroup.z, 0u, whole_depth(), false, true, &sum);
    store(workgroup, local, &sum);
}

// grid: m / REGISTER_TILE, n / REGISTER_TILE, len(y) / (m * n)
@compute @workgroup_size(REGISTER_LANES)
fn tn(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var sum: array<vec4<f32>, 8>;
    product(workgroup, local, workgroup.z, 0u, whole_depth(), true, false, &sum);
    store(workgroup, local, &sum);
}

// grid: m / REGISTER_TILE, n / REGISTER_TILE, len(y) / (m * n)
@compute @workgroup_size(REGISTER_LANES)
fn nn_add(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var sum: array<vec4<f32>, 8>;
    product(workgroup, local, workgroup.z, 0u, whole_depth(), false, false, &sum);
    store_add(workgroup, local, &sum);
}

// grid: m / REGISTER_TILE, n / REGISTER_TILE, len(y) / (m * n)
@compute @workgroup_size(REGISTER_LANES)
fn nt_add(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var sum: array<vec4<f32>, 8>;
    product(workgroup, local, workgroup.z, 0u, whole_depth(), false, true, &sum);
    store_add(workgroup, local, &sum);
}

// Adds to the gradient of a parameter.
// grid: m / REGISTER_TILE, n / REGISTER_TILE, len(d_w) / (m * n)
@compute @workgroup_size(REGISTER_LANES)
fn tn_accumulate(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var sum: array<vec4<f32>, 8>;
    product(workgroup, local, workgroup.z, 0u, whole_depth(), true, false, &sum);
    @unroll for (var i = 0u; i < 8u; i++) {
        let at = place_of(workgroup, local, i);
        if (is_inside(at)) {
            d_w[index(workgroup.z, at)] += sum[i];
        }
    }
}

// Part z of k alone: y [parts, m, n].
// grid: m / REGISTER_TILE, n / REGISTER_TILE, len(y) / (m * n)
@compute @workgroup_size(REGISTER_LANES)
fn nn_parts(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var sum: array<vec4<f32>, 8>;
    let first = workgroup.z * params.k_part;
    product(workgroup, local, 0u, first, min(first + params.k_part, whole_depth()), false, false, &sum);
    store(workgroup, local, &sum);
}

// Part z of k alone: y [parts, m, n].
// grid: m / REGISTER_TILE, n / REGISTER_TILE, len(y) / (m * n)
@compute @workgroup_size(REGISTER_LANES)
fn tn_parts(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    var sum: array<vec4<f32>, 8>;
    let first = workgroup.z * params.k_part;
    product(workgroup, local, 0u, first, min(first + params.k_part, whole_depth()), true, false, &sum);
    store(workgroup, local, &sum);
}
