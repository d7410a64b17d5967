// Linear layers of E experts over rows sorted by expert: the rows offsets[e] .. offsets[e + 1] belong to expert e,
// and offsets[E] is the number of rows. Segments are data dependent and may be empty. w [E, out, in]:
//   nt: y[r] = a[r] w[e]^T      a [rows, in],  y [rows, out]
//   nn: y[r] = a[r] w[e]        a [rows, out], y [rows, in]       (the gradient of the layer's input)
//   tn_accumulate: d_w[e] += sum over its rows r of a[r]^T b[r]   a [rows, out], b [rows, in]
// n is the width of y (d_w), k of what is summed over; tn sums over rows, and k is the number of rows of d_w[e].

import package::lib::tile::{TILE, TILE_DEPTH, TILE_STRIDE, sh_a, sh_b, multiply_staged, staging_place};

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
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> offsets: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> b: array<f32>;
@group(0) @binding(6) var<storage, read_write> d_w: array<f32>;

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
        let first = offsets[expert] + (index - before) * TILE;
        let tiles = (offsets[expert + 1u] - offsets[expert] + TILE - 1u) / TILE;
        if (index - before < tiles) {
            return RowTile(expert, first, offsets[expert + 1u]);
        }
        before += tiles;
    }
    return RowTile(expert, 0u, 0u);
}

// An invocation's 4x4 elements of a tile of rows times an expert's weights.
fn product(tile: RowTile, column_tile: u32, local: u32, w_is_transposed: bool) -> mat4x4<f32> {
    let a_place = staging_place(local, true);
    let w_place = staging_place(local, w_is_transposed);
    let row = tile.first + 4u * a_place.y;
    let column = column_tile * TILE + 4u * w_place.y;
    let w_base = tile.expert * params.n * params.k;
    var sum = mat4x4<f32>();
    // The length is never the smaller one. It hides the uniform from lavapipe before Mesa 23, see attention.cpu.wgsl.
    let depth = min(params.k, arrayLength(&a));
    for (var k = 0u; k < depth; k += TILE_DEPTH) {
        var a4: vec4<f32>;
        var w4: vec4<f32>;
        @unroll for (var i = 0u; i < 4u; i++) {
            let a_k = k + a_place.x;
            if (row + i < tile.end && a_k < params.k) {
                a4[i] = a[(row + i) * params.k + a_k];
            }
            let w_k = k + w_place.x;
            if (column + i < params.n && w_k < params.k) {
                w4[i] = w[w_base + select(w_k * params.n + column + i, (column + i) * params.k + w_k, w_is_transposed)];
            }
        }
        sh_a[a_place.x * TILE_STRIDE + a_place.y] = a4;
        sh_b[w_place.x * TILE_STRIDE + w_place.y] = w4;
        workgroupBarrier();
        sum = multiply_staged(local, sum);
        workgroupBarrier();
    }
    return sum;
}

fn store(tile: RowTile, column_tile: u32, local: u32, sum: mat4x4<f32>) {
    let row = tile.first + 4u * (local / 16u);
    let column = column_tile * TILE + 4u * (local % 16u);
    @unroll for (var i = 0u; i < 4u; i++) {
        @unroll for (var j = 0u; j < 4u; j++) {
            if (row + i < tile.end && column + j < params.n) {
                y[(row + i) * params.n + column + j] = sum[i][j];
            }
        }
    }
}

// A workgroup owns a tile of up to 64 rows of one expert by 64 columns, an invocation 4x4 of it.
// grid: rows(a) / TILE + experts, n / TILE
@compute @workgroup_size(256)
fn nt(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = find_tile(workgroup.x);
    if (tile.expert == params.experts) {
        return;
    }
    store(tile, workgroup.y, local, product(tile, workgroup.y, local, true));
}

// As nt.
// grid: rows(a) / TILE + experts, n / TILE
@compute @workgroup_size(256)
fn nn(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = find_tile(workgroup.x);
    if (tile.expert == params.experts) {
        return;
    }
    store(tile, workgroup.y, local, product(tile, workgroup.y, local, false));
}

// A workgroup owns a tile of 64x64 of the gradient of one expert (x) and walks its rows in order, an invocation 4x4.
// grid: experts, k / TILE, n / TILE
@compute @workgroup_size(256)
fn tn_accumulate(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let place = staging_place(local, false);
    let start = workgroup.yz * TILE;
    let end = offsets[workgroup.x + 1u];
    var sum = mat4x4<f32>();
    for (var r = offsets[workgroup.x]; r < end; r += TILE_DEPTH) {
        let row = r + place.x;
        var a4: vec4<f32>;
        var b4: vec4<f32>;
        @unroll for (var i = 0u; i < 4u; i++) {
            let at = start + 4u * place.y + i;
            if (row < end && at.x < params.k) {
                a4[i] = a[row * params.k + at.x];
            }
            if (row < end && at.y < params.n) {
                b4[i] = b[row * params.n + at.y];
            }
        }
        sh_a[place.x * TILE_STRIDE + place.y] = a4;
        sh_b[place.x * TILE_STRIDE + place.y] = b4;
        workgroupBarrier();
        sum = multiply_staged(local, sum);
        workgroupBarrier();
    }
    let to = start + 4u * vec2<u32>(local / 16u, local % 16u);
    @unroll for (var i = 0u; i < 4u; i++) {
        @unroll for (var j = 0u; j < 4u; j++) {
            if (to.x + i < params.k && to.y + j < params.n) {
                d_w[(workgroup.x * params.k + to.x + i) * params.n + to.y + j] += sum[i][j];
            }
        }
    }
}
