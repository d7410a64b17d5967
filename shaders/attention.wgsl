// Long because forward and both backward kernels share their tiles and helpers.
//
// Causal attention with grouped key-value heads, flash style (Dao, "FlashAttention-2", arXiv 2307.08691): T x T
// matrices exist as 32 x 32 tiles only. Sequences of T tokens, head width hd <= 128, query head h reads g = h KV / H:
//   q [B T, H hd], kv [B T, 2 KV hd] = k heads, v heads  ->  y [B T, H hd], lse [B H, stride >= T]
//   s_ij = scale q_i . k_j for j <= i     lse_i = log sum_j exp(s_ij)     p_ij = exp(s_ij - lse_i)
//   y_i = sum_j z_ij p_ij v_j             z_ij = 0 or 1 / (1 - dropout), see lib/attention_dropout.wgsl
// Backward draws z and computes p again, and sums in a fixed order:
//   dot_i = d_y_i . y_i                   d_s_ij = scale p_ij (z_ij d_y_i . v_j - dot_i)
//   d_q_i = sum_j d_s_ij k_j              d_k_j = sum_hi d_s_ij q_i             d_v_j = sum_hi z_ij p_ij d_y_i
//
// An invocation (ty, tx) of 8 x 8 owns queries 4 ty .. 4 ty + 3 and keys 4 tx .. 4 tx + 3 of a tile, as a matrix whose
// column t is one key and whose components are the queries; of a sum it owns 4 rows (ty) x 4 channels (tx).

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
@group(0) @binding(1) var<storage, read> q: array<f32>;
@group(0) @binding(2) var<storage, read> kv: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;
@group(0) @binding(5) var<storage, read> saved_y: array<f32>;
@group(0) @binding(6) var<storage, read> saved_lse: array<f32>;
@group(0) @binding(7) var<storage, read> d_y: array<f32>;
@group(0) @binding(8) var<storage, read_write> dot_rows: array<f32>;
@group(0) @binding(9) var<storage, read> saved_dot: array<f32>;
@group(0) @binding(10) var<storage, read_write> d_q: array<f32>;
@group(0) @binding(11) var<storage, read_write> d_kv: array<f32>;

const TILE = 32u;         // queries, keys, and channels of a tile
const INVOCATIONS = 64u;
const SLICE = 64u;        // most channels of a head whose gradients of keys and values a workgroup sums
const LEFT = 0u;          // tile of queries in sh_tiles
const RIGHT = 256u;       // tile of keys
const MASKED = -1e30;     // a score whose exponential is 0

var<workgroup> sh_tiles: array<vec4<f32>, 512>;
var<workgroup> sh_weights: array<vec4<f32>, 256>;
var<workgroup> sh_partial: array<vec4<f32>, 64>;

// Which tile of the problem: first query and first key within the sequence.
struct Place {
    batch: u32,
    head: u32,
    query: u32,
    key: u32,
}

// Texel of a 32 x 8 tile. The swizzle sends eight texels of one column, four rows apart, to eight different banks.
fn slot(row: u32, column: u32) -> u32 {
    return row * 8u + (column ^ ((row / 4u) & 7u));
}

fn kv_head(place: Place) -> u32 {
    return place.head * params.kv_heads / params.heads;
}

fn query_index(place: Place, row: u32, channel: u32) -> u32 {
    return ((place.batch * params.tokens + row) * params.heads + place.head) * params.width + channel;
}

fn key_index(batch: u32, head: u32, row: u32, channel: u32) -> u32 {
    return ((batch * params.tokens + row) * 2u * params.kv_heads + head) * params.width + channel;
}

fn row_index(place: Place, row: u32) -> u32 {
    return (place.batch * params.heads + place.head) * params.stride + row;
}

// Stages 32 rows x 32 channels. Rows beyond the sequence repeat its last (masked later), channels beyond hd are 0.
fn stage_q(place: Place, chunk: u32, local: u32) {
    for (var i = local; i < 256u; i += INVOCATIONS) {
        let channel = chunk * TILE + i % 8u * 4u;
        let index = query_index(place, min(place.query + i / 8u, params.tokens - 1u), channel);
        var texel = vec4<f32>();
        @unroll for (var e = 0u; e < 4u; e++) {
            if (channel + e < params.width) {
                texel[e] = q[index + e];
            }
        }
        sh_tiles[LEFT + slot(i / 8u, i % 8u)] = texel;
    }
}

fn stage_d_y(place: Place, chunk: u32, local: u32) {
    for (var i = local; i < 256u; i += INVOCATIONS) {
        let channel = chunk * TILE + i % 8u * 4u;
        let index = query_index(place, min(place.query + i / 8u, params.tokens - 1u), channel);
        var texel = vec4<f32>();
        @unroll for (var e = 0u; e < 4u; e++) {
            if (channel + e < params.width) {
                texel[e] = d_y[index + e];
            }
        }
        sh_tiles[LEFT + slot(i / 8u, i % 8u)] = texel;
    }
}

// `head` counts k heads, then v heads.
fn stage_kv(place: Place, head: u32, chunk: u32, local: u32) {
    for (var i = local; i < 256u; i += INVOCATIONS) {
        let channel = chunk * TILE + i % 8u * 4u;
        let index = key_index(place.batch, head, min(place.key + i / 8u, params.tokens - 1u), channel);
        var texel = vec4<f32>();
        @unroll for (var e = 0u; e < 4u; e++) {
            if (channel + e < params.width) {
                texel[e] = kv[index + e];
            }
        }
        sh_tiles[RIGHT + slot(i / 8u, i % 8u)] = texel;
    }
}

// Row products of the staged tiles: column t holds queries 4 ty .. 4 ty + 3 times key 4 tx + t.
fn row_products(local: u32) -> mat4x4<f32> {
    let ty = local / 8u;
    let tx = local % 8u;
    var s = mat4x4<f32>();
    for (var c = 0u; c < 8u; c++) {
        let a0 = sh_tiles[LEFT + slot(4u * ty, c)];
        let a1 = sh_tiles[LEFT + slot(4u * ty + 1u, c)];
        let a2 = sh_tiles[LEFT + slot(4u * ty + 2u, c)];
        let a3 = sh_tiles[LEFT + slot(4u * ty + 3u, c)];
        @unroll for (var t = 0u; t < 4u; t++) {
            let b = sh_tiles[RIGHT + slot(4u * tx + t, c)];
            s[t] += vec4<f32>(dot(a0, b), dot(a1, b), dot(a2, b), dot(a3, b));
        }
    }
    return s;
}

// q_i . k_j of a whole tile.
fn query_key_products(place: Place, local: u32) -> mat4x4<f32> {
    var s = mat4x4<f32>();
    for (var chunk = 0u; chunk * TILE < params.width; chunk++) {
        stage_q(place, chunk, local);
        stage_kv(place, kv_head(place), chunk, local);
        workgroupBarrier();
        s += row_products(local);
        workgroupBarrier();
    }
    return s;
}

// d_y_i . v_j of a whole tile.
fn d_y_value_products(place: Place, local: u32) -> mat4x4<f32> {
    var s = mat4x4<f32>();
    for (var chunk = 0u; chunk * TILE < params.width; chunk++) {
        stage_d_y(place, chunk, local);
        stage_kv(place, params.kv_heads + kv_head(place), chunk, local);
        workgroupBarrier();
        s += row_products(local);
        workgroupBarrier();
    }
    return s;
}

// sum_j sh_weights[j][row] tile[j][channel]: column r holds 4 channels (tx) of row 4 ty + r.
fn weighted_rows(tile: u32, local: u32) -> mat4x4<f32> {
    let ty = local / 8u;
    let tx = local % 8u;
    var sum = mat4x4<f32>();
    for (var j = 0u; j < TILE; j++) {
        let weights = sh_weights[slot(j, ty)];
        let value = sh_tiles[tile + slot(j, tx)];
        @unroll for (var r = 0u; r < 4u; r++) {
            sum[r] += weights[r] * value;
        }
    }
    return sum;
}

// z of the invocation's queries and keys.
fn dropout_tile(place: Place, local: u32) -> mat4x4<f32> {
    let one = vec4<f32>(1.0);
    var z = mat4x4<f32>(one, one, one, one);
    if (params.dropout > 0.0) {
        let row = (place.batch * params.heads + place.head) * params.tokens + place.query + local / 8u * 4u;
        @unroll for (var r = 0u; r < 4u; r++) {
            z[r] = dropout_quad(row + r, place.key / 4u + local % 8u, params.tokens, params.stream, params.dropout);
        }
        z = transpose(z);
    }
    return z;
}

// A workgroup owns 32 queries of a head (those with most keys first) and walks the tiles of keys up to its own.
// grid: tokens / TILE, heads, len(q) / (tokens * heads * width)
@compute @workgroup_size(INVOCATIONS)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = ((params.tokens - 1u) / TILE - workgroup.x) * TILE;
    let ty = local / 8u;
    let tx = local % 8u;
    let rows = vec4<u32>(first + 4u * ty) + vec4<u32>(0u, 1u, 2u, 3u);
    var largest = vec4<f32>(MASKED);
    var sum = vec4<f32>(0.0); // over the invocation's own keys until the end
    var total: array<mat4x4<f32>, 4>;
    for (var key = 0u; key <= first; key += TILE) {
        let place = Place(workgroup.z, workgroup.y, first, key);
        var s = query_key_products(place, local);
        var own = largest;
        @unroll for (var t = 0u; t < 4u; t++) {
            s[t] = select(vec4<f32>(MASKED), s[t] * params.scale, vec4<u32>(key + 4u * tx + t) <= rows);
            own = max(own, s[t]);
        }
        sh_partial[local] = own; // the barriers of the products keep it apart from the last tile
        workgroupBarrier();
        @unroll for (var x = 0u; x < 8u; x++) {
            own = max(own, sh_partial[8u * ty + x]);
        }
        let decay = exp(largest - own);
        largest = own;
        sum *= decay;
        let z = dropout_tile(place, local);
        @unroll for (var t = 0u; t < 4u; t++) {
            let p = exp(s[t] - largest);
            sum += p;
            sh_weights[slot(4u * tx + t, ty)] = p * z[t];
        }
        @unroll for (var chunk = 0u; chunk < 4u; chunk++) {
            if (chunk * TILE < params.width) {
                stage_kv(place, params.kv_heads + kv_head(place), chunk, local);
                workgroupBarrier();
                @unroll for (var r = 0u; r < 4u; r++) {
                    total[chunk][r] *= decay[r];
                }
                total[chunk] += weighted_rows(RIGHT, local);
                workgroupBarrier();
            }
        }
    }
    sh_partial[local] = sum;
    workgroupBarrier();
    sum = vec4<f32>(0.0);
    @unroll for (var x = 0u; x < 8u; x++) {
        sum += sh_partial[8u * ty + x];
    }
    let place = Place(workgroup.z, workgroup.y, first, 0u);
    @unroll for (var r = 0u; r < 4u; r++) {
        if (rows[r] < params.tokens) {
            if (tx == 0u) {
                lse[row_index(place, rows[r])] = largest[r] + log(sum[r]);
            }
            @unroll for (var chunk = 0u; chunk < 4u; chunk++) {
                @unroll for (var e = 0u; e < 4u; e++) {
                    let channel = chunk * TILE + 4u * tx + e;
                    if (channel < params.width) {
                        y[query_index(place, rows[r], channel)] = total[chunk][r][e] / sum[r];
                    }
                }
            }
        }
    }
}

struct BackwardTile {
    weights: mat4x4<f32>,   // z p
    d_scores: mat4x4<f32>,
}

// What both backward kernels need of a tile, from lse and dot of the invocation's four queries.
fn backward_tile(place: Place, row_lse: vec4<f32>, row_dot: vec4<f32>, local: u32) -> BackwardTile {
    let rows = vec4<u32>(place.query + local / 8u * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
    let s = query_key_products(place, local);
    let d_p = d_y_value_products(place, local);
    let z = dropout_tile(place, local);
    var tile = BackwardTile();
    @unroll for (var t = 0u; t < 4u; t++) {
        let key = vec4<u32>(place.key + local % 8u * 4u + t);
        let visible = (key <= rows) & (rows < vec4<u32>(params.tokens));
        let p = exp(select(vec4<f32>(MASKED), s[t] * params.scale - row_lse, visible));
        tile.weights[t] = z[t] * p;
        tile.d_scores[t] = params.scale * p * (z[t] * d_p[t] - row_dot);
    }
    return tile;
}

// A workgroup owns 32 queries of a head (those with most keys first) and walks the tiles of keys up to its own.
// grid: tokens / TILE, heads, len(q) / (tokens * heads * width)
@compute @workgroup_size(INVOCATIONS)
fn backward_query(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let first = ((params.tokens - 1u) / TILE - workgroup.x) * TILE;
    let here = Place(workgroup.z, workgroup.y, first, 0u);
    let ty = local / 8u;
    let tx = local % 8u;
    let row = first + 4u * ty;
    var row_lse = vec4<f32>();
    var row_dot = vec4<f32>();
    @unroll for (var r = 0u; r < 4u; r++) {
        if (row + r < params.tokens) {
            row_lse[r] = saved_lse[row_index(here, row + r)];
            for (var c = tx; c < params.width; c += 8u) {
                let index = query_index(here, row + r, c);
                row_dot[r] += d_y[index] * saved_y[index];
            }
        }
    }
    sh_partial[local] = row_dot;
    workgroupBarrier();
    row_dot = vec4<f32>(0.0);
    @unroll for (var x = 0u; x < 8u; x++) {
        row_dot += sh_partial[8u * ty + x];
    }
    var total: array<mat4x4<f32>, 4>;
    for (var key = 0u; key <= first; key += TILE) {
        let place = Place(workgroup.z, workgroup.y, first, key);
        let tile = backward_tile(place, row_lse, row_dot, local);
        @unroll for (var t = 0u; t < 4u; t++) {
            sh_weights[slot(4u * tx + t, ty)] = tile.d_scores[t];
        }
        @unroll for (var chunk = 0u; chunk < 4u; chunk++) {
            if (chunk * TILE < params.width) {
                stage_kv(place, kv_head(place), chunk, local);
                workgroupBarrier();
                total[chunk] += weighted_rows(RIGHT, local);
                workgroupBarrier();
            }
        }
    }
    @unroll for (var r = 0u; r < 4u; r++) {
        if (row + r < params.tokens) {
            if (tx == 0u) {
                dot_rows[row_index(here, row + r)] = row_dot[r];
            }
            @unroll for (var chunk = 0u; chunk < 4u; chunk++) {
                @unroll for (var e = 0u; e < 4u; e++) {
                    let channel = chunk * TILE + 4u * tx + e;
                    if (channel < params.width) {
                        d_q[query_index(here, row + r, channel)] = total[chunk][r][e];
                    }
                }
            }
        }
    }
}

// A workgroup owns 32 keys of a key-value head and 64 channels of their d_k and d_v (z: batch, then slice of 64); it
// walks the query heads of its group, and in each the tiles of queries from its own on.
// grid: tokens / TILE, kv_heads, len(q) / (tokens * heads * width) * slices
@compute @workgroup_size(INVOCATIONS)
fn backward_key(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let batch = workgroup.z / params.slices;
    let slice = workgroup.z % params.slices;
    let first = workgroup.x * TILE;
    let group = params.heads / params.kv_heads;
    let ty = local / 8u;
    let tx = local % 8u;
    var total_k: array<mat4x4<f32>, 2>;
    var total_v: array<mat4x4<f32>, 2>;
    for (var member = 0u; member < group; member++) {
        for (var query = first; query < params.tokens; query += TILE) {
            let place = Place(batch, workgroup.y * group + member, query, first);
            var row_lse = vec4<f32>();
            var row_dot = vec4<f32>();
            @unroll for (var r = 0u; r < 4u; r++) {
                let row = row_index(place, min(query + 4u * ty + r, params.tokens - 1u));
                row_lse[r] = saved_lse[row];
                row_dot[r] = saved_dot[row];
            }
            let tile = backward_tile(place, row_lse, row_dot, local);
            let weights = transpose(tile.weights);
            @unroll for (var r = 0u; r < 4u; r++) {
                sh_weights[slot(4u * ty + r, tx)] = weights[r];
            }
            @unroll for (var c = 0u; c < 2u; c++) {
                if ((2u * slice + c) * TILE < params.width) {
                    stage_d_y(place, 2u * slice + c, local);
                    workgroupBarrier();
                    total_v[c] += weighted_rows(LEFT, local);
                    workgroupBarrier();
                }
            }
            let d_scores = transpose(tile.d_scores);
            @unroll for (var r = 0u; r < 4u; r++) {
                sh_weights[slot(4u * ty + r, tx)] = d_scores[r];
            }
            @unroll for (var c = 0u; c < 2u; c++) {
                if ((2u * slice + c) * TILE < params.width) {
                    stage_q(place, 2u * slice + c, local);
                    workgroupBarrier();
                    total_k[c] += weighted_rows(LEFT, local);
                    workgroupBarrier();
                }
            }
        }
    }
    @unroll for (var r = 0u; r < 4u; r++) {
        let row = first + 4u * ty + r;
        if (row < params.tokens) {
            @unroll for (var c = 0u; c < 2u; c++) {
                @unroll for (var e = 0u; e < 4u; e++) {
                    let channel = (2u * slice + c) * TILE + 4u * tx + e;
                    if (channel < params.width) {
                        d_kv[key_index(batch, workgroup.y, row, channel)] = total_k[c][r][e];
                        d_kv[key_index(batch, params.kv_heads + workgroup.y, row, channel)] = total_v[c][r][e];
                    }
                }
            }
        }
    }
}
