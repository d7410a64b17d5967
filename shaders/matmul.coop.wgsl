// Products of matrices with operands rounded to f16, or split into two, and sums in f32, as matmul.wgsl, on cooperative matrices (tensor cores): see
// lib/coop.wgsl. A workgroup owns a tile of y, each of its subgroups SPAN_ROWS x SPAN_COLUMNS cooperative matrices of it. Both
// operands are staged in workgroup memory, TILE_DEPTH of k at a time; while one step is multiplied, the next is on its way in
// registers. Loads and stores of cooperative matrices know no bounds: what is outside is staged as 0, and a tile that reaches
// beyond y is stored through workgroup memory.
//
// naga takes cooperative operations under uniform control flow only, and no function argument counts as uniform: whether a tile is
// whole is asked in the entry points, of the workgroup's id: behind a flag from `workgroupUniformLoad` an NVIDIA H200 (driver 580) stored
// wrong sums, and took half as long again. naga does not evaluate expressions in the arguments of coopStore either: they are named first.
//
// fits: m % 8 == 0 && n % 8 == 0 && k % 8 == 0
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
    m: u32,
    n: u32,
    k: u32,
    alpha: f32,
    beta: f32,
    diagonal: f32,
    k_part: u32, // of k in each of the parts that are summed in order afterwards
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> a: array<mat2x4<f16>>; // eight elements each
@group(0) @binding(2) var<storage, read> b: array<mat2x4<f16>>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> d_w: array<f32>;

// What an invocation does.
struct Task {
    tile: vec2<u32>,  // first row and column of the workgroup's tile
    part: vec2<u32>,  // of the subgroup's part
    batch: u32,
    k: vec2<u32>,     // first and end
    local: u32,
    subgroup: u32,
    lane: u32,
}

fn task(workgroup: vec3<u32>, local: u32, subgroup: u32, lane: u32, batch: u32, k: vec2<u32>) -> Task {
    let tile = workgroup.xy * vec2<u32>(TILE_ROWS, TILE_COLUMNS);
    let part = tile + vec2<u32>(subgroup / GRID_COLUMNS * SPAN_ROWS, subgroup % GRID_COLUMNS * SPAN_COLUMNS) * SIDE;
    return Task(tile, part, batch, k, local, subgroup, lane);
}

fn left(task: Task, term: u32, k: u32, i: u32) -> mat2x4<f16> {
    let at = vec2<u32>(task.tile.x, k) + staged_left(task.local, i);
    if (at.x >= params.m || at.y >= task.k.y) {
        return mat2x4<f16>();
    }
    let index = select(at.y * params.m + at.x, at.x * params.k + at.y, A_IS_K_CONTIGUOUS);
    let half = select(0u, arrayLength(&a) / 2u, term == LOW_HIGH);
    return a[half + (task.batch * params.m * params.k + index) / 8u];
}

fn right(task: Task, term: u32, k: u32, i: u32) -> mat2x4<f16> {
    let at = vec2<u32>(task.tile.y, k) + staged_right(task.local, i);
    if (at.x >= params.n || at.y >= task.k.y) {
        return mat2x4<f16>();
    }
    let index = select(at.y * params.n + at.x, at.x * params.k + at.y, B_IS_K_CONTIGUOUS);
    let half = select(0u, arrayLength(&b) / 2u, term == HIGH_LOW);
    return b[half + (task.batch * params.n * params.k + index) / 8u];
}

// sum += a b over the task's k.
fn product(task: Task, sum: ptr<function, array<MatC, SPAN>>) {
    let row = task.part.x - task.tile.x;
    let column = task.part.y - task.tile.y;
    var stage = 0u;
    for (var term = first_term(); term <= HIGH_HIGH; term++) {
        scale_small_terms(term, sum);
        var next_a: array<mat2x4<f16>, LOADS_A>;
        var next_b: array<mat2x4<f16>, LOADS_B>;
        @unroll for (var i = 0u; i < LOADS_A; i++) {
            next_a[i] = left(task, term, task.k.x, i);
        }
        @unroll for (var i = 0u; i < LOADS_B; i++) {
            next_b[i] = right(task, term, task.k.x, i);
        }
        for (var k = task.k.x; k < task.k.y; k += TILE_DEPTH) {
            @unroll for (var i = 0u; i < LOADS_A; i++) {
                stage_left(stage, task.local, i, next_a[i]);
            }
            @unroll for (var i = 0u; i < LOADS_B; i++) {
                stage_right(stage, task.local, i, next_b[i]);
            }
            workgroupBarrier();
            @unroll for (var i = 0u; i < LOADS_A; i++) {
                next_a[i] = left(task, term, k + TILE_DEPTH, i);
            }
            @unroll for (var i = 0u; i < LOADS_B; i++) {
                next_b[i] = right(task, term, k + TILE_DEPTH, i);
            }
            multiply_cooperatively(stage, row, column, sum);
            if (BUFFERS == 1u) {
                workgroupBarrier();
            } else {
                stage = 1u - stage;
            }
        }
    }
}

// Stores a tile that is inside y.
fn store_whole(task: Task, sum: ptr<function, array<MatC, SPAN>>) {
    let n = params.n;
    let base = task.batch * params.m * n;
    @unroll for (var i = 0u; i < SPAN_ROWS; i++) {
        @unroll for (var j = 0u; j < SPAN_COLUMNS; j++) {
            let to = base + (task.part.x + i * SIDE) * n + task.part.y + j * SIDE;
            let one = (*sum)[SPAN_COLUMNS * i + j];
            coopStoreT(one, &y[to], n);
        }
    }
}

// Stores what of a tile is inside y, through workgroup memory.
fn store(task: Task, sum: ptr<function, array<MatC, SPAN>>) {
    let n = params.n;
    let base = task.batch * params.m * n;
    let own = task.subgroup * SIDE * SIDE;
    @unroll for (var i = 0u; i < SPAN_ROWS; i++) {
        @unroll for (var j = 0u; j < SPAN_COLUMNS; j++) {
            workgroupBarrier();
            let one = (*sum)[SPAN_COLUMNS * i + j];
            coopStoreT(one, &sh_patch[own], SIDE);
            workgroupBarrier();
            for (var e = task.lane; e < SIDE * SIDE; e += SUBGROUP) {
                let at = task.part + vec2<u32>(i * SIDE + e / SIDE, j * SIDE + e % SIDE);
                if (at.x < params.m && at.y < n) {
                    y[base + at.x * n + at.y] = sh_patch[own + e];
                }
            }
        }
    }
}

fn store_add(task: Task, sum: ptr<function, array<MatC, SPAN>>) {
    let own = task.subgroup * SIDE * SIDE;
    @unroll for (var i = 0u; i < SPAN_ROWS; i++) {
        @unroll for (var j = 0u; j < SPAN_COLUMNS; j++) {
            workgroupBarrier();
            let one = (*sum)[SPAN_COLUMNS * i + j];
            coopStoreT(one, &sh_patch[own], SIDE);
            workgroupBarrier();
            for (var e = task.lane; e < SIDE * SIDE; e += SUBGROUP) {
                let at = task.part + vec2<u32>(i * SIDE + e / SIDE, j * SIDE + e % SIDE);
                if (at.x < params.m && at.y < params.n) {
                    let to = (task.batch * params.m + at.x) * params.n + at.y;
                    let diagonal = select(0.0, params.diagonal, at.x == at.y);
                    y[to] = params.alpha * sh_patch[own + e] + params.beta * residual[to] + diagonal;
                }
            }
        }
    }
}

// Adds a tile that is inside d_w.
fn accumulate_whole(task: Task, sum: ptr<function, array<MatC, SPAN>>) {
    let n = params.n;
    let base = task.batch * params.m * n;
    @unroll for (var i = 0u; i < SPAN_ROWS; i++) {
        @unroll for (var j = 0u; j < SPAN_COLUMNS; j++) {
            let to = base + (task.part.x + i * SIDE) * n + task.part.y + j * SIDE;
            let before = coopLoadT<MatC>(&d_w[to], n);
            let one = before + (*sum)[SPAN_COLUMNS * i + j];
            coopStoreT(one, &d_w[to], n);
        }
    }
}

// Adds what of a tile is inside d_w, through workgroup memory.
fn accumulate(task: Task, sum: ptr<function, array<MatC, SPAN>>) {
    let n = params.n;
    let base = task.batch * params.m * n;
    let own = task.subgroup * SIDE * SIDE;
    @unroll for (var i = 0u; i < SPAN_ROWS; i++) {
        @unroll for (var j = 0u; j < SPAN_COLUMNS; j++) {
            workgroupBarrier();
            let one = (*sum)[SPAN_COLUMNS * i + j];
            coopStoreT(one, &sh_patch[own], SIDE);
            workgroupBarrier();
            for (var e = task.lane; e < SIDE * SIDE; e += SUBGROUP) {
                let at = task.part + vec2<u32>(i * SIDE + e / SIDE, j * SIDE + e % SIDE);
                if (at.x < params.m && at.y < n) {
                    d_w[base + at.x * n + at.y] += sh_patch[own + e];
                }
            }
        }
    }
}

// A workgroup owns a tile of y.
// grid: m / TILE_ROWS, n / TILE_COLUMNS, len(y) / (m * n)
// constants: A_IS_K_CONTIGUOUS = true, B_IS_K_CONTIGUOUS = false
@compute @workgroup_size(COOP_LANES)
fn nn(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    var sum: array<MatC, SPAN>;
    @unroll for (var i = 0u; i < SPAN; i++) {
        sum[i] = MatC();
    }
    let here = task(workgroup, local, subgroup, lane, workgroup.z, vec2<u32>(0u, params.k));
    product(here, &sum);
    if ((workgroup.x + 1u) * TILE_ROWS <= params.m && (workgroup.y + 1u) * TILE_COLUMNS <= params.n) {
        store_whole(here, &sum);
    } else {
        store(here, &sum);
    }
}

// grid: m / TILE_ROWS, n / TILE_COLUMNS, len(y) / (m * n)
// constants: A_IS_K_CONTIGUOUS = true, B_IS_K_CONTIGUOUS = true
@compute @workgroup_size(COOP_LANES)
fn nt(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    var sum: array<MatC, SPAN>;
    @unroll for (var i = 0u; i < SPAN; i++) {
        sum[i] = MatC();
    }
    let here = task(workgroup, local, subgroup, lane, workgroup.z, vec2<u32>(0u, params.k));
    product(here, &sum);
    if ((workgroup.x + 1u) * TILE_ROWS <= params.m && (workgroup.y + 1u) * TILE_COLUMNS <= params.n) {
        store_whole(here, &sum);
    } else {
        store(here, &sum);
    }
}

// grid: m / TILE_ROWS, n / TILE_COLUMNS, len(y) / (m * n)
// constants: A_IS_K_CONTIGUOUS = false, B_IS_K_CONTIGUOUS = false
@compute @workgroup_size(COOP_LANES)
fn tn(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    var sum: array<MatC, SPAN>;
    @unroll for (var i = 0u; i < SPAN; i++) {
        sum[i] = MatC();
    }
    let here = task(workgroup, local, subgroup, lane, workgroup.z, vec2<u32>(0u, params.k));
    product(here, &sum);
    if ((workgroup.x + 1u) * TILE_ROWS <= params.m && (workgroup.y + 1u) * TILE_COLUMNS <= params.n) {
        store_whole(here, &sum);
    } else {
        store(here, &sum);
    }
}

// grid: m / TILE_ROWS, n / TILE_COLUMNS, len(y) / (m * n)
// constants: A_IS_K_CONTIGUOUS = true, B_IS_K_CONTIGUOUS = false
@compute @workgroup_size(COOP_LANES)
fn nn_add(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    var sum: array<MatC, SPAN>;
    @unroll for (var i = 0u; i < SPAN; i++) {
        sum[i] = MatC();
    }
    let here = task(workgroup, local, subgroup, lane, workgroup.z, vec2<u32>(0u, params.k));
    product(here, &sum);
    store_add(here, &sum);
}

// grid: m / TILE_ROWS, n / TILE_COLUMNS, len(y) / (m * n)
// constants: A_IS_K_CONTIGUOUS = true, B_IS_K_CONTIGUOUS = true
@compute @workgroup_size(COOP_LANES)
fn nt_add(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    var sum: array<MatC, SPAN>;
    @unroll for (var i = 0u; i < SPAN; i++) {
        sum[i] = MatC();
    }
    let here = task(workgroup, local, subgroup, lane, workgroup.z, vec2<u32>(0u, params.k));
    product(here, &sum);
    store_add(here, &sum);
}

// grid: m / TILE_ROWS, n / TILE_COLUMNS, len(d_w) / (m * n)
// constants: A_IS_K_CONTIGUOUS = false, B_IS_K_CONTIGUOUS = false
@compute @workgroup_size(COOP_LANES)
fn tn_accumulate(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    var sum: array<MatC, SPAN>;
    @unroll for (var i = 0u; i < SPAN; i++) {
        sum[i] = MatC();
    }
    let here = task(workgroup, local, subgroup, lane, workgroup.z, vec2<u32>(0u, params.k));
    product(here, &sum);
    if ((workgroup.x + 1u) * TILE_ROWS <= params.m && (workgroup.y + 1u) * TILE_COLUMNS <= params.n) {
        accumulate_whole(here, &sum);
    } else {
        accumulate(here, &sum);
    }
}

// Part z of k alone: y [parts, m, n].
// grid: m / TILE_ROWS, n / TILE_COLUMNS, len(y) / (m * n)
// constants: A_IS_K_CONTIGUOUS = true, B_IS_K_CONTIGUOUS = false
@compute @workgroup_size(COOP_LANES)
fn nn_parts(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    var sum: array<MatC, SPAN>;
    @unroll for (var i = 0u; i < SPAN; i++) {
        sum[i] = MatC();
    }
    let first = workgroup.z * params.k_part;
    var here = task(workgroup, local, subgroup, lane, 0u, vec2<u32>(first, min(first + params.k_part, params.k)));
    product(here, &sum);
    here.batch = workgroup.z;
    if ((workgroup.x + 1u) * TILE_ROWS <= params.m && (workgroup.y + 1u) * TILE_COLUMNS <= params.n) {
        store_whole(here, &sum);
    } else {
        store(here, &sum);
    }
}

// Part z of k alone: y [parts, m, n].
// grid: m / TILE_ROWS, n / TILE_COLUMNS, len(y) / (m * n)
// constants: A_IS_K_CONTIGUOUS = false, B_IS_K_CONTIGUOUS = false
@compute @workgroup_size(COOP_LANES)
fn tn_parts(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    var sum: array<MatC, SPAN>;
    @unroll for (var i = 0u; i < SPAN; i++) {
        sum[i] = MatC();
    }
    let first = workgroup.z * params.k_part;
    var here = task(workgroup, local, subgroup, lane, 0u, vec2<u32>(first, min(first + params.k_part, params.k)));
    product(here, &sum);
    here.batch = workgroup.z;
    if ((workgroup.x + 1u) * TILE_ROWS <= params.m && (workgroup.y + 1u) * TILE_COLUMNS <= params.n) {
        store_whole(here, &sum);
    } else {
        store(here, &sum);
    }
}
