// Products of matrices read through texture images (a texel holds four elements of a row), for CPU rasterisers: a
// workgroup owns 32 rows and 64 columns of y; an invocation all its rows and every fourth of its texel columns, so that
// neighbours read neighbouring texels. It keeps them in registers: 48 loads feed 512 vector multiply-adds. Loads are
// most of the time on SwiftShader, hence so large a share for an invocation.
//
// Rows and columns beyond an operand may hold anything: the caller drops what comes of them. Beyond the end of k they
// are masked out.

import package::lib::texels::{four_folded_rows, four_rows};

const TILE_ROWS = 32u;           // rows of y that a workgroup owns, and each of its invocations
const TILE_COLUMNS = 64u;        // columns of y that a workgroup owns
const LANES = 4u;                // invocations of a workgroup
const LANE_COLUMNS = 4u;         // texel columns of y that an invocation owns
const SUMS = TILE_ROWS * LANE_COLUMNS;
const HALF_ROWS = TILE_ROWS / 2u;
const STORED_ROWS = 2u;          // rows that a step of a loop stores
const HALF_SUMS = SUMS / 2u;
const STORED_SUMS = STORED_ROWS * LANE_COLUMNS;
const KEPT_SUMS = HALF_SUMS - STORED_SUMS;
const TILE_QUADS = TILE_ROWS / 4u;

// sum += a b: a [.., k] from (row, 0), b [k, ..] from (b_row, column), `depth` texels of k.
fn multiply_nn(sum: ptr<function, array<vec4<f32>, SUMS>>, a: texture_2d<f32>, b: texture_2d<f32>, row: u32, b_row: u32, column: u32, depth: u32) {
    var b4: array<mat4x4<f32>, 4>; // four rows of a texel column each
    for (var k = 0u; k < depth; k++) {
        let start = b_row + 4u * k;
        @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
            let at = column + c * LANES;
            b4[c] = four_folded_rows(b, at, start);
        }
        @unroll for (var i = 0u; i < TILE_ROWS; i++) {
            let a4 = textureLoad(a, vec2<u32>(k, row + i), 0);
            @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
                (*sum)[i * LANE_COLUMNS + c] += b4[c] * a4;
            }
        }
    }
}

// sum += a b^T: a [.., k] from (row, 0), b [.., k] from (b_row, 0) where four rows make a texel column of y.
fn multiply_nt(sum: ptr<function, array<vec4<f32>, SUMS>>, a: texture_2d<f32>, b: texture_2d<f32>, row: u32, b_row: u32, column: u32, depth: u32) {
    var b4: array<mat4x4<f32>, 4>;
    for (var k = 0u; k < depth; k++) {
        @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
            let start = b_row + 4u * (column + c * LANES);
            b4[c] = transpose(four_folded_rows(b, k, start));
        }
        @unroll for (var i = 0u; i < TILE_ROWS; i++) {
            let a4 = textureLoad(a, vec2<u32>(k, row + i), 0);
            @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
                (*sum)[i * LANE_COLUMNS + c] += b4[c] * a4;
            }
        }
    }
}

// sum += a^T b over the rows k of `rows`: a [k, ..], b [k, ..]; `row` is the first texel column of a. A k beyond the
// end reads other rows, so it is masked out of a.
fn multiply_tn(sum: ptr<function, array<vec4<f32>, SUMS>>, a: texture_2d<f32>, b: texture_2d<f32>, row: u32, column: u32, rows: vec2<u32>) {
    var b4: array<mat4x4<f32>, 4>;
    for (var k = rows.x; k < rows.y; k += 4u) {
        @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
            let at = column + c * LANES;
            b4[c] = four_folded_rows(b, at, k);
        }
        let inside = vec4<u32>(k, k + 1u, k + 2u, k + 3u) < vec4<u32>(rows.y);
        @unroll for (var q = 0u; q < TILE_QUADS; q++) {
            let a4 = transpose(four_rows(a, row + q, k));
            @unroll for (var i = 0u; i < 4u; i++) {
                let masked = select(vec4<f32>(), a4[i], inside);
                @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
                    (*sum)[(4u * q + i) * LANE_COLUMNS + c] += b4[c] * masked;
                }
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
