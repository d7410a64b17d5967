// image_tile.wgsl for adapters whose subgroups hold 8 lanes: a lane owns two texel columns, loads an eighth of a's
// elements and reads the others from its neighbours' registers, so that 12 loads feed 256 vector multiply-adds, where
// image_tile.wgsl needs 24.
//
// requires: subgroups 8
// rank: 1

import package::lib::texels::{four_folded_rows, four_rows};

const TILE_ROWS = 32u;           // rows of y that a workgroup owns, and each of its invocations
const TILE_COLUMNS = 64u;        // columns of y that a workgroup owns
const LANES = 8u;                // invocations of a workgroup
const LANE_COLUMNS = 2u;         // texel columns of y that an invocation owns
const SUMS = TILE_ROWS * LANE_COLUMNS;
const HALF_ROWS = TILE_ROWS / 2u;
const STORED_ROWS = 2u;          // rows that a step of a loop stores
const HALF_SUMS = SUMS / 2u;
const STORED_SUMS = STORED_ROWS * LANE_COLUMNS;
const KEPT_SUMS = HALF_SUMS - STORED_SUMS;
const LANE_LOADS = TILE_ROWS / LANES;

// The lane that owns a texel column: tiles start at multiples of their width.
fn lane_of(column: u32) -> u32 {
    return column % LANES;
}

// sum += a b: a [.., k] from (row, 0), b [k, ..] from (b_row, column), `depth` texels of k.
fn multiply_nn(sum: ptr<function, array<vec4<f32>, SUMS>>, a: texture_2d<f32>, b: texture_2d<f32>, row: u32, b_row: u32, column: u32, depth: u32) {
    var b4: array<mat4x4<f32>, 2>; // four rows of a texel column each
    var a4: array<vec4<f32>, 4>;
    let own_row = row + lane_of(column);
    for (var k = 0u; k < depth; k++) {
        let start = b_row + 4u * k;
        @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
            let at = column + c * LANES;
            b4[c] = four_folded_rows(b, at, start);
        }
        @unroll for (var i = 0u; i < LANE_LOADS; i++) {
            a4[i] = textureLoad(a, vec2<u32>(k, own_row + i * LANES), 0);
        }
        @unroll for (var i = 0u; i < TILE_ROWS; i++) {
            let spread = subgroupShuffle(a4[i / LANES], i % LANES);
            @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
                (*sum)[i * LANE_COLUMNS + c] += b4[c] * spread;
            }
        }
    }
}

// sum += a b^T: a [.., k] from (row, 0), b [.., k] from (b_row, 0) where four rows make a texel column of y.
fn multiply_nt(sum: ptr<function, array<vec4<f32>, SUMS>>, a: texture_2d<f32>, b: texture_2d<f32>, row: u32, b_row: u32, column: u32, depth: u32) {
    var b4: array<mat4x4<f32>, 2>;
    var a4: array<vec4<f32>, 4>;
    let own_row = row + lane_of(column);
    for (var k = 0u; k < depth; k++) {
        @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
            let start = b_row + 4u * (column + c * LANES);
            b4[c] = transpose(four_folded_rows(b, k, start));
        }
        @unroll for (var i = 0u; i < LANE_LOADS; i++) {
            a4[i] = textureLoad(a, vec2<u32>(k, own_row + i * LANES), 0);
        }
        @unroll for (var i = 0u; i < TILE_ROWS; i++) {
            let spread = subgroupShuffle(a4[i / LANES], i % LANES);
            @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
                (*sum)[i * LANE_COLUMNS + c] += b4[c] * spread;
            }
        }
    }
}

// sum += a^T b over the rows k of `rows`: a [k, ..], b [k, ..]; `row` is the first texel column of a. A k beyond the
// end reads other rows, so it is masked out of a. A lane loads one texel column of a; it holds four rows of y.
fn multiply_tn(sum: ptr<function, array<vec4<f32>, SUMS>>, a: texture_2d<f32>, b: texture_2d<f32>, row: u32, column: u32, rows: vec2<u32>) {
    var b4: array<mat4x4<f32>, 2>;
    let own_row = row + lane_of(column);
    for (var k = rows.x; k < rows.y; k += 4u) {
        @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
            let at = column + c * LANES;
            b4[c] = four_folded_rows(b, at, k);
        }
        let inside = vec4<u32>(k, k + 1u, k + 2u, k + 3u) < vec4<u32>(rows.y);
        let a4 = transpose(four_rows(a, own_row, k));
        var masked: array<vec4<f32>, 4>;
        @unroll for (var i = 0u; i < 4u; i++) {
            masked[i] = select(vec4<f32>(), a4[i], inside);
        }
        @unroll for (var i = 0u; i < TILE_ROWS; i++) {
            let spread = subgroupShuffle(masked[i % 4u], i / 4u);
            @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
                (*sum)[i * LANE_COLUMNS + c] += b4[c] * spread;
            }
        }
    }
}

// How sums are stored. They stay in registers only if every index is a constant; a store for each would take a driver many times
// as long to compile as the product itself. So two nested loops store the first rows and move the others to the front: those of
// one half of the tile, then the other half.

// Makes the sums of the half's next STORED_ROWS rows the first.
fn next_rows(sum: ptr<function, array<vec4<f32>, SUMS>>) {
    @unroll for (var i = 0u; i < KEPT_SUMS; i++) {
        (*sum)[i] = (*sum)[i + STORED_SUMS];
    }
}

// Makes the sums of the second half of the rows the first.
fn next_half(sum: ptr<function, array<vec4<f32>, SUMS>>) {
    @unroll for (var i = 0u; i < HALF_SUMS; i++) {
        (*sum)[i] = (*sum)[i + HALF_SUMS];
    }
}
