// Root-mean-square norm of every query and key head (QK norm), before rotary positions:
//   qkv [N, (H + 2 KV) hd] = q heads, k heads, v heads; x [hd] a q or k head, w the gain of q or of k heads
//   r = 1 / sqrt(mean_i(x_i^2) + eps)        y_i = x_i r w_i        v heads pass through
//   d_x_i = r (w_i d_y_i - x_i r^2 mean_j(w_j d_y_j x_j))        d_w_i += sum over rows and heads of d_y_i x_i r

import package::lib::index::flat_workgroup;

struct Params {
    rows: u32,         // N
    row_heads: u32,    // H + 2 KV
    normed_heads: u32, // H + KV
    q_heads: u32,      // H
    width: u32,        // hd
    eps: f32,
    blocks: u32,       // rows / BLOCK_ROWS, rounded up
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> qkv: array<f32>;
@group(0) @binding(2) var<storage, read> w_q: array<f32>;
@group(0) @binding(3) var<storage, read> w_k: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read_write> r: array<f32>; // [N, H + KV]
@group(0) @binding(6) var<storage, read> d_y: array<f32>;
@group(0) @binding(7) var<storage, read_write> d_qkv: array<f32>;
@group(0) @binding(8) var<storage, read_write> partial: array<f32>; // [blocks, 2 hd], of w_q and of w_k
@group(0) @binding(9) var<storage, read_write> d_w_q: array<f32>;
@group(0) @binding(10) var<storage, read_write> d_w_k: array<f32>;

const INVOCATIONS = 64u;
const LANES = 16u; // invocations that share a head
const BLOCK_ROWS = 16u; // that one invocation of backward_weight sums

var<workgroup> sh_sum: array<f32, 64>;

// Sums one value an invocation over the lanes of a head, in a fixed tree.
fn head_sum(value: f32, local: u32) -> f32 {
    sh_sum[local] = value;
    workgroupBarrier();
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        if (local % LANES < half) {
            sh_sum[local] += sh_sum[local + half];
        }
        workgroupBarrier();
    }
    return sh_sum[local / LANES * LANES];
}

// The head of an invocation.
struct Head {
    row: u32,
    head: u32,       // of the row
    base: u32,       // its first element in qkv
    lane: u32,
    is_inside: bool, // the grid's last workgroup may have heads beyond the last row
    is_normed: bool,
}

fn head_of(workgroup: u32, local: u32) -> Head {
    let index = workgroup * (INVOCATIONS / LANES) + local / LANES;
    let row = index / params.row_heads;
    let head = index % params.row_heads;
    let is_inside = row < params.rows;
    return Head(row, head, index * params.width, local % LANES, is_inside, is_inside && head < params.normed_heads);
}

fn gain(head: u32, i: u32) -> f32 {
    if (head < params.q_heads) {
        return w_q[i];
    }
    return w_k[i];
}

// A workgroup owns four heads, sixteen invocations one of them, each every 16th element.
// grid: rows * row_heads * LANES / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn forward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let h = head_of(flat_workgroup(workgroup, workgroups), local);
    var sum = 0.0;
    if (h.is_normed) {
        for (var i = h.lane; i < params.width; i += LANES) {
            sum += qkv[h.base + i] * qkv[h.base + i];
        }
    }
    let scale = inverseSqrt(head_sum(sum, local) / f32(params.width) + params.eps);
    if (h.is_normed) {
        if (h.lane == 0u) {
            r[h.row * params.normed_heads + h.head] = scale;
        }
        for (var i = h.lane; i < params.width; i += LANES) {
            y[h.base + i] = qkv[h.base + i] * scale * gain(h.head, i);
        }
    } else if (h.is_inside) {
        for (var i = h.lane; i < params.width; i += LANES) {
            y[h.base + i] = qkv[h.base + i];
        }
    }
}

// A workgroup owns four heads, sixteen invocations one of them, each every 16th element.
// grid: rows * row_heads * LANES / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn backward(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let h = head_of(flat_workgroup(workgroup, workgroups), local);
    var sum = 0.0;
    if (h.is_normed) {
        for (var i = h.lane; i < params.width; i += LANES) {
            sum += gain(h.head, i) * d_y[h.base + i] * qkv[h.base + i];
        }
    }
    let mean = head_sum(sum, local) / f32(params.width);
    if (h.is_normed) {
        let scale = r[h.row * params.normed_heads + h.head];
        let projection = mean * scale * scale;
        for (var i = h.lane; i < params.width; i += LANES) {
            d_qkv[h.base + i] = scale * (gain(h.head, i) * d_y[h.base + i] - qkv[h.base + i] * projection);
        }
    } else if (h.is_inside) {
        for (var i = h.lane; i < params.width; i += LANES) {
            d_qkv[h.base + i] = d_y[h.base + i];
        }
    }
}

// A workgroup owns a block of rows, y of the grid, an invocation one channel of the q heads or of the k heads: it walks
// the block's rows and their heads in order.
// grid: 2 * width / INVOCATIONS, blocks
@compute @workgroup_size(INVOCATIONS)
fn backward_weight(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= 2u * params.width) {
        return;
    }
    let is_q = id.x < params.width;
    let first = select(params.q_heads, 0u, is_q);
    let end = select(params.normed_heads, params.q_heads, is_q);
    var sum = 0.0;
    for (var row = id.y * BLOCK_ROWS; row < min((id.y + 1u) * BLOCK_ROWS, params.rows); row++) {
        for (var head = first; head < end; head++) {
            let i = (row * params.row_heads + head) * params.width + id.x % params.width;
            sum += d_y[i] * qkv[i] * r[row * params.normed_heads + head];
        }
    }
    partial[id.y * 2u * params.width + id.x] = sum;
}

// An invocation owns a channel of the q heads or of the k heads: it adds the blocks' sums in order.
// grid: 2 * width / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn reduce_weight(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= 2u * params.width) {
        return;
    }
    var sum = 0.0;
    for (var block = 0u; block < params.blocks; block++) {
        sum += partial[block * 2u * params.width + id.x];
    }
    if (id.x < params.width) {
        d_w_q[id.x] += sum;
    } else {
        d_w_k[id.x - params.width] += sum;
    }
}
