// Long because forward and both backward kernels share their tiles and helpers.
//
// Causal attention on GPUs: attention.wgsl (see there for the maths and the notation), four elements at a time, with
// tiles of 64 queries x 64 keys. Every product is one of outer products over the staged dimension k: operands lie in
// workgroup memory as [k][four rows], an invocation reads 8 + 4 (backward_key: 4 + 4) numbers for 32 (16) multiply-adds
// and keeps its sums in registers. Neighbours form patches of 4 x 8 invocations, which together read the fewest vec4s.
//
// forward and backward_query keep everything transposed: an invocation (x, y) of 8 x 16 owns queries 4 y .. 4 y + 3, as
// the components of a vec4, in scores (by keys 4 x .. 4 x + 3 and 32 more) as in sums (by as many channels); what belongs
// to a query then never leaves the invocation, but for the maximum and the sum over keys.
// backward_key: an invocation of 16 x 16 owns queries 4 x .. 4 x + 3 by keys 4 y .. 4 y + 3 of scores, and of sums keys
// 4 x .. by channels 4 y ..; with four sums at a time, 8 x 4 elements of each would not fit in registers.
//
// Sums cover `slice` texels of a head, at most 16; wider heads take several slices, each computing the scores again.
// Nothing is loaded ahead into registers: several workgroups share a core, and one computes while another loads.
//
// CPU rasterisers keep the portable kernel where attention.cpu.wgsl does not fit: there, runs of older releases go on to the same bits.
//
// fits: width % 4 == 0
// requires: buffers
// rank: 5
// unchecked: bounds

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
@group(0) @binding(1) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> kv: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> lse: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> saved_y: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> saved_lse: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read> d_y: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> dot_rows: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read> saved_dot: array<vec4<f32>>;
@group(0) @binding(10) var<storage, read_write> d_q: array<vec4<f32>>;
@group(0) @binding(11) var<storage, read_write> d_kv: array<vec4<f32>>;

// Constants, so that what a head does not need costs nothing.
override texels: u32 = 8u;  // of a head, hd / 4
override slice: u32 = 8u;   // texels of a head that a workgroup sums
override drops: u32 = 0u;   // 1 if dropout > 0

const TILE = 64u;         // queries and keys
const LANES = 128u;       // invocations of forward and backward_query
const KEY_LANES = 256u;   // of backward_key
const HALF = 512u;        // vec4s of an operand when two are staged, 32 k deep
const QUARTER = 256u;     // when four are staged, 16 k deep
const MASKED = -1e30;     // a score whose exponential is 0
const NEXT = vec4<u32>(0u, 1u, 2u, 3u);

// All that browsers grant, 16 KiB: two or four operands, or a vec4 an invocation.
var<workgroup> sh_operands: array<vec4<f32>, 1024>;

// A head of a sequence: the texels of its first token in q, k and v, and its number among all.
struct Head {
    q: u32,
    k: u32,
    v: u32,
    row: u32, // b H + h
}

fn head_of(batch: u32, head: u32) -> Head {
    let kv_head = head * params.kv_heads / params.heads;
    let first = batch * params.tokens;
    return Head(
        (first * params.heads + head) * texels,
        (first * 2u * params.kv_heads + kv_head) * texels,
        (first * 2u * params.kv_heads + params.kv_heads + kv_head) * texels,
        batch * params.heads + head,
    );
}

// An invocation's (x, y); a warp of 32 is a patch of 4 x 8.
fn place_of(local: u32) -> vec2<u32> {
    return vec2<u32>(local / 64u * 4u + local % 32u / 8u, local / 32u % 2u * 8u + local % 8u);
}

// Where an operand has four rows of one k. The swizzle sends the texels of one row, which neighbours stage, to different banks.
fn slot(k: u32, quad: u32) -> u32 {
    return k * 16u + (quad ^ (k / 4u));
}

// Key or channel of element `i` of 8, within a tile.
fn element(x: u32, i: u32) -> u32 {
    return i / 4u * 32u + 4u * x + i % 4u;
}

fn query_stride() -> u32 {
    return params.heads * texels;
}

fn key_stride() -> u32 {
    return 2u * params.kv_heads * texels;
}

// Texels of four tokens; beyond the sequence its last one is repeated, and masked later.
fn four_tokens(first: u32, token: u32, stride: u32) -> vec4<u32> {
    return vec4<u32>(first) + min(vec4<u32>(token) + NEXT, vec4<u32>(params.tokens - 1u)) * stride;
}

// Four channels of four tokens: column i holds one channel.
fn q_block(at: vec4<u32>) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(q[at.x], q[at.y], q[at.z], q[at.w]));
}

fn d_y_block(at: vec4<u32>) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(d_y[at.x], d_y[at.y], d_y[at.z], d_y[at.w]));
}

fn kv_block(at: vec4<u32>) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(kv[at.x], kv[at.y], kv[at.z], kv[at.w]));
}

// Stages a block as k = 4 z .. 4 z + 3.
fn stage(operand: u32, z: u32, quad: u32, block: mat4x4<f32>) {
    @unroll for (var i = 0u; i < 4u; i++) {
        sh_operands[operand + slot(4u * z + i, quad)] = block[i];
    }
}

// Adds the product of two staged operands, 4 `depth` k deep, to an invocation's 8x4 elements: element i of operand a by the
// components of operand b.
fn multiply(a: u32, b: u32, depth: u32, place: vec2<u32>, sum: ptr<function, array<vec4<f32>, 8>>) {
    for (var z = 0u; z < depth; z++) {
        let at_a = a + slot(4u * z, place.x);
        let at_b = b + slot(4u * z, place.y);
        @unroll for (var k = 0u; k < 4u; k++) {
            let low = sh_operands[at_a + 16u * k];
            let high = sh_operands[at_a + 16u * k + 8u];
            let right = sh_operands[at_b + 16u * k];
            @unroll for (var i = 0u; i < 4u; i++) {
                (*sum)[i] = fma(vec4<f32>(low[i]), right, (*sum)[i]);
                (*sum)[4u + i] = fma(vec4<f32>(high[i]), right, (*sum)[4u + i]);
            }
        }
    }
}

// Stages channels of q, k, d_y and v from texel `c` on, 16 channels a step: 4 operands of 64 tokens.
fn stage_four(head: Head, query: u32, key: u32, c: u32, local: u32, lanes: u32) {
    for (var block = local; block < 256u; block += lanes) {
        let operand = block / 64u;
        let quad = block % 64u / 4u;
        let z = block % 4u;
        if (c + z < texels) {
            let queries = four_tokens(head.q + c + z, query + 4u * quad, query_stride());
            let keys = four_tokens(select(head.v, head.k, operand == 1u) + c + z, key + 4u * quad, key_stride());
            var value: mat4x4<f32>;
            if (operand == 0u) {
                value = q_block(queries);
            } else if (operand == 2u) {
                value = d_y_block(queries);
            } else {
                value = kv_block(keys);
            }
            stage(operand * QUARTER, z, quad, value);
        }
    }
}

// Multiplies 8x4 elements by z, for the queries and keys of forward and backward_query. Each turn of the loop draws for one
// query and rotates it to the end: one copy of the generator.
fn drop_out(head: Head, query: u32, key_quad: u32, elements: ptr<function, array<vec4<f32>, 8>>) {
    if (drops == 0u) {
        return;
    }
    let row = head.row * params.tokens + query;
    for (var r = 0u; r < 4u; r++) {
        let low = dropout_quad(row + r, key_quad, params.tokens, params.stream, params.dropout);
        let high = dropout_quad(row + r, key_quad + 8u, params.tokens, params.stream, params.dropout);
        @unroll for (var i = 0u; i < 4u; i++) {
            (*elements)[i] = vec4<f32>((*elements)[i].yzw, (*elements)[i].x * low[i]);
            (*elements)[4u + i] = vec4<f32>((*elements)[4u + i].yzw, (*elements)[4u + i].x * high[i]);
        }
    }
}

// Adds sum_j weights[j][query] kv[j][channel] over the keys of a tile; `first` is the first texel of token 0.
fn add_weighted_keys(first: u32, count: u32, key: u32, local: u32, weights: ptr<function, array<vec4<f32>, 8>>, total: ptr<function, array<vec4<f32>, 8>>) {
    let place = place_of(local);
    let texel = local % 16u;
    @unroll for (var half = 0u; half < 2u; half++) {
        @unroll for (var i = 0u; i < 4u; i++) {
            let row = 8u * i + local / 16u;
            var value = vec4<f32>();
            if (texel < count) {
                value = kv[first + min(key + 32u * half + row, params.tokens - 1u) * key_stride() + texel];
            }
            sh_operands[slot(row, texel)] = value;
            sh_operands[HALF + slot(4u * place.x + i, place.y)] = (*weights)[4u * half + i];
        }
        workgroupBarrier();
        multiply(0u, HALF, 8u, place, total);
        workgroupBarrier();
    }
}

// Shows a value to the invocations that own the same queries. Barriers before it, and after it has been read, keep it apart
// from operands.
fn share(value: vec4<f32>, place: vec2<u32>) {
    sh_operands[16u * place.x + place.y] = value;
    workgroupBarrier();
}

// Sum of what the invocations with the same queries have shared.
fn shared_sum(place: vec2<u32>) -> vec4<f32> {
    var sum = vec4<f32>(0.0);
    @unroll for (var x = 0u; x < 8u; x++) {
        sum += sh_operands[16u * x + place.y];
    }
    return sum;
}

// Four channels of a sum (from element `i` on) by query: column r is query r.
fn by_query(total: ptr<function, array<vec4<f32>, 8>>, i: u32) -> mat4x4<f32> {
    return transpose(mat4x4<f32>((*total)[i], (*total)[i + 1u], (*total)[i + 2u], (*total)[i + 3u]));
}

// A workgroup owns 64 queries of a head (those with most keys first) and a slice of its channels (z: batch, then slice), and
// walks the tiles of keys up to its own.
// grid: tokens / TILE, heads, len(q) / (tokens * heads * width) * slices
@compute @workgroup_size(LANES)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let place = place_of(local);
    let head = head_of(workgroup.z / params.slices, workgroup.y);
    let first_texel = workgroup.z % params.slices * slice;
    let count = min(slice, texels - first_texel);
    let first = ((params.tokens - 1u) / TILE - workgroup.x) * TILE;
    let query = first + 4u * place.y;
    var largest = vec4<f32>(MASKED);
    var sum = vec4<f32>(0.0); // over the invocation's own keys until the end
    var total: array<vec4<f32>, 8>;
    for (var key = 0u; key <= first; key += TILE) {
        var s = array<vec4<f32>, 8>();
        for (var c = 0u; c < texels; c += 8u) {
            let z = local % 8u;
            if (c + z < texels) {
                let quad = local / 8u;
                stage(0u, z, quad, kv_block(four_tokens(head.k + c + z, key + 4u * quad, key_stride())));
                stage(HALF, z, quad, q_block(four_tokens(head.q + c + z, first + 4u * quad, query_stride())));
            }
            workgroupBarrier();
            multiply(0u, HALF, min(8u, texels - c), place, &s);
            workgroupBarrier();
        }
        var own = largest;
        @unroll for (var i = 0u; i < 8u; i++) {
            let visible = vec4<u32>(key + element(place.x, i)) <= vec4<u32>(query) + NEXT;
            s[i] = select(vec4<f32>(MASKED), s[i] * params.scale, visible);
            own = max(own, s[i]);
        }
        share(own, place);
        @unroll for (var x = 0u; x < 8u; x++) {
            own = max(own, sh_operands[16u * x + place.y]);
        }
        workgroupBarrier();
        let decay = exp(largest - own);
        largest = own;
        sum *= decay;
        @unroll for (var i = 0u; i < 8u; i++) {
            s[i] = exp(s[i] - largest);
            sum += s[i];
            total[i] *= decay;
        }
        drop_out(head, query, key / 4u + place.x, &s);
        add_weighted_keys(head.v + first_texel, count, key, local, &s, &total);
    }
    share(sum, place);
    sum = shared_sum(place);
    if (place.x == 0u && first_texel == 0u && query < params.tokens) {
        lse[(head.row * params.stride + query) / 4u] = largest + log(sum);
    }
    @unroll for (var half = 0u; half < 2u; half++) {
        let texel = 8u * half + place.x;
        let rows = by_query(&total, 4u * half);
        @unroll for (var r = 0u; r < 4u; r++) {
            if (texel < count && query + r < params.tokens) {
                y[head.q + (query + r) * query_stride() + first_texel + texel] = rows[r] / sum[r];
            }
        }
    }
}

// As forward.
// grid: tokens / TILE, heads, len(q) / (tokens * heads * width) * slices
@compute @workgroup_size(LANES)
fn backward_query(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let place = place_of(local);
    let head = head_of(workgroup.z / params.slices, workgroup.y);
    let first_texel = workgroup.z % params.slices * slice;
    let count = min(slice, texels - first_texel);
    let first = ((params.tokens - 1u) / TILE - workgroup.x) * TILE;
    let query = first + 4u * place.y;
    let row_at = (head.row * params.stride + query) / 4u; // stride is a multiple of TILE
    let row_lse = saved_lse[row_at];
    var row_dot = vec4<f32>(0.0);
    for (var c = place.x; c < texels; c += 8u) {
        let at = four_tokens(head.q + c, query, query_stride());
        @unroll for (var r = 0u; r < 4u; r++) {
            row_dot[r] += dot(d_y[at[r]], saved_y[at[r]]);
        }
    }
    share(row_dot, place);
    row_dot = shared_sum(place);
    workgroupBarrier();
    var total: array<vec4<f32>, 8>;
    for (var key = 0u; key <= first; key += TILE) {
        var s = array<vec4<f32>, 8>();
        var d_p = array<vec4<f32>, 8>();
        for (var c = 0u; c < texels; c += 4u) {
            stage_four(head, first, key, c, local, LANES);
            workgroupBarrier();
            multiply(QUARTER, 0u, min(4u, texels - c), place, &s);
            multiply(3u * QUARTER, 2u * QUARTER, min(4u, texels - c), place, &d_p);
            workgroupBarrier();
        }
        drop_out(head, query, key / 4u + place.x, &d_p);
        @unroll for (var i = 0u; i < 8u; i++) {
            // Queries beyond the sequence mix with no others, and are not stored.
            let visible = vec4<u32>(key + element(place.x, i)) <= vec4<u32>(query) + NEXT;
            let p = exp(select(vec4<f32>(MASKED), s[i] * params.scale - row_lse, visible));
            s[i] = params.scale * p * (d_p[i] - row_dot);
        }
        add_weighted_keys(head.k + first_texel, count, key, local, &s, &total);
    }
    if (place.x == 0u && first_texel == 0u && query < params.tokens) {
        dot_rows[row_at] = row_dot;
    }
    @unroll for (var half = 0u; half < 2u; half++) {
        let texel = 8u * half + place.x;
        let rows = by_query(&total, 4u * half);
        @unroll for (var r = 0u; r < 4u; r++) {
            if (texel < count && query + r < params.tokens) {
                d_q[head.q + (query + r) * query_stride() + first_texel + texel] = rows[r];
            }
        }
    }
}

// Adds the products of operands 0 and 1, and 2 and 3, to an invocation's 4x4 elements of two sums.
fn multiply_pairs(depth: u32, place: vec2<u32>, first: ptr<function, array<vec4<f32>, 4>>, second: ptr<function, array<vec4<f32>, 4>>) {
    for (var z = 0u; z < depth; z++) {
        let at_a = slot(4u * z, place.x);
        let at_b = QUARTER + slot(4u * z, place.y);
        @unroll for (var k = 0u; k < 4u; k++) {
            let a = sh_operands[at_a + 16u * k];
            let b = sh_operands[at_b + 16u * k];
            let c = sh_operands[2u * QUARTER + at_a + 16u * k];
            let d = sh_operands[2u * QUARTER + at_b + 16u * k];
            @unroll for (var i = 0u; i < 4u; i++) {
                (*first)[i] = fma(vec4<f32>(a[i]), b, (*first)[i]);
                (*second)[i] = fma(vec4<f32>(c[i]), d, (*second)[i]);
            }
        }
    }
}

// A workgroup owns 64 keys of a key-value head and a slice of its channels (z: batch, then slice); it walks the query heads
// of its group, and in each the tiles of queries from its own on.
// grid: tokens / TILE, kv_heads, len(q) / (tokens * heads * width) * slices
@compute @workgroup_size(KEY_LANES)
fn backward_key(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let place = place_of(local);
    let batch = workgroup.z / params.slices;
    let first_texel = workgroup.z % params.slices * slice;
    let count = min(slice, texels - first_texel);
    let first = workgroup.x * TILE;
    let keys = vec4<u32>(first + 4u * place.y) + NEXT;
    let group = params.heads / params.kv_heads;
    var total_k: array<vec4<f32>, 4>;
    var total_v: array<vec4<f32>, 4>;
    for (var member = 0u; member < group; member++) {
        let head = head_of(batch, workgroup.y * group + member);
        for (var query = first; query < params.tokens; query += TILE) {
            var s = array<vec4<f32>, 4>();
            var d_p = array<vec4<f32>, 4>();
            for (var c = 0u; c < texels; c += 4u) {
                stage_four(head, query, first, c, local, KEY_LANES);
                workgroupBarrier();
                multiply_pairs(min(4u, texels - c), place, &s, &d_p);
                workgroupBarrier();
            }
            let own = query + 4u * place.x;
            let row_at = (head.row * params.stride + own) / 4u; // stride is a multiple of TILE
            let row_lse = saved_lse[row_at];
            let is_inside = vec4<u32>(own) + NEXT < vec4<u32>(params.tokens);
            let row_dot = select(vec4<f32>(0.0), saved_dot[row_at], is_inside);
            @unroll for (var i = 0u; i < 4u; i++) {
                let visible = (keys <= vec4<u32>(own + i)) & vec4<bool>(is_inside[i]);
                s[i] = exp(select(vec4<f32>(MASKED), s[i] * params.scale - row_lse[i], visible));
            }
            var weights = s; // z p
            if (drops != 0u) {
                let row = head.row * params.tokens + own;
                for (var r = 0u; r < 4u; r++) { // one copy of the generator: rows rotate through the first
                    let z = dropout_quad(row + r, keys.x / 4u, params.tokens, params.stream, params.dropout);
                    weights = array<vec4<f32>, 4>(weights[1], weights[2], weights[3], weights[0] * z);
                    d_p = array<vec4<f32>, 4>(d_p[1], d_p[2], d_p[3], d_p[0] * z);
                }
            }
            @unroll for (var i = 0u; i < 4u; i++) {
                s[i] = params.scale * s[i] * (d_p[i] - row_dot[i]);
            }
            let texel = local % 16u;
            let row = local / 16u;
            for (var chunk = 0u; chunk < 4u; chunk++) {
                var q_row = vec4<f32>();
                var d_y_row = vec4<f32>();
                if (texel < count) {
                    let token = min(query + 16u * chunk + row, params.tokens - 1u);
                    let at = head.q + token * query_stride() + first_texel + texel;
                    q_row = q[at];
                    d_y_row = d_y[at];
                }
                sh_operands[QUARTER + slot(row, texel)] = q_row;
                sh_operands[3u * QUARTER + slot(row, texel)] = d_y_row;
                if (place.x / 4u == chunk) {
                    @unroll for (var i = 0u; i < 4u; i++) {
                        let to = slot(4u * (place.x % 4u) + i, place.y);
                        sh_operands[to] = s[i];
                        sh_operands[2u * QUARTER + to] = weights[i];
                    }
                }
                workgroupBarrier();
                multiply_pairs(4u, place, &total_k, &total_v);
                workgroupBarrier();
            }
        }
    }
    let head = head_of(batch, workgroup.y * group);
    @unroll for (var i = 0u; i < 4u; i++) {
        let token = first + 4u * place.x + i;
        if (token < params.tokens && place.y < count) {
            let at = token * key_stride() + first_texel + place.y;
            d_kv[head.k + at] = total_k[i];
            d_kv[head.v + at] = total_v[i];
        }
    }
}
