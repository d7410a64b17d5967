// Products of f32 matrices, one for each of a batch (grid z); the letters tell how the operands lie in memory:
//   nn: y = a b       a [m, k], b [k, n]
//   nt: y = a b^T     a [m, k], b [n, k]      (a linear layer: weights are stored [out, in])
//   tn: y = a^T b     a [k, m], b [k, n]      (the gradient of its weights; tn_accumulate adds it to d_w [m, n])
// y [m, n]. The _add forms give alpha (product) + beta residual + diagonal I. Where y has few tiles and k is long, the _parts forms
// sum over parts of k, y [parts, m, n], which add_parts and accumulate_parts sum in order, so that every run has the same bits.

import package::lib::index::flat_workgroup;
import package::lib::tile::{TILE, TILE_DEPTH, TILE_STRIDE, sh_a, sh_b, multiply_staged, staging_place};

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
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> d_w: array<f32>;
@group(0) @binding(6) var<storage, read> parts: array<f32>; // [parts, m, n]

// Element (row, k) of the left operand, 0 outside.
fn left(is_transposed: bool, batch: u32, row: u32, k: u32, k_end: u32) -> f32 {
    if (row >= params.m || k >= k_end) {
        return 0.0;
    }
    let index = select(row * params.k + k, k * params.m + row, is_transposed);
    return a[batch * params.m * params.k + index];
}

// Element (k, column) of the right operand, 0 outside.
fn right(is_transposed: bool, batch: u32, k: u32, column: u32, k_end: u32) -> f32 {
    if (column >= params.n || k >= k_end) {
        return 0.0;
    }
    let index = select(k * params.n + column, column * params.k + k, is_transposed);
    return b[batch * params.k * params.n + index];
}

// An invocation's 4x4 elements of the product over k_start .. k_end; a workgroup owns a tile of 64x64, x along the rows of y, y
// along its columns.
fn product(workgroup: vec3<u32>, local: u32, batch: u32, k_start: u32, k_end: u32, a_is_transposed: bool, b_is_transposed: bool) -> mat4x4<f32> {
    let a_place = staging_place(local, !a_is_transposed);
    let b_place = staging_place(local, b_is_transposed);
    let row = workgroup.x * TILE + 4u * a_place.y;
    let column = workgroup.y * TILE + 4u * b_place.y;
    var sum = mat4x4<f32>();
    for (var k = k_start; k < k_end; k += TILE_DEPTH) {
        var a4: vec4<f32>;
        var b4: vec4<f32>;
        @unroll for (var i = 0u; i < 4u; i++) {
            a4[i] = left(a_is_transposed, batch, row + i, k + a_place.x, k_end);
            b4[i] = right(b_is_transposed, batch, k + b_place.x, column + i, k_end);
        }
        sh_a[a_place.x * TILE_STRIDE + a_place.y] = a4;
        sh_b[b_place.x * TILE_STRIDE + b_place.y] = b4;
        workgroupBarrier();
        sum = multiply_staged(local, sum);
        workgroupBarrier();
    }
    return sum;
}

// All of k. The length is never the smaller one; it hides the uniform from lavapipe before Mesa 23, see attention.cpu.wgsl.
fn whole_depth() -> u32 {
    return min(params.k, arrayLength(&a));
}

// Row and column of the first of an invocation's 4x4 elements.
fn place(workgroup: vec3<u32>, local: u32) -> vec2<u32> {
    return workgroup.xy * TILE + 4u * vec2<u32>(local / 16u, local % 16u);
}

fn is_inside(at: vec2<u32>) -> bool {
    return at.x < params.m && at.y < params.n;
}

fn index(batch: u32, at: vec2<u32>) -> u32 {
    return (batch * params.m + at.x) * params.n + at.y;
}

fn store(workgroup: vec3<u32>, local: u32, sum: mat4x4<f32>) {
    let start = place(workgroup, local);
    @unroll for (var i = 0u; i < 4u; i++) {
        @unroll for (var j = 0u; j < 4u; j++) {
            let at = start + vec2<u32>(i, j);
            if (is_inside(at)) {
                y[index(workgroup.z, at)] = sum[i][j];
            }
        }
    }
}

fn store_add(workgroup: vec3<u32>, local: u32, sum: mat4x4<f32>) {
    let start = place(workgroup, local);
    @unroll for (var i = 0u; i < 4u; i++) {
        @unroll for (var j = 0u; j < 4u; j++) {
            let at = start + vec2<u32>(i, j);
            if (is_inside(at)) {
                let to = index(workgroup.z, at);
                let diagonal = select(0.0, params.diagonal, at.x == at.y);
                y[to] = params.alpha * sum[i][j] + params.beta * residual[to] + diagonal;
            }
        }
    }
}

// A workgroup owns a tile of 64x64 of y, an invocation 4x4 of it; so do all entry points.
// grid: m / TILE, n / TILE, len(y) / (m * n)
@compute @workgroup_size(256)
fn nn(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    store(workgroup, local, product(workgroup, local, workgroup.z, 0u, whole_depth(), false, false));
}

// grid: m / TILE, n / TILE, len(y) / (m * n)
@compute @workgroup_size(256)
fn nt(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    store(workgroup, local, product(workgroup, local, workgroup.z, 0u, whole_depth(), false, true));
}

// grid: m / TILE, n / TILE, len(y) / (m * n)
@compute @workgroup_size(256)
fn tn(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    store(workgroup, local, product(workgroup, local, workgroup.z, 0u, whole_depth(), true, false));
}

// grid: m / TILE, n / TILE, len(y) / (m * n)
@compute @workgroup_size(256)
fn nn_add(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    store_add(workgroup, local, product(workgroup, local, workgroup.z, 0u, whole_depth(), false, false));
}

// grid: m / TILE, n / TILE, len(y) / (m * n)
@compute @workgroup_size(256)
fn nt_add(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    store_add(workgroup, local, product(workgroup, local, workgroup.z, 0u, whole_depth(), false, true));
}

// Adds to the gradient of a parameter.
// grid: m / TILE, n / TILE, len(d_w) / (m * n)
@compute @workgroup_size(256)
fn tn_accumulate(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let sum = product(workgroup, local, workgroup.z, 0u, whole_depth(), true, false);
    let start = place(workgroup, local);
    @unroll for (var i = 0u; i < 4u; i++) {
        @unroll for (var j = 0u; j < 4u; j++) {
            let at = start + vec2<u32>(i, j);
            if (is_inside(at)) {
                d_w[index(workgroup.z, at)] += sum[i][j];
            }
        }
    }
}

// Part z of k alone.
fn product_of_part(workgroup: vec3<u32>, local: u32, a_is_transposed: bool) -> mat4x4<f32> {
    let first = workgroup.z * params.k_part;
    return product(workgroup, local, 0u, first, min(first + params.k_part, whole_depth()), a_is_transposed, false);
}

// grid: m / TILE, n / TILE, len(y) / (m * n)
@compute @workgroup_size(256)
fn nn_parts(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    store(workgroup, local, product_of_part(workgroup, local, false));
}

// grid: m / TILE, n / TILE, len(y) / (m * n)
@compute @workgroup_size(256)
fn tn_parts(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    store(workgroup, local, product_of_part(workgroup, local, true));
}

// The parts of one element, in order.
fn sum_of_parts(i: u32) -> f32 {
    var sum = 0.0;
    for (var at = i; at < arrayLength(&parts); at += params.m * params.n) {
        sum += parts[at];
    }
    return sum;
}

// An invocation owns one element.
// grid: m * n / 256
@compute @workgroup_size(256)
fn add_parts(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * 256u + local;
    if (i < params.m * params.n) {
        y[i] = sum_of_parts(i);
    }
}

// As add_parts, to the gradient of a parameter.
// grid: m * n / 256
@compute @workgroup_size(256)
fn accumulate_parts(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * 256u + local;
    if (i < params.m * params.n) {
        d_w[i] += sum_of_parts(i);
    }
}
