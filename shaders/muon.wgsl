// Muon (Jordan et al. 2024): momentum, Nesterov, orthogonalisation by Newton-Schulz, for matrices [rows, columns], many
// to a parameter (each expert is one); g is the gradient times the clip factor:
//   momentum <- momentum + (1 - beta)(g - momentum)        x = g + beta (momentum - g)
//   w <- w (1 - lr decay) - lr scale orthogonalised(x)
// gather stacks the x of many parameters into [slices, side, length], short side first (tall matrices transposed),
// padded with zeros; ops/muon.rs orthogonalises the stack by matrix products; scatter applies it. normalize gives the
// first polynomial of that its terms. Matrices with a side of at most 16 (router gates) take `update_small`, all in one.
// Where a gradient was not finite (clip.finite = 0) no parameter and no momentum is written; and none of an expert without
// assignments, where counts are followed. A weight that is not finite afterwards is written nevertheless, and reported.

import package::lib::clip::{CLIP_FACTOR, CLIP_FINITE};
import package::lib::finite::are_finite;
import package::lib::index::flat_workgroup;
import package::lib::step::step;

struct Params {
    rows: u32,         // of a matrix
    columns: u32,
    slices: u32,       // matrices of this launch
    first: u32,        // first of them in the parameter
    place: u32,        // first of them in the stack
    side: u32,         // rows and columns of the stack
    length: u32,
    beta: f32,
    scale: f32,
    weight_decay: f32,
    follows_counts: u32, // 1: matrix s is left as it is where counts[s] = 0
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> clip: array<u32>;
@group(0) @binding(2) var<storage, read> d_w: array<f32>;
@group(0) @binding(3) var<storage, read_write> momentum: array<f32>;
@group(0) @binding(4) var<storage, read_write> stack: array<f32>;
@group(0) @binding(5) var<storage, read> orthogonal: array<f32>;
@group(0) @binding(6) var<storage, read_write> w: array<f32>;
@group(0) @binding(7) var<storage, read> gram: array<f32>;
@group(0) @binding(8) var<storage, read_write> factor: array<f32>;
@group(0) @binding(9) var<storage, read_write> addend: array<f32>;
@group(0) @binding(10) var<storage, read_write> x: array<f32>;
@group(0) @binding(15) var<storage, read> counts: array<u32>; // one a matrix of the parameter
@group(0) @binding(16) var<storage, read_write> damage: array<u32>; // [1], 1: the update made a value that is not finite

const INVOCATIONS = 64u;
const SMALL_SIDE = 16u;
const NORMALIZED = 1024u; // elements of a workgroup of normalize
const EPS = 1e-7;
// Coefficients of the polynomial X <- A X + B (X X^T) X + C (X X^T)^2 X (KellerJordan/Muon).
const A: f32 = 3.4445;
const B: f32 = -4.7750;
const C: f32 = 2.0315;

var<workgroup> sh_sum: array<f32, 64>;
var<workgroup> sh_gram: array<f32, 256>;       // X X^T
var<workgroup> sh_polynomial: array<f32, 256>; // B X X^T + C (X X^T)^2

// Sums one value an invocation over the workgroup, in a fixed tree.
fn workgroup_sum(value: f32, local: u32) -> f32 {
    sh_sum[local] = value;
    workgroupBarrier();
    for (var half = INVOCATIONS / 2u; half > 0u; half /= 2u) {
        if (local < half) {
            sh_sum[local] += sh_sum[local + half];
        }
        workgroupBarrier();
    }
    return sh_sum[0];
}

// Whether a matrix of the parameter takes part in this update.
fn is_updated(slice: u32) -> bool {
    return clip[CLIP_FINITE] != 0u && (params.follows_counts == 0u || counts[slice] > 0u);
}

// Element (i, j) of a matrix, short side first, in its parameter.
fn parameter_index(slice: u32, i: u32, j: u32) -> u32 {
    let at = select(vec2<u32>(i, j), vec2<u32>(j, i), params.rows > params.columns);
    return (slice * params.rows + at.x) * params.columns + at.y;
}

fn moved(momentum: vec4<f32>, g: vec4<f32>) -> vec4<f32> {
    return momentum + (1.0 - params.beta) * (g - momentum);
}

fn nesterov(momentum: vec4<f32>, g: vec4<f32>) -> vec4<f32> {
    return g + params.beta * (momentum - g);
}

fn stepped(w: vec4<f32>, direction: vec4<f32>) -> vec4<f32> {
    return w * (1.0 - step.lr_muon * params.weight_decay) - step.lr_muon * params.scale * direction;
}

// Moves one element of the momentum on and returns what is to be orthogonalised.
fn advance(index: u32) -> f32 {
    let g = vec4<f32>(d_w[index] * bitcast<f32>(clip[CLIP_FACTOR]));
    let new_momentum = moved(vec4<f32>(momentum[index]), g);
    momentum[index] = new_momentum.x;
    return nesterov(new_momentum, g).x;
}

// All that store anything store the same, so that their order is no matter.
fn tell(sound: bool) {
    if (!sound) {
        damage[0] = 1u;
    }
}

fn apply(index: u32, direction: f32) {
    let weight = stepped(vec4<f32>(w[index]), vec4<f32>(direction));
    w[index] = weight.x;
    tell(are_finite(weight));
}

// An invocation owns one element of the stack.
// grid: slices * side * length / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn gather(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let elements = params.side * params.length;
    if (index >= params.slices * elements) {
        return;
    }
    let i = index % elements / params.length;
    let j = index % params.length;
    let is_inside = i < min(params.rows, params.columns) && j < max(params.rows, params.columns);
    var value = 0.0;
    let slice = params.first + index / elements;
    if (is_inside && is_updated(slice)) {
        value = advance(parameter_index(slice, i, j));
    }
    stack[params.place * elements + index] = value;
}

// With s = 1 / (|X|_F + eps) and V = s^2 X X^T, the first step is s (A I + B V + C V V) X: from gram = X X^T, whose
// trace is |X|_F^2, this gives factor = s^3 V and addend = s (A I + B V), so that the polynomial, s included, is
// C gram factor + addend. A workgroup owns NORMALIZED elements of a slice (y of the grid); each sums the trace for itself.
// grid: side * side / NORMALIZED, len(gram) / (side * side)
@compute @workgroup_size(INVOCATIONS)
fn normalize(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let elements = params.side * params.side;
    let base = workgroup.y * elements;
    var sum = 0.0;
    for (var i = local; i < params.side; i += INVOCATIONS) {
        sum += gram[base + i * params.side + i];
    }
    let s = 1.0 / (sqrt(workgroup_sum(sum, local)) + EPS);
    let first = workgroup.x * NORMALIZED;
    for (var i = first + local; i < min(first + NORMALIZED, elements); i += INVOCATIONS) {
        let v = gram[base + i] * s * s;
        let identity = select(0.0, 1.0, i / params.side == i % params.side);
        factor[base + i] = v * s * s * s;
        addend[base + i] = s * (A * identity + B * v);
    }
}

// An invocation owns one element of the parameter.
// grid: slices * rows * columns / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn scatter(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let elements = params.rows * params.columns;
    if (index >= params.slices * elements || !is_updated(params.first + index / elements)) {
        return;
    }
    let at = vec2<u32>(index % elements / params.columns, index % params.columns);
    let side_first = select(at, at.yx, params.rows > params.columns);
    let slice = params.place + index / elements;
    apply(params.first * elements + index, orthogonal[(slice * params.side + side_first.x) * params.length + side_first.y]);
}

// A workgroup owns a matrix [side, length], side <= 16, from momentum to update; x holds it between the steps. Dynamic
// loops over a short side are slow, but this is one launch for what would be twenty.
// grid: slices
@compute @workgroup_size(INVOCATIONS)
fn update_small(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let elements = params.side * params.length;
    let pairs = params.side * params.side;
    let base = workgroup.x * elements;
    if (!is_updated(workgroup.x)) {
        return;
    }
    var sum = 0.0;
    for (var i = local; i < elements; i += INVOCATIONS) {
        let value = advance(parameter_index(workgroup.x, i / params.length, i % params.length));
        x[base + i] = value;
        sum += value * value;
    }
    let s = 1.0 / (sqrt(workgroup_sum(sum, local)) + EPS);
    for (var i = local; i < elements; i += INVOCATIONS) {
        x[base + i] *= s;
    }
    storageBarrier();
    for (var round = 0u; round < 5u; round++) {
        for (var pair = local; pair < pairs; pair += INVOCATIONS) {
            let left = base + pair / params.side * params.length;
            let right = base + pair % params.side * params.length;
            var dot_product = 0.0;
            for (var j = 0u; j < params.length; j++) {
                dot_product += x[left + j] * x[right + j];
            }
            sh_gram[pair] = dot_product;
        }
        workgroupBarrier();
        for (var pair = local; pair < pairs; pair += INVOCATIONS) {
            var square = 0.0;
            for (var k = 0u; k < params.side; k++) {
                square += sh_gram[pair / params.side * params.side + k] * sh_gram[k * params.side + pair % params.side];
            }
            sh_polynomial[pair] = B * sh_gram[pair] + C * square;
        }
        workgroupBarrier();
        for (var j = local; j < params.length; j += INVOCATIONS) {
            var column: array<f32, SMALL_SIDE>;
            for (var i = 0u; i < params.side; i++) {
                column[i] = x[base + i * params.length + j];
            }
            for (var i = 0u; i < params.side; i++) {
                var value = A * column[i];
                for (var k = 0u; k < params.side; k++) {
                    value += sh_polynomial[i * params.side + k] * column[k];
                }
                x[base + i * params.length + j] = value;
            }
        }
        storageBarrier();
    }
    for (var i = local; i < elements; i += INVOCATIONS) {
        apply(parameter_index(workgroup.x, i / params.length, i % params.length), x[base + i]);
    }
}
