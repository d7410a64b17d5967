// Linear layers of E experts over rows sorted by expert on GPUs, as grouped_matmul.wgsl, four elements at a time: see
// lib/register_tile.wgsl. Two products of an expert's FFN also have its activation f and the mask m of its dropout, as activation.wgsl:
//   nt_activated: y = a w^T + bias, activated = f(y) m             nn_activated: y = (a w) m f'(pre), activated = f(pre) m
//   nt_gated: y = a w^T + bias, activated = f(pre) y m, pre the gate
//   nn_gated: y = (a w) m f'(pre) up, d_up = (a w) m f(pre), activated = f(pre) up m
// nn_ of down's weights computes the inner layer again, so that it need not be kept from forward to backward.
//
// fits: n % 4 == 0 && k % 4 == 0
// rank: 5
// unchecked: bounds

import package::lib::activation::{activate, activate_slope};
import package::lib::dropout::dropout_scale4;
import package::lib::register_tile::{REGISTER_DEPTH, REGISTER_LANES, REGISTER_TILE, multiply_registers, register_row, sh_tiles, stage, staging_block};

struct Params {
    experts: u32,
    n: u32,
    k: u32,
    has_bias: u32, // of the entry points with an activation, as all below
    p: f32,        // probability of dropout
    stream: u32,
    first: u32,    // elements of the layer before these, a multiple of 4
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> offsets: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> d_w: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> bias: array<vec4<f32>>; // [E, n]
@group(0) @binding(8) var<storage, read> pre: array<vec4<f32>>;  // the activation's argument
@group(0) @binding(9) var<storage, read> up: array<vec4<f32>>;
@group(0) @binding(10) var<storage, read_write> d_up: array<vec4<f32>>;
@group(0) @binding(11) var<storage, read_write> activated: array<vec4<f32>>;

// The rows of one expert that a tile owns.
struct RowTile {
    expert: u32, // = experts for a tile beyond the last
    first: u32,
    end: u32,
}

// Tiles are cut from each segment on its own; the grid holds the most that there can be.
fn find_tile(index: u32) -> RowTile {
    var before = 0u;
    var expert = 0u;
    for (; expert < params.experts; expert++) {
        let first = offsets[expert] + (index - before) * REGISTER_TILE;
        let tiles = (offsets[expert + 1u] - offsets[expert] + REGISTER_TILE - 1u) / REGISTER_TILE;
        if (index - before < tiles) {
            return RowTile(expert, first, offsets[expert + 1u]);
        }
        before += tiles;
    }
    return RowTile(expert, 0u, 0u);
}

// Four rows of a from `row` and four k; column i holds k + i. Rows from `end` on are the last one: nothing of them is stored.
fn left(row: u32, end: u32, k: u32) -> mat4x4<f32> {
    if (k >= params.k) {
        return mat4x4<f32>();
    }
    let rows = min(row + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(end - 1u)) * (params.k / 4u) + k / 4u;
    return transpose(mat4x4<f32>(a[rows.x], a[rows.y], a[rows.z], a[rows.w]));
}

// Four columns of an expert's weights from `column` and four k, 0 outside; column i holds k + i.
fn right(is_transposed: bool, expert: u32, column: u32, k: u32) -> mat4x4<f32> {
    if (column >= params.n || k >= params.k) {
        return mat4x4<f32>();
    }
    let stride = select(params.n, params.k, is_transposed) / 4u;
    let at = expert * params.n * params.k / 4u + select(k * stride + column / 4u, column * stride + k / 4u, is_transposed);
    let block = mat4x4<f32>(w[at], w[at + stride], w[at + 2u * stride], w[at + 3u * stride]);
    if (is_transposed) {
        return transpose(block);
    }
    return block;
}

fn load_block(tile: RowTile, column_tile: u32, place: vec3<u32>, k: u32, w_is_transposed: bool) -> mat4x4<f32> {
    if (place.x == 0u) {
        return left(tile.first + 4u * place.y, tile.end, k + 4u * place.z);
    }
    return right(w_is_transposed, tile.expert, column_tile * REGISTER_TILE + 4u * place.y, k + 4u * place.z);
}

// An invocation's 8x4 elements of a tile of rows times an expert's weights.
fn product(tile: RowTile, column_tile: u32, local: u32, w_is_transposed: bool, sum: ptr<function, array<vec4<f32>, 8>>) {
    let place = staging_block(local, false, w_is_transposed);
    var next = load_block(tile, column_tile, place, 0u, w_is_transposed);
    // The length is never the smaller one. It hides the uniform from lavapipe before Mesa 23, see attention.cpu.wgsl.
    let depth = min(params.k, 4u * arrayLength(&a));
    for (var k = 0u; k < depth; k += REGISTER_DEPTH) {
        stage(place, next);
        workgroupBarrier();
        next = load_block(tile, column_tile, place, k + REGISTER_DEPTH, w_is_transposed);
        multiply_registers(local, sum);
        workgroupBarrier();
    }
}

// Row and column / 4 of row `i` of an invocation's elements.
fn place_of(tile: RowTile, column_tile: u32, local: u32, i: u32) -> vec2<u32> {
    return vec2<u32>(tile.first, column_tile * (REGISTER_TILE / 4u)) + register_row(local, i);
}

fn is_inside(tile: RowTile, at: vec2<u32>) -> bool {
    return at.x < tile.end && at.y < params.n / 4u;
}

fn store(tile: RowTile, column_tile: u32, local: u32, sum: ptr<function, array<vec4<f32>, 8>>) {
    @unroll for (var i = 0u; i < 8u; i++) {
        let at = place_of(tile, column_tile, local, i);
        if (is_inside(tile, at)) {
            y[at.x * (params.n / 4u) + at.y] = (*sum)[i];
        }
    }
}

fn mask(group: u32) -> vec4<f32> {
    return dropout_scale4(params.first / 4u + group, params.p, params.stream);
}

fn biased(value: vec4<f32>, expert: u32, column: u32) -> vec4<f32> {
    if (params.has_bias != 0u) {
        return value + bias[expert * (params.n / 4u) + column];
    }
    return value;
}

// A workgroup owns a tile of rows of one expert by as many columns, an invocation 8x4 elements of it; so do all but the last.
// grid: rows(a) / REGISTER_TILE + experts, n / REGISTER_TILE
@compute @workgroup_size(REGISTER_LANES)
fn nt(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = find_tile(workgroup.x);
    if (tile.expert == params.experts) {
        return;
    }
    var sum: array<vec4<f32>, 8>;
    product(tile, workgroup.y, local, true, &sum);
    store(tile, workgroup.y, local, &sum);
}

// grid: rows(a) / REGISTER_TILE + experts, n / REGISTER_TILE
@compute @workgroup_size(REGISTER_LANES)
fn nn(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = find_tile(workgroup.x);
    if (tile.expert == params.experts) {
        return;
    }
    var sum: array<vec4<f32>, 8>;
    product(tile, workgroup.y, local, false, &sum);
    store(tile, workgroup.y, local, &sum);
}

// grid: rows(a) / REGISTER_TILE + experts, n / REGISTER_TILE
@compute @workgroup_size(REGISTER_LANES)
fn nt_activated(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = find_tile(workgroup.x);
    if (tile.expert == params.experts) {
        return;
    }
    var sum: array<vec4<f32>, 8>;
    product(tile, workgroup.y, local, true, &sum);
    @unroll for (var i = 0u; i < 8u; i++) {
        let at = place_of(tile, workgroup.y, local, i);
        if (is_inside(tile, at)) {
            let to = at.x * (params.n / 4u) + at.y;
            let value = biased(sum[i], tile.expert, at.y);
            y[to] = value;
            activated[to] = activate(value) * mask(to);
        }
    }
}

// grid: rows(a) / REGISTER_TILE + experts, n / REGISTER_TILE
@compute @workgroup_size(REGISTER_LANES)
fn nt_gated(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = find_tile(workgroup.x);
    if (tile.expert == params.experts) {
        return;
    }
    var sum: array<vec4<f32>, 8>;
    product(tile, workgroup.y, local, true, &sum);
    @unroll for (var i = 0u; i < 8u; i++) {
        let at = place_of(tile, workgroup.y, local, i);
        if (is_inside(tile, at)) {
            let to = at.x * (params.n / 4u) + at.y;
            let value = biased(sum[i], tile.expert, at.y);
            y[to] = value;
            activated[to] = activate(pre[to]) * mask(to) * value;
        }
    }
}

// grid: rows(a) / REGISTER_TILE + experts, n / REGISTER_TILE
@compute @workgroup_size(REGISTER_LANES)
fn nn_activated(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = find_tile(workgroup.x);
    if (tile.expert == params.experts) {
        return;
    }
    var sum: array<vec4<f32>, 8>;
    product(tile, workgroup.y, local, false, &sum);
    @unroll for (var i = 0u; i < 8u; i++) {
        let at = place_of(tile, workgroup.y, local, i);
        if (is_inside(tile, at)) {
            let to = at.x * (params.n / 4u) + at.y;
            let m = mask(to);
            y[to] = activate_slope(pre[to]) * m * sum[i];
            activated[to] = activate(pre[to]) * m;
        }
    }
}

// grid: rows(a) / REGISTER_TILE + experts, n / REGISTER_TILE
@compute @workgroup_size(REGISTER_LANES)
fn nn_gated(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = find_tile(workgroup.x);
    if (tile.expert == params.experts) {
        return;
    }
    var sum: array<vec4<f32>, 8>;
    product(tile, workgroup.y, local, false, &sum);
    @unroll for (var i = 0u; i < 8u; i++) {
        let at = place_of(tile, workgroup.y, local, i);
        if (is_inside(tile, at)) {
            let to = at.x * (params.n / 4u) + at.y;
            let m = mask(to);
            let value = activate(pre[to]) * m;
            y[to] = activate_slope(pre[to]) * m * up[to] * sum[i];
            d_up[to] = value * sum[i];
            activated[to] = value * up[to];
        }
    }
}

// Four rows from `row` of a (of b) and four of its columns, 0 outside; column i of the block holds row + i.
fn segment_block(place: vec3<u32>, start: vec2<u32>, row: u32, end: u32) -> mat4x4<f32> {
    var block = mat4x4<f32>();
    let column = select(start.x, start.y, place.x == 1u) / 4u + place.y;
    let width = select(params.k, params.n, place.x == 1u) / 4u;
    if (column >= width) {
        return block;
    }
    @unroll for (var i = 0u; i < 4u; i++) {
        let r = row + 4u * place.z + i;
        if (r < end) {
            if (place.x == 0u) {
                block[i] = a[r * width + column];
            } else {
                block[i] = b[r * width + column];
            }
        }
    }
    return block;
}

// A workgroup owns a tile of the gradient of one expert (x) and walks its rows in order, an invocation 8x4 elements.
// grid: experts, k / REGISTER_TILE, n / REGISTER_TILE
@compute @workgroup_size(REGISTER_LANES)
fn tn_accumulate(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let start = workgroup.yz * REGISTER_TILE;
    let end = offsets[workgroup.x + 1u];
    let place = staging_block(local, true, false);
    var sum: array<vec4<f32>, 8>;
    var next = segment_block(place, start, offsets[workgroup.x], end);
    for (var r = offsets[workgroup.x]; r < end; r += REGISTER_DEPTH) {
        stage(place, next);
        workgroupBarrier();
        next = segment_block(place, start, r + REGISTER_DEPTH, end);
        multiply_registers(local, &sum);
        workgroupBarrier();
    }
    @unroll for (var i = 0u; i < 8u; i++) {
        let at = vec2<u32>(start.x, start.y / 4u) + register_row(local, i);
        if (at.x < params.k && at.y < params.n / 4u) {
            d_w[(workgroup.x * params.k + at.x) * (params.n / 4u) + at.y] += sum[i];
        }
    }
}
