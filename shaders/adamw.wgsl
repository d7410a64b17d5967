// AdamW with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101), in the order of torch.optim.AdamW; d_w is
// multiplied by the clip factor first:
//   w <- w (1 - lr decay)          m <- m + (1 - beta1)(g - m)          v <- beta2 v + (1 - beta2) g^2
//   w <- w - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
// Where the gradient was not finite (clip.finite = 0) nothing is written, and t does not count the update: correct moves
// c = 1 - beta^t on as c <- beta c + 1 - beta. Of a stack of experts those without assignments can be left as they are;
// each has its own t then, the updates that it took part in. A result that is not finite is written nevertheless, and reported.

import package::lib::clip::{CLIP_FACTOR, CLIP_FINITE};
import package::lib::finite::are_finite;
import package::lib::index::flat_workgroup;
import package::lib::step::step;

struct Params {
    n: u32,
    expert: u32, // of these an expert's, where each expert has its own t; 0: one t for all
    beta1: f32,
    beta2: f32,
    eps: f32,
    weight_decay: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> clip: array<u32>;
@group(0) @binding(2) var<storage, read> d_w: array<f32>;
@group(0) @binding(3) var<storage, read_write> w: array<f32>;
@group(0) @binding(4) var<storage, read_write> m: array<f32>;
@group(0) @binding(5) var<storage, read_write> v: array<f32>;
@group(0) @binding(6) var<storage, read> corrections: array<f32>; // [E, 2] or [1, 2], 0: this expert is left as it is
@group(0) @binding(7) var<storage, read> counts: array<u32>;      // [E], not read where there is one t for all
@group(0) @binding(8) var<storage, read_write> saved_corrections: array<f32>;
@group(0) @binding(9) var<storage, read_write> new_corrections: array<f32>;
@group(0) @binding(10) var<storage, read_write> damage: array<u32>; // [1], 1: the update made a value that is not finite

const INVOCATIONS = 64u;

struct State {
    w: vec4<f32>,
    m: vec4<f32>,
    v: vec4<f32>,
}

// 1 - beta1^t and 1 - beta2^t of the i-th of n; 0 where it is left as it is.
fn corrections_at(i: u32) -> vec2<f32> {
    let e = select(i / max(params.expert, 1u), 0u, params.expert == 0u);
    return vec2<f32>(corrections[2u * e], corrections[2u * e + 1u]);
}

fn updated(old: State, d_w: vec4<f32>, correction: vec2<f32>) -> State {
    let g = d_w * bitcast<f32>(clip[CLIP_FACTOR]);
    let decayed = old.w * (1.0 - step.lr_adamw * params.weight_decay);
    let m = old.m + (1.0 - params.beta1) * (g - old.m);
    let v = params.beta2 * old.v + (1.0 - params.beta2) * g * g;
    let denominator = sqrt(v) / sqrt(correction.y) + params.eps;
    return State(decayed - step.lr_adamw / correction.x * m / denominator, m, v);
}

// Whether weight and moments are finite: a mean that is not would show in the weight.
fn is_sound(state: State) -> bool {
    return are_finite(state.w) && are_finite(state.v);
}

// All that store anything store the same, so that their order is no matter.
fn tell(sound: bool) {
    if (!sound) {
        damage[0] = 1u;
    }
}

// An invocation owns one element.
// grid: n / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn update(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i >= params.n || clip[CLIP_FINITE] == 0u) {
        return;
    }
    let correction = corrections_at(i);
    if (correction.x == 0.0) {
        return;
    }
    let state = updated(State(vec4<f32>(w[i]), vec4<f32>(m[i]), vec4<f32>(v[i])), vec4<f32>(d_w[i]), correction);
    w[i] = state.w.x;
    m[i] = state.m.x;
    v[i] = state.v.x;
    tell(is_sound(state));
}

// An invocation owns one correction; n counts experts, or is 1.
// grid: 2 * n / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn correct(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i >= 2u * params.n) {
        return;
    }
    let is_updated = (params.expert == 0u || counts[i / 2u] > 0u) && clip[CLIP_FINITE] != 0u;
    let beta = select(params.beta1, params.beta2, i % 2u == 1u);
    let correction = beta * saved_corrections[i] + (1.0 - beta);
    if (is_updated) {
        saved_corrections[i] = correction;
    }
    new_corrections[i] = select(0.0, correction, is_updated);
}
