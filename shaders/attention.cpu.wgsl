// Causal attention for CPU rasterisers: attention.wgsl (see there for the maths and the notation) with its operands read as
// images, a texel being four channels, or four queries of lse and dot. No barriers and no workgroup memory: an
// invocation owns four rows and walks 4 x 4 blocks of scores. Scores need a loop over channels only; what is summed
// over keys or queries stays in registers, which takes straight code: `slice` texels of a head, at most 16. Wider heads
// take several slices, each computing the scores again.
//
// Costs on lavapipe: a store compiles for 8 ms and a load for 1, hence one store an output in a loop that
// selects its register; nothing leaves a loop by itself, hence rows are computed ahead of the loop over channels.
//
// requires: images
// fits: width % 4 == 0
// rank: 10

import package::lib::attention_dropout::dropout_quad;

struct Params {
    tokens: u32,    // T
    heads: u32,     // H
    kv_heads: u32,  // KV
    width: u32,     // hd
    slices: u32,    // of a head, hd / SLICE, rounded up
    stride: u32,    // of a row of lse and dot
    stream: u32,
    scale: f32,
    dropout: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var q: texture_2d<f32>;
@group(0) @binding(2) var kv: texture_2d<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> lse: array<vec4<f32>>;
@group(0) @binding(5) var saved_y: texture_2d<f32>;
@group(0) @binding(6) var saved_lse: texture_2d<f32>;
@group(0) @binding(7) var d_y: texture_2d<f32>;
@group(0) @binding(8) var<storage, read_write> dot_rows: array<vec4<f32>>;
@group(0) @binding(9) var saved_dot: texture_2d<f32>;
@group(0) @binding(10) var<storage, read_write> d_q: array<vec4<f32>>;
@group(0) @binding(11) var<storage, read_write> d_kv: array<vec4<f32>>;

// Constants, because lavapipe before Mesa 23 compiles a kernel again at every dispatch, and keeps each copy, if a uniform bounds a loop
// that it could unroll (`update_inline_shader_state` in lvp_execute.c).
override texels: u32 = 8u;  // of a head, hd / 4
override slice: u32 = 8u;   // texels of a head that an invocation sums
override drops: u32 = 0u;   // 1 if dropout > 0: a branch at run time would cost its body either way

const ROWS = 32u;         // of a workgroup of 8
const MASKED = -1e30;     // a score whose exponential is 0
const NEXT = vec4<u32>(0u, 1u, 2u, 3u);

// A head of a sequence: its first column in q, k and v, its number among all, and the sequence's image rows.
struct Place {
    q: u32,
    k: u32,
    v: u32,
    head_row: u32,  // b H + h
    first_row: u32,
    last_row: u32,
}

fn place_of(batch: u32, head: u32) -> Place {
    let kv_head = head * params.kv_heads / params.heads;
    let first_row = batch * params.tokens;
    return Place(
        head * texels,
        kv_head * texels,
        (params.kv_heads + kv_head) * texels,
        batch * params.heads + head,
        first_row,
        first_row + params.tokens - 1u,
    );
}

// Image rows of four tokens; beyond the end the last one is repeated, and masked later.
fn rows_of(place: Place, token: u32) -> vec4<u32> {
    return min(vec4<u32>(place.first_row + token) + NEXT, vec4<u32>(place.last_row));
}

fn load(image: texture_2d<f32>, column: u32, row: u32) -> vec4<f32> {
    return textureLoad(image, vec2<u32>(column, row), 0);
}

fn load_rows(image: texture_2d<f32>, column: u32, rows: vec4<u32>) -> mat4x4<f32> {
    return mat4x4<f32>(
        load(image, column, rows.x),
        load(image, column, rows.y),
        load(image, column, rows.z),
        load(image, column, rows.w),
    );
}

// q_i . k_j: column r is query r, components are keys.
fn query_key_products(place: Place, queries: vec4<u32>, keys: vec4<u32>) -> mat4x4<f32> {
    var s = mat4x4<f32>();
    for (var c = 0u; c < texels; c++) {
        let k = load_rows(kv, place.k + c, keys);
        @unroll for (var r = 0u; r < 4u; r++) {
            s[r] += load(q, place.q + c, queries[r]) * k;
        }
    }
    return s;
}

// d_y_i . v_j, in the same layout.
fn d_y_value_products(place: Place, queries: vec4<u32>, keys: vec4<u32>) -> mat4x4<f32> {
    var s = mat4x4<f32>();
    for (var c = 0u; c < texels; c++) {
        let v = load_rows(kv, place.v + c, keys);
        @unroll for (var r = 0u; r < 4u; r++) {
            s[r] += load(d_y, place.q + c, queries[r]) * v;
        }
    }
    return s;
}

// z of a block: column r is query r, components are keys.
fn dropout_block(place: Place, query: u32, key: u32) -> mat4x4<f32> {
    let one = vec4<f32>(1.0);
    var z = mat4x4<f32>(one, one, one, one);
    if (drops != 0u) {
        let row = place.head_row * params.tokens + query;
        for (var r = 0u; r < 4u; r++) { // one copy of the generator
            let quad = dropout_quad(row + r, key / 4u, params.tokens, params.stream, params.dropout);
            z = mat4x4<f32>(z[1], z[2], z[3], quad);
        }
    }
    return z;
}

// Column of a matrix by an index that is no constant: registers have no addresses.
fn column(m: mat4x4<f32>, index: u32) -> vec4<f32> {
    return select(select(m[3], m[2], index == 2u), select(m[1], m[0], index == 0u), index < 2u);
}

// Column r of every texel of a sum.
fn row_of(total: ptr<function, array<mat4x4<f32>, 16>>, r: u32) -> array<vec4<f32>, 16> {
    var row: array<vec4<f32>, 16>;
    @unroll for (var c = 0u; c < 16u; c++) {
        if (c < slice) {
            row[c] = column((*total)[c], r);
        }
    }
    return row;
}

fn texel_of(row: ptr<function, array<vec4<f32>, 16>>, index: u32) -> vec4<f32> {
    var texel = (*row)[0];
    @unroll for (var c = 1u; c < 16u; c++) {
        if (c < slice) {
            texel = select(texel, (*row)[c], c == index);
        }
    }
    return texel;
}

// An invocation owns four queries of a head and a slice of its channels (z: batch, then slice).
// grid: tokens / ROWS, heads, len(q) / (tokens * heads * width) * slices
@compute @workgroup_size(8)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let place = place_of(workgroup.z / params.slices, workgroup.y);
    let first_channel = workgroup.z % params.slices * slice;
    let query = workgroup.x * ROWS + local * 4u;
    let queries = rows_of(place, query);
    let end = min(workgroup.x * ROWS + ROWS, params.tokens);
    var largest = vec4<f32>(MASKED);
    var sum = vec4<f32>(0.0);
    var total: array<mat4x4<f32>, 16>; // a column a query
    for (var key = 0u; key < end; key += 4u) {
        let keys = rows_of(place, key);
        let s = query_key_products(place, queries, keys);
        let z = dropout_block(place, query, key);
        var weights: mat4x4<f32>;
        var decay: vec4<f32>;
        @unroll for (var r = 0u; r < 4u; r++) {
            let masked = select(vec4<f32>(MASKED), s[r] * params.scale, vec4<u32>(key) + NEXT <= vec4<u32>(query + r));
            let next = max(max(max(masked.x, masked.y), max(masked.z, masked.w)), largest[r]);
            let p = exp(masked - next);
            decay[r] = exp(largest[r] - next);
            largest[r] = next;
            sum[r] = sum[r] * decay[r] + dot(p, vec4<f32>(1.0));
            weights[r] = p * z[r];
        }
        @unroll for (var c = 0u; c < 16u; c++) {
            if (c < slice) {
                let v = load_rows(kv, place.v + first_channel + c, keys);
                @unroll for (var r = 0u; r < 4u; r++) {
                    total[c][r] = total[c][r] * decay[r] + v * weights[r];
                }
            }
        }
    }
    if (first_channel == 0u && query < params.tokens) {
        lse[place.head_row * (params.stride / 4u) + query / 4u] = largest + log(sum);
    }
    let inverse_sum = 1.0 / sum;
    @unroll for (var c = 0u; c < 16u; c++) {
        if (c < slice) {
            @unroll for (var r = 0u; r < 4u; r++) {
                total[c][r] *= inverse_sum[r];
            }
        }
    }
    for (var r = 0u; r < 4u && query + r < params.tokens; r++) {
        let base = (place.first_row + query + r) * params.heads * texels + place.q + first_channel;
        var row = row_of(&total, r);
        for (var c = 0u; c < min(slice, texels - first_channel); c++) {
            y[base + c] = texel_of(&row, c);
        }
    }
}

// z p and d_s of a block of four queries and four keys: column r is one query, components are keys.
struct BackwardBlock {
    weights: mat4x4<f32>,
    d_scores: mat4x4<f32>,
}

fn backward_block(place: Place, query: u32, key: u32, row_lse: vec4<f32>, row_dot: vec4<f32>) -> BackwardBlock {
    let queries = rows_of(place, query);
    let keys = rows_of(place, key);
    let s = query_key_products(place, queries, keys);
    let d_p = d_y_value_products(place, queries, keys);
    let z = dropout_block(place, query, key);
    var block: BackwardBlock;
    @unroll for (var r = 0u; r < 4u; r++) {
        let visible = (vec4<u32>(key) + NEXT <= vec4<u32>(query + r)) & vec4<bool>(query + r < params.tokens);
        let p = exp(select(vec4<f32>(MASKED), s[r] * params.scale - row_lse[r], visible));
        block.weights[r] = z[r] * p;
        block.d_scores[r] = params.scale * p * (z[r] * d_p[r] - row_dot[r]);
    }
    return block;
}

// An invocation owns four queries of a head and a slice of its channels (z: batch, then slice).
// grid: tokens / ROWS, heads, len(q) / (tokens * heads * width) * slices
@compute @workgroup_size(8)
fn backward_query(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let place = place_of(workgroup.z / params.slices, workgroup.y);
    let first_channel = workgroup.z % params.slices * slice;
    let query = workgroup.x * ROWS + local * 4u;
    let queries = rows_of(place, query);
    let end = min(workgroup.x * ROWS + ROWS, params.tokens);
    let row_lse = load(saved_lse, query / 4u, place.head_row);
    var row_dot = vec4<f32>(0.0);
    for (var c = 0u; c < texels; c++) {
        @unroll for (var r = 0u; r < 4u; r++) {
            row_dot[r] += dot(load(saved_y, place.q + c, queries[r]), load(d_y, place.q + c, queries[r]));
        }
    }
    var total: array<mat4x4<f32>, 16>; // a column a query
    for (var key = 0u; key < end; key += 4u) {
        let keys = rows_of(place, key);
        let block = backward_block(place, query, key, row_lse, row_dot);
        @unroll for (var c = 0u; c < 16u; c++) {
            if (c < slice) {
                total[c] += load_rows(kv, place.k + first_channel + c, keys) * block.d_scores;
            }
        }
    }
    if (first_channel == 0u && query < params.tokens) {
        dot_rows[place.head_row * (params.stride / 4u) + query / 4u] = row_dot;
    }
    for (var r = 0u; r < 4u && query + r < params.tokens; r++) {
        let base = (place.first_row + query + r) * params.heads * texels + place.q + first_channel;
        var row = row_of(&total, r);
        for (var c = 0u; c < min(slice, texels - first_channel); c++) {
            d_q[base + c] = texel_of(&row, c);
        }
    }
}

// An invocation owns four keys of a key-value head and a slice of its channels (z: batch, then slice), and walks the
// query heads of the group, in each the queries from the workgroup's first key on: as one loop, because every level of
// nesting carries all sums and compiles for a hundred milliseconds more.
// grid: tokens / ROWS, kv_heads, len(q) / (tokens * heads * width) * slices
@compute @workgroup_size(8)
fn backward_key(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let batch = workgroup.z / params.slices;
    let first_channel = workgroup.z % params.slices * slice;
    let first = workgroup.x * ROWS;
    let key = first + local * 4u;
    let group = params.heads / params.kv_heads;
    var total_k: array<mat4x4<f32>, 16>; // a column a key
    var total_v: array<mat4x4<f32>, 16>;
    var member = 0u;
    var query = first;
    while (member < group) {
        let place = place_of(batch, workgroup.y * group + member);
        let row_lse = load(saved_lse, query / 4u, place.head_row);
        let row_dot = load(saved_dot, query / 4u, place.head_row);
        let block = backward_block(place, query, key, row_lse, row_dot);
        for (var i = 0u; i < 4u && query + i < params.tokens; i++) {
            let row = place.first_row + query + i;
            let d_scores = column(block.d_scores, i);
            let weights = column(block.weights, i);
            @unroll for (var c = 0u; c < 16u; c++) {
                if (c < slice) {
                    let q_i = load(q, place.q + first_channel + c, row);
                    let d_y_i = load(d_y, place.q + first_channel + c, row);
                    @unroll for (var r = 0u; r < 4u; r++) {
                        total_k[c][r] += q_i * d_scores[r];
                        total_v[c][r] += d_y_i * weights[r];
                    }
                }
            }
        }
        query += 4u;
        if (query >= params.tokens) {
            query = first;
            member++;
        }
    }
    for (var r = 0u; r < 4u && key + r < params.tokens; r++) {
        let kv_width = params.kv_heads * texels;
        let base = (batch * params.tokens + key + r) * 2u * kv_width + workgroup.y * texels + first_channel;
        var row_k = row_of(&total_k, r);
        var row_v = row_of(&total_v, r);
        for (var c = 0u; c < min(slice, texels - first_channel); c++) {
            d_kv[base + c] = texel_of(&row_k, c);
            d_kv[base + kv_width + c] = texel_of(&row_v, c);
        }
    }
}
