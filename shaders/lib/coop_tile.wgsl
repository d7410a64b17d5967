// Staging two tiles of f16 operands and multiplying them on cooperative matrices. How the operands lie is told by pipeline constants,
// which every entry point states: naga takes no cooperative operation under an `if` on a function argument.

import package::lib::coop::{
    COOP_LANES, MatA, MatB, MatC, SIDE, SPAN, SPAN_COLUMNS, SPAN_ROWS, STAGE_A, STAGE_B, STEPS, TILE_COLUMNS, TILE_DEPTH, TILE_ROWS,
    sh_a, sh_b,
};

override A_IS_K_CONTIGUOUS: bool;
override B_IS_K_CONTIGUOUS: bool;
// Operands of two f16 each, x = high + low / 2^11 (halves.wgsl): a b = high high + (high low + low high) / 2^11 but for 2^-22. The small
// terms are summed first, over all of k, and scaled; then the large one is added.
override SPLIT: bool = false;

// Terms of a product, in the order in which they are summed. Without SPLIT the last is all of it.
const LOW_HIGH = 0u;
const HIGH_LOW = 1u;
const HIGH_HIGH = 2u;

fn first_term() -> u32 {
    return select(HIGH_HIGH, LOW_HIGH, SPLIT);
}

const OCTETS = TILE_DEPTH / 8u;     // eight f16 of a row
const STRIDE = TILE_DEPTH + 8u;     // f16 from row to row where k is contiguous; padded against bank conflicts
const STRIDE_A = TILE_ROWS + 8u;    // from k to k where rows are
const STRIDE_B = TILE_COLUMNS + 8u; // where columns are

// (row, k) of the first element of octet `i` that an invocation stages of a.
fn staged_left(local: u32, i: u32) -> vec2<u32> {
    let octet = local + i * COOP_LANES;
    if (A_IS_K_CONTIGUOUS) {
        return vec2<u32>(octet / OCTETS, octet % OCTETS * 8u);
    }
    return vec2<u32>(octet % (TILE_ROWS / 8u) * 8u, octet / (TILE_ROWS / 8u));
}

// (column, k) of the same of b.
fn staged_right(local: u32, i: u32) -> vec2<u32> {
    let octet = local + i * COOP_LANES;
    if (B_IS_K_CONTIGUOUS) {
        return vec2<u32>(octet / OCTETS, octet % OCTETS * 8u);
    }
    return vec2<u32>(octet % (TILE_COLUMNS / 8u) * 8u, octet / (TILE_COLUMNS / 8u));
}

fn stage_left(stage: u32, local: u32, i: u32, octet: mat2x4<f16>) {
    let at = staged_left(local, i);
    let to = (stage * STAGE_A + select(at.y * STRIDE_A + at.x, at.x * STRIDE + at.y, A_IS_K_CONTIGUOUS)) / 4u;
    sh_a[to] = octet[0];
    sh_a[to + 1u] = octet[1];
}

fn stage_right(stage: u32, local: u32, i: u32, octet: mat2x4<f16>) {
    let at = staged_right(local, i);
    let to = (stage * STAGE_B + select(at.y * STRIDE_B + at.x, at.x * STRIDE + at.y, B_IS_K_CONTIGUOUS)) / 4u;
    sh_b[to] = octet[0];
    sh_b[to + 1u] = octet[1];
}

// Begins a term.
fn scale_small_terms(term: u32, sum: ptr<function, array<MatC, SPAN>>) {
    if (SPLIT) {
        let scale = select(1.0, 1.0 / 2048.0, term == HIGH_HIGH);
        @unroll for (var i = 0u; i < SPAN; i++) {
            (*sum)[i] = (*sum)[i] * scale;
        }
    }
}

// Adds the product of the staged tiles to the part of y of the subgroup that begins at a row and column of the tile.
fn multiply_cooperatively(stage: u32, row: u32, column: u32, sum: ptr<function, array<MatC, SPAN>>) {
    @unroll for (var d = 0u; d < STEPS; d++) {
        var lefts: array<MatA, SPAN_ROWS>;
        @unroll for (var i = 0u; i < SPAN_ROWS; i++) {
            let line = row + i * SIDE;
            if (A_IS_K_CONTIGUOUS) {
                lefts[i] = coopLoadT<MatA>(&sh_a[(stage * STAGE_A + line * STRIDE + d * SIDE) / 4u], STRIDE / 4u);
            } else {
                lefts[i] = coopLoad<MatA>(&sh_a[(stage * STAGE_A + d * SIDE * STRIDE_A + line) / 4u], STRIDE_A / 4u);
            }
        }
        @unroll for (var j = 0u; j < SPAN_COLUMNS; j++) {
            let line = column + j * SIDE;
            var one: MatB;
            if (B_IS_K_CONTIGUOUS) {
                one = coopLoad<MatB>(&sh_b[(stage * STAGE_B + line * STRIDE + d * SIDE) / 4u], STRIDE / 4u);
            } else {
                one = coopLoadT<MatB>(&sh_b[(stage * STAGE_B + d * SIDE * STRIDE_B + line) / 4u], STRIDE_B / 4u);
            }
            @unroll for (var i = 0u; i < SPAN_ROWS; i++) {
                (*sum)[SPAN_COLUMNS * i + j] = coopMultiplyAdd(lefts[i], one, (*sum)[SPAN_COLUMNS * i + j]);
            }
        }
    }
}
