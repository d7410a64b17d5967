// Muon's gather and scatter on CPU rasterisers, as muon.wgsl; what is read comes through texture images, and an
// invocation owns a block of 4x4 elements of the parameter, which it transposes in registers.
//
// requires: images
// rank: 10

import package::lib::clip::CLIP_FACTOR;
import package::lib::finite::are_finite;
import package::lib::index::flat_workgroup;
import package::muon::{A, B, EPS, INVOCATIONS, clip, is_updated, moved, nesterov, params, stepped, tell, workgroup_sum};

@group(0) @binding(11) var d_w: texture_2d<f32>;
@group(0) @binding(12) var momentum_texels: texture_2d<f32>;
@group(0) @binding(13) var orthogonal: texture_2d<f32>;
@group(0) @binding(14) var w_texels: texture_2d<f32>;
@group(0) @binding(3) var<storage, read_write> momentum: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> stack: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> w: array<vec4<f32>>;
@group(0) @binding(7) var gram: texture_2d<f32>;
@group(0) @binding(8) var<storage, read_write> factor: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read_write> addend: array<vec4<f32>>;

const NORMALIZED = 1024u; // texels of a workgroup of normalize

// A block: its matrix, and the first row and the texel column in that.
struct Block {
    slice: u32,
    row: u32,
    column: u32,
}

fn find_block(index: u32, rows: u32, columns: u32) -> Block {
    let blocks = rows / 4u * columns;
    return Block(index / blocks, index % blocks / columns * 4u, index % columns);
}

fn is_tall() -> bool {
    return params.rows > params.columns;
}

// An invocation owns a 4x4 block of the padded parameter.
// grid: slices * side * length / 16 / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn gather(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (index >= params.slices * params.side * params.length / 16u) {
        return;
    }
    let rows = select(params.side, params.length, is_tall());
    let columns = select(params.length, params.side, is_tall()) / 4u;
    let block = find_block(index, rows, columns);
    let first_row = (params.first + block.slice) * params.rows + block.row;
    let takes_part = is_updated(params.first + block.slice);
    var values = mat4x4<f32>();
    @unroll for (var q = 0u; q < 4u; q++) {
        let at = vec2<u32>(block.column, first_row + q);
        let is_inside = block.row + q < params.rows && block.column < params.columns / 4u;
        if (is_inside && takes_part) {
            let g = textureLoad(d_w, at, 0) * bitcast<f32>(clip[CLIP_FACTOR]);
            let new_momentum = moved(textureLoad(momentum_texels, at, 0), g);
            momentum[at.y * (params.columns / 4u) + at.x] = new_momentum;
            values[q] = nesterov(new_momentum, g);
        }
    }
    let slice_row = (params.place + block.slice) * params.side;
    let transposed = transpose(values);
    @unroll for (var q = 0u; q < 4u; q++) {
        if (is_tall()) {
            stack[(slice_row + 4u * block.column + q) * (params.length / 4u) + block.row / 4u] = transposed[q];
        } else {
            stack[(slice_row + block.row + q) * (params.length / 4u) + block.column] = values[q];
        }
    }
}

// A workgroup owns NORMALIZED texels of a slice (y of the grid); each sums the trace for itself.
// grid: side * side / 4 / NORMALIZED, len(gram) / (side * side)
@compute @workgroup_size(INVOCATIONS)
fn normalize(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let row_texels = params.side / 4u;
    let slice_row = workgroup.y * params.side;
    var sum = 0.0;
    for (var i = local; i < params.side; i += INVOCATIONS) {
        sum += textureLoad(gram, vec2<u32>(i / 4u, slice_row + i), 0)[i % 4u];
    }
    let s = 1.0 / (sqrt(workgroup_sum(sum, local)) + EPS);
    let first = workgroup.x * NORMALIZED;
    for (var i = first + local; i < min(first + NORMALIZED, params.side * row_texels); i += INVOCATIONS) {
        let row = i / row_texels;
        let column = i % row_texels;
        let v = textureLoad(gram, vec2<u32>(column, slice_row + row), 0) * s * s;
        let identity = select(vec4<f32>(), vec4<f32>(1.0), 4u * column + vec4<u32>(0u, 1u, 2u, 3u) == vec4<u32>(row));
        let to = slice_row * row_texels + i;
        factor[to] = v * s * s * s;
        addend[to] = s * (A * identity + B * v);
    }
}

// An invocation owns a 4x4 block of the parameter.
// grid: slices * (rows / 4) * (columns / 4) / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn scatter(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let columns = params.columns / 4u;
    let rows = (params.rows + 3u) / 4u * 4u;
    let block = find_block(index, rows, columns);
    if (index >= params.slices * rows * columns / 4u || !is_updated(params.first + block.slice)) {
        return;
    }
    let slice_row = (params.place + block.slice) * params.side;
    var directions: mat4x4<f32>;
    @unroll for (var q = 0u; q < 4u; q++) {
        let tall_at = vec2<u32>(block.row / 4u, slice_row + 4u * block.column + q);
        let wide_at = vec2<u32>(block.column, slice_row + block.row + q);
        directions[q] = textureLoad(orthogonal, select(wide_at, tall_at, is_tall()), 0);
    }
    if (is_tall()) {
        directions = transpose(directions);
    }
    var sound = true;
    @unroll for (var q = 0u; q < 4u; q++) {
        let at = vec2<u32>(block.column, (params.first + block.slice) * params.rows + block.row + q);
        if (block.row + q < params.rows) {
            let weight = stepped(textureLoad(w_texels, at, 0), directions[q]);
            w[at.y * columns + at.x] = weight;
            sound &= are_finite(weight);
        }
    }
    tell(sound);
}
