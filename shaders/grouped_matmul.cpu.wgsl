// Linear layers of E experts over rows sorted by expert on CPU rasterisers, as grouped_matmul.wgsl; operands are read
// through texture images, so their rows are multiples of 64 elements, and n of 4.
//
// requires: images
// fits: n % 4 == 0
// folded: w
// rank: 10

import package::lib::image_tile::{
    HALF_ROWS, LANES, LANE_COLUMNS, STORED_ROWS, SUMS, TILE_COLUMNS, TILE_ROWS, multiply_nn, multiply_nt, multiply_tn, next_half, next_rows,
};

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
@group(0) @binding(1) var a: texture_2d<f32>;
@group(0) @binding(2) var w: texture_2d<f32>;
@group(0) @binding(3) var<storage, read> offsets: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(5) var b: texture_2d<f32>;
@group(0) @binding(6) var<storage, read_write> d_w: array<vec4<f32>>;

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
        let first = offsets[expert] + (index - before) * TILE_ROWS;
        let tiles = (offsets[expert + 1u] - offsets[expert] + TILE_ROWS - 1u) / TILE_ROWS;
        if (index - before < tiles) {
            return RowTile(expert, first, offsets[expert + 1u]);
        }
        before += tiles;
    }
    return RowTile(expert, 0u, 0u);
}

// `start`: an invocation's first row and texel column.
fn store(start: vec2<u32>, end: u32, sum: ptr<function, array<vec4<f32>, SUMS>>) {
    for (var half = start.x; half < min(start.x + TILE_ROWS, end); half += HALF_ROWS) {
        for (var row = half; row < min(half + HALF_ROWS, end); row += STORED_ROWS) {
            @unroll for (var i = 0u; i < STORED_ROWS; i++) {
                @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
                    let at = vec2<u32>(row + i, start.y + c * LANES);
                    if (at.x < end && at.y < params.n / 4u) {
                        y[at.x * (params.n / 4u) + at.y] = (*sum)[i * LANE_COLUMNS + c];
                    }
                }
            }
            next_rows(sum);
        }
        next_half(sum);
    }
}

// A workgroup owns a tile of up to 32 rows of one expert by 64 columns, an invocation all its rows and every LANES-th
// texel column.
// grid: rows(a) / TILE_ROWS + experts, n / TILE_COLUMNS
@compute @workgroup_size(LANES)
fn nt(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = find_tile(workgroup.x);
    if (tile.expert == params.experts) {
        return;
    }
    let start = vec2<u32>(tile.first, workgroup.y * TILE_COLUMNS / 4u) + vec2<u32>(0u, local);
    var sum: array<vec4<f32>, SUMS>;
    multiply_nt(&sum, a, w, start.x, tile.expert * params.n, start.y, params.k / 4u);
    store(start, tile.end, &sum);
}

// As nt.
// grid: rows(a) / TILE_ROWS + experts, n / TILE_COLUMNS
@compute @workgroup_size(LANES)
fn nn(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let tile = find_tile(workgroup.x);
    if (tile.expert == params.experts) {
        return;
    }
    let start = vec2<u32>(tile.first, workgroup.y * TILE_COLUMNS / 4u) + vec2<u32>(0u, local);
    var sum: array<vec4<f32>, SUMS>;
    multiply_nn(&sum, a, w, start.x, tile.expert * params.k, start.y, params.k / 4u);
    store(start, tile.end, &sum);
}

// A workgroup owns a tile of 32x64 of the gradient of one expert (x, so that loads of different length alternate) and
// walks its rows in order.
// grid: experts, k / TILE_ROWS, n / TILE_COLUMNS
@compute @workgroup_size(LANES)
fn tn_accumulate(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let start = workgroup.yz * vec2<u32>(TILE_ROWS, TILE_COLUMNS / 4u) + vec2<u32>(0u, local);
    let rows = vec2<u32>(offsets[workgroup.x], offsets[workgroup.x + 1u]);
    var sum: array<vec4<f32>, SUMS>;
    multiply_tn(&sum, a, b, start.x / 4u, start.y, rows);
    for (var half = start.x; half < min(start.x + TILE_ROWS, params.k); half += HALF_ROWS) {
        for (var row = half; row < min(half + HALF_ROWS, params.k); row += STORED_ROWS) {
            @unroll for (var i = 0u; i < STORED_ROWS; i++) {
                @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
                    let at = vec2<u32>(row + i, start.y + c * LANES);
                    if (at.x < params.k && at.y < params.n / 4u) {
                        d_w[(workgroup.x * params.k + at.x) * (params.n / 4u) + at.y] += sum[i * LANE_COLUMNS + c];
                    }
                }
            }
            next_rows(&sum);
        }
        next_half(&sum);
    }
}
