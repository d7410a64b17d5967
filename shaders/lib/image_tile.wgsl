// Products of matrices read through texture images (a texel holds four elements of a row), for CPU rasterisers: an
// invocation owns 16 rows and 4 texel columns of y and keeps them in registers; a load feeds 16 vector multiply-adds.
// Lanes of a workgroup of 8 lie 4 across and 2 down: it owns 32 rows and 64 columns. Texel columns of an invocation
// are 4 apart, so that neighbours read neighbouring texels.
//
// Rows and columns beyond an operand may hold anything: the caller drops what comes of them. Beyond the end of k they
// are masked out.

import package::lib::texels::four_rows;

const TILE_ROWS = 32u;           // rows of y that a workgroup owns
const TILE_COLUMNS = 64u;        // columns of y that a workgroup owns
const LANE_ROWS = 16u;           // rows of y that an invocation owns
const LANE_COLUMNS = 4u;         // texel columns of y that an invocation owns
const LANES_ACROSS = 4u;
const LANE_QUADS = LANE_ROWS / 4u;

// First row and first texel column of an invocation in its workgroup's tile.
fn lane_place(local: u32) -> vec2<u32> {
    return vec2<u32>((local / LANES_ACROSS) * LANE_ROWS, local % LANES_ACROSS);
}

// sum += a b: a [.., k] from (row, 0), b [k, ..] from (b_row, column), `depth` texels of k.
fn multiply_nn(sum: ptr<function, array<vec4<f32>, 64>>, a: texture_2d<f32>, b: texture_2d<f32>, row: u32, b_row: u32, column: u32, depth: u32) {
    var b4: array<mat4x4<f32>, 4>; // four rows of a texel column each
    for (var k = 0u; k < depth; k++) {
        let start = b_row + 4u * k;
        @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
            let at = column + c * LANES_ACROSS;
            b4[c] = four_rows(b, at, start);
        }
        @unroll for (var i = 0u; i < LANE_ROWS; i++) {
            let a4 = textureLoad(a, vec2<u32>(k, row + i), 0);
            @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
                (*sum)[i * LANE_COLUMNS + c] += b4[c] * a4;
            }
        }
    }
}

// sum += a b^T: a [.., k] from (row, 0), b [.., k] from (b_row, 0) where four rows make a texel column of y.
fn multiply_nt(sum: ptr<function, array<vec4<f32>, 64>>, a: texture_2d<f32>, b: texture_2d<f32>, row: u32, b_row: u32, column: u32, depth: u32) {
    var b4: array<mat4x4<f32>, 4>;
    for (var k = 0u; k < depth; k++) {
        @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
            let start = b_row + 4u * (column + c * LANES_ACROSS);
            b4[c] = transpose(four_rows(b, k, start));
        }
        @unroll for (var i = 0u; i < LANE_ROWS; i++) {
            let a4 = textureLoad(a, vec2<u32>(k, row + i), 0);
            @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
                (*sum)[i * LANE_COLUMNS + c] += b4[c] * a4;
            }
        }
    }
}

// sum += a^T b over the rows k of `rows`: a [k, ..], b [k, ..]; `row` is the first texel column of a. A k beyond the
// end reads other rows, so it is masked out of a.
fn multiply_tn(sum: ptr<function, array<vec4<f32>, 64>>, a: texture_2d<f32>, b: texture_2d<f32>, row: u32, column: u32, rows: vec2<u32>) {
    var b4: array<mat4x4<f32>, 4>;
    for (var k = rows.x; k < rows.y; k += 4u) {
        @unroll for (var c = 0u; c < LANE_COLUMNS; c++) {
            let at = column + c * LANES_ACROSS;
            b4[c] = four_rows(b, at, k);
        }
        let inside = vec4<u32>(k, k + 1u, k + 2u, k + 3u) < vec4<u32>(rows.y);
        @unroll for (var q = 0u; q < LANE_QUADS; q++) {
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
