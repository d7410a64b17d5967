// Embedding: tokens [rows], w [vocabulary, width]:
//   y[n] = scale w[tokens[n]]        d_w[v] += scale sum over n with tokens[n] = v of d_y[n]
// The sum runs in ascending n without float atomics: `sort` lists the rows by (token, n), then the first row of each
// run of equal tokens walks its run.

import package::lib::index::flat_workgroup;
import package::lib::operand::{Operand, Result};
import package::lib::rows::{COLUMNS, REPEATS, ROWS, TILE_ROWS, TILE_WIDTH, place};

struct Params {
    rows: u32,
    width: u32,
    vocabulary: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var<storage, read> w: Operand;
@group(0) @binding(3) var<storage, read_write> y: Result;
@group(0) @binding(4) var<storage, read_write> order: array<u32>;
@group(0) @binding(5) var<storage, read_write> sorted: array<u32>;
@group(0) @binding(6) var<storage, read> d_y: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_w: array<f32>;

const INVOCATIONS = 64u;
const TILE = 256u;
const BEYOND = 0xffffffffu; // sorts behind every token

var<workgroup> sh_tokens: array<u32, 256>;

fn token_of(n: u32) -> u32 {
    return min(tokens[n], params.vocabulary - 1u);
}

// grid: width / TILE_WIDTH, rows / TILE_ROWS
@compute @workgroup_size(COLUMNS, ROWS)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    @unroll for (var i = 0u; i < REPEATS; i++) {
        let at = place(workgroup, local, i);
        if (at.y < params.rows && 4u * at.x < params.width) {
            store_y(at, params.width, params.scale * load_w(vec2<u32>(at.x, token_of(at.y)), params.width));
        }
    }
}

// A workgroup owns a tile of rows, an invocation one row n: its place is the number of rows that come before it. Every
// row is compared with every other (0.3 G comparisons at 16,384 rows), which one dispatch does without a scan.
// grid: rows / TILE
@compute @workgroup_size(TILE)
fn sort(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let n = workgroup.x * TILE + local;
    let token = token_of(min(n, params.rows - 1u));
    var place = 0u;
    for (var start = 0u; start < params.rows; start += TILE) {
        let other = start + local;
        sh_tokens[local] = select(BEYOND, token_of(min(other, params.rows - 1u)), other < params.rows);
        workgroupBarrier();
        for (var i = 0u; i < TILE; i++) {
            let is_before = sh_tokens[i] < token || (sh_tokens[i] == token && start + i < n);
            place += select(0u, 1u, is_before);
        }
        workgroupBarrier();
    }
    if (n < params.rows) {
        order[place] = n;
        sorted[place] = token;
    }
}

// A workgroup owns 64 columns of one sorted row, an invocation one column; only the first row of a run of equal tokens
// has work: it sums the run.
// grid: rows * (width / INVOCATIONS)
@compute @workgroup_size(INVOCATIONS)
fn backward_weight(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let blocks = (params.width + INVOCATIONS - 1u) / INVOCATIONS;
    let flat = flat_workgroup(workgroup, workgroups);
    let first = flat / blocks;
    let column = flat % blocks * INVOCATIONS + local;
    if (first >= params.rows || column >= params.width) {
        return;
    }
    let token = sorted[first];
    if (first > 0u && sorted[first - 1u] == token) {
        return;
    }
    var sum = 0.0;
    for (var place = first; place < params.rows && sorted[place] == token; place++) {
        sum += d_y[order[place] * params.width + column];
    }
    d_w[token * params.width + column] += params.scale * sum;
}
