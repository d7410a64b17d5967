// Linear layers of E experts over rows sorted by expert, with operands rounded to f16, or split into two, and sums in f32, as grouped_matmul.wgsl, on
// cooperative matrices: see matmul.coop.wgsl.
//
// fits: n % 8 == 0 && k % 8 == 0
// fits: whole_tiles + 1 > LEAST_TILES
// rank: 20
// unchecked: bounds

import package::lib::coop::{
    BUFFERS, COOP_LANES, GRID_COLUMNS, LEAST_TILES, LOADS_A, LOADS_B, MatC, SIDE, SPAN, SPAN_COLUMNS, SPAN_ROWS, SUBGROUP,
    TILE_COLUMNS, TILE_DEPTH, TILE_ROWS, sh_patch,
};
import package::lib::coop_tile::{
    A_IS_K_CONTIGUOUS, B_IS_K_CONTIGUOUS, HIGH_HIGH, HIGH_LOW, LOW_HIGH, first_term, multiply_cooperatively, scale_small_terms,
    stage_left, stage_right, staged_left, staged_right,
};

enable f16;
enable wgpu_cooperative_matrix;

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
@group(0) @binding(1) var<storage, read> a: array<mat2x4<f16>>; // eight elements each
@group(0) @binding(2) var<storage, read> w: array<mat2x4<f16>>;
@group(0) @binding(3) var<storage, read> offsets: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> b: array<mat2x4<f16>>;
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
        let first = offsets[expert] + (index - before) * TILE_ROWS;
        let tiles = (offsets[expert + 1u] - offsets[expert] + TILE_ROWS - 1u) / TILE_ROWS;
        if (index - before < tiles) {
            return RowTile(expert, first, offsets[expert + 1u]);
        }
        before += tiles;
    }
    return RowTile(expert, 0u, 0u);
}

// Row and column of the subgroup's part of a tile.
fn part_of(subgroup: u32) -> vec2<u32> {
    return vec2<u32>(subgroup / GRID_COLUMNS * SPAN_ROWS, subgroup % GRID_COLUMNS * SPAN_COLUMNS) * SIDE;
}

// Where the octets of a that a term multiplies begin.
fn half_of_a(term: u32) -> u32 {
    return select(0u, arrayLength(&a) / 2u, term == LOW_HIGH);
}

// Octet `i` of the rows of a tile, from `k` on.
fn row_octet(tile: RowTile, term: u32, k: u32, local: u32, i: u32) -> mat2x4<f16> {
    let at = vec2<u32>(tile.first, k) + staged_left(local, i);
    if (at.x >= tile.end || at.y >= params.k) {
        return mat2x4<f16>();
    }
    return a[half_of_a(term) + (at.x * params.k + at.y) / 8u];
}

// Octet `i` of an expert's weights.
fn weight_octet(expert: u32, column: u32, term: u32, k: u32, local: u32, i: u32) -> mat2x4<f16> {
    let at = vec2<u32>(column, k) + staged_right(local, i);
    if (at.x >= params.n || at.y >= params.k) {
        return mat2x4<f16>();
    }
    let index = select(at.y * params.n + at.x, at.x * params.k + at.y, B_IS_K_CONTIGUOUS);
    let half = select(0u, arrayLength(&w) / 2u, term == HIGH_LOW);
    return w[half + (expert * params.n * params.k + index) / 8u];
}

// sum += a tile of rows times an expert's weights.
fn product(tile: RowTile, column: u32, local: u32, part: vec2<u32>, sum: ptr<function, array<MatC, SPAN>>) {
    var stage = 0u;
    for (var term = first_term(); term <= HIGH_HIGH; term++) {
        scale_small_terms(term, sum);
        var next_a: array<mat2x4<f16>, LOADS_A>;
        var next_w: array<mat2x4<f16>, LOADS_B>;
        @unroll for (var i = 0u; i < LOADS_A; i++) {
            next_a[i] = row_octet(tile, term, 0u, local, i);
        }
        @unroll for (var i = 0u; i < LOADS_B; i++) {
            next_w[i] = weight_octet(tile.expert, column, term, 0u, local, i);
        }
        for (var k = 0u; k < params.k; k += TILE_DEPTH) {
            @unroll for (var i = 0u; i < LOADS_A; i++) {
                stage_left(stage, local, i, next_a[i]);
            }
            @unroll for (var i = 0u; i < LOADS_B; i++) {
                stage_right(stage, local, i, next_w[i]);
            }
            workgroupBarrier();
            @unroll for (var i = 0u; i < LOADS_A; i++) {
                next_a[i] = row_octet(tile, term, k + TILE_DEPTH, local, i);
            }
            @unroll for (var i = 0u; i < LOADS_B; i++) {
                next_w[i] = weight_octet(tile.expert, column, term, k + TILE_DEPTH, local, i);
            }
            multiply_cooperatively(stage, part.x, part.y, sum);
            if (BUFFERS == 1u) {
                workgroupBarrier();
            } else {
                stage = 1u - stage;
            }
        }
    }
}

// Rows of other experts follow those of this one: only a tile of whole rows is stored directly.
fn store(tile: RowTile, column: u32, subgroup: u32, lane: u32, sum: ptr<function, array<MatC, SPAN>>) {
    let n = params.n;
    let start = vec2<u32>(tile.first, column) + part_of(subgroup);
    let own = subgroup * SIDE * SIDE;
    @unroll for (var i = 0u; i < SPAN_ROWS; i++) {
        @unroll for (var j = 0u; j < SPAN_COLUMNS; j++) {
            workgroupBarrier();
            let one = (*sum)[SPAN_COLUMNS * i + j];
            coopStoreT(one, &sh_patch[own], SIDE);
            workgroupBarrier();
            for (var e = lane; e < SIDE * SIDE; e += SUBGROUP) {
                let at = start + vec2<u32>(i * SIDE + e / SIDE, j * SIDE + e % SIDE);
                if (at.x < tile.end && at.y < n) {
                    y[at.x * n + at.y] = sh_patch[own + e];
                }
            }
        }
    }
}

// As store, without the way through workgroup memory.
fn store_whole(tile: RowTile, column: u32, subgroup: u32, sum: ptr<function, array<MatC, SPAN>>) {
    let n = params.n;
    let start = vec2<u32>(tile.first, column) + part_of(subgroup);
    @unroll for (var i = 0u; i < SPAN_ROWS; i++) {
        @unroll for (var j = 0u; j < SPAN_COLUMNS; j++) {
            let to = (start.x + i * SIDE) * n + start.y + j * SIDE;
            let one = (*sum)[SPAN_COLUMNS * i + j];
            coopStoreT(one, &y[to], n);
        }
    }
}

// A workgroup owns a tile of rows of one expert by TILE_COLUMNS columns.
// grid: rows(a) / TILE_ROWS + experts, n / TILE_COLUMNS
// constants: A_IS_K_CONTIGUOUS = true, B_IS_K_CONTIGUOUS = true
@compute @workgroup_size(COOP_LANES)
fn nt(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let tile = find_tile(workgroup.x);
    if (tile.expert == params.experts) {
        return;
    }
    let column = workgroup.y * TILE_COLUMNS;
    var sum: array<MatC, SPAN>;
    @unroll for (var i = 0u; i < SPAN; i++) {
        sum[i] = MatC();
    }
    product(tile, column, local, part_of(subgroup), &sum);
    if (tile.first + TILE_ROWS <= tile.end && column + TILE_COLUMNS <= params.n) {
        store_whole(tile, column, subgroup, &sum);
    } else {
        store(tile, column, subgroup, lane, &sum);
    }
}

// As nt.
// grid: rows(a) / TILE_ROWS + experts, n / TILE_COLUMNS
// constants: A_IS_K_CONTIGUOUS = true, B_IS_K_CONTIGUOUS = false
@compute @workgroup_size(COOP_LANES)
fn nn(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let tile = find_tile(workgroup.x);
    if (tile.expert == params.experts) {
        return;
    }
    let column = workgroup.y * TILE_COLUMNS;
    var sum: array<MatC, SPAN>;
    @unroll for (var i = 0u; i < SPAN; i++) {
        sum[i] = MatC();
    }
    product(tile, column, local, part_of(subgroup), &sum);
    if (tile.first + TILE_ROWS <= tile.end && column + TILE_COLUMNS <= params.n) {
        store_whole(tile, column, subgroup, &sum);
    } else {
        store(tile, column, subgroup, lane, &sum);
    }
}

// Octet `i` of rows of a from `row` on, its columns from `column` on.
fn left_octet(column: u32, term: u32, row: u32, end: u32, local: u32, i: u32) -> mat2x4<f16> {
    let at = vec2<u32>(column, row) + staged_left(local, i);
    if (at.x >= params.k || at.y >= end) {
        return mat2x4<f16>();
    }
    return a[half_of_a(term) + (at.y * params.k + at.x) / 8u];
}

fn right_octet(column: u32, term: u32, row: u32, end: u32, local: u32, i: u32) -> mat2x4<f16> {
    let at = vec2<u32>(column, row) + staged_right(local, i);
    if (at.x >= params.n || at.y >= end) {
        return mat2x4<f16>();
    }
    let half = select(0u, arrayLength(&b) / 2u, term == HIGH_LOW);
    return b[half + (at.y * params.n + at.x) / 8u];
}

// Adds a tile that is inside d_w.
fn accumulate_whole(expert: u32, start: vec2<u32>, subgroup: u32, sum: ptr<function, array<MatC, SPAN>>) {
    let n = params.n;
    let base = expert * params.k * n;
    let first = start + part_of(subgroup);
    @unroll for (var i = 0u; i < SPAN_ROWS; i++) {
        @unroll for (var j = 0u; j < SPAN_COLUMNS; j++) {
            let to = base + (first.x + i * SIDE) * n + first.y + j * SIDE;
            let before = coopLoadT<MatC>(&d_w[to], n);
            let one = before + (*sum)[SPAN_COLUMNS * i + j];
            coopStoreT(one, &d_w[to], n);
        }
    }
}

// Adds what of a tile is inside d_w, through workgroup memory.
fn accumulate(expert: u32, start: vec2<u32>, subgroup: u32, lane: u32, sum: ptr<function, array<MatC, SPAN>>) {
    let n = params.n;
    let base = expert * params.k * n;
    let first = start + part_of(subgroup);
    let own = subgroup * SIDE * SIDE;
    @unroll for (var i = 0u; i < SPAN_ROWS; i++) {
        @unroll for (var j = 0u; j < SPAN_COLUMNS; j++) {
            workgroupBarrier();
            let one = (*sum)[SPAN_COLUMNS * i + j];
            coopStoreT(one, &sh_patch[own], SIDE);
            workgroupBarrier();
            for (var e = lane; e < SIDE * SIDE; e += SUBGROUP) {
                let at = first + vec2<u32>(i * SIDE + e / SIDE, j * SIDE + e % SIDE);
                if (at.x < params.k && at.y < n) {
                    d_w[base + at.x * n + at.y] += sh_patch[own + e];
                }
            }
        }
    }
}

// A workgroup owns a tile of the gradient of one expert (x) and walks its rows in order.
// grid: experts, k / TILE_ROWS, n / TILE_COLUMNS
// constants: A_IS_K_CONTIGUOUS = false, B_IS_K_CONTIGUOUS = false
@compute @workgroup_size(COOP_LANES)
fn tn_accumulate(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let segment = vec2<u32>(offsets[workgroup.x], offsets[workgroup.x + 1u]);
    let start = vec2<u32>(workgroup.y * TILE_ROWS, workgroup.z * TILE_COLUMNS);
    let part = part_of(subgroup);
    var sum: array<MatC, SPAN>;
    @unroll for (var i = 0u; i < SPAN; i++) {
        sum[i] = MatC();
    }
    var stage = 0u;
    for (var term = first_term(); term <= HIGH_HIGH; term++) {
        scale_small_terms(term, &sum);
        var next_a: array<mat2x4<f16>, LOADS_A>;
        var next_b: array<mat2x4<f16>, LOADS_B>;
        @unroll for (var i = 0u; i < LOADS_A; i++) {
            next_a[i] = left_octet(start.x, term, segment.x, segment.y, local, i);
        }
        @unroll for (var i = 0u; i < LOADS_B; i++) {
            next_b[i] = right_octet(start.y, term, segment.x, segment.y, local, i);
        }
        for (var row = segment.x; row < segment.y; row += TILE_DEPTH) {
            @unroll for (var i = 0u; i < LOADS_A; i++) {
                stage_left(stage, local, i, next_a[i]);
            }
            @unroll for (var i = 0u; i < LOADS_B; i++) {
                stage_right(stage, local, i, next_b[i]);
            }
            workgroupBarrier();
            @unroll for (var i = 0u; i < LOADS_A; i++) {
                next_a[i] = left_octet(start.x, term, row + TILE_DEPTH, segment.y, local, i);
            }
            @unroll for (var i = 0u; i < LOADS_B; i++) {
                next_b[i] = right_octet(start.y, term, row + TILE_DEPTH, segment.y, local, i);
            }
            multiply_cooperatively(stage, part.x, part.y, &sum);
            if (BUFFERS == 1u) {
                workgroupBarrier();
            } else {
                stage = 1u - stage;
            }
        }
    }
    if (start.x + TILE_ROWS <= params.k && start.y + TILE_COLUMNS <= params.n) {
        accumulate_whole(workgroup.x, start, subgroup, &sum);
    } else {
        accumulate(workgroup.x, start, subgroup, lane, &sum);
    }
}
