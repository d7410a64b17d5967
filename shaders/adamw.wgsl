// AdamW with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101), in the order of torch.optim.AdamW; d_w is
// multiplied by the clip factor first:
//   w <- w (1 - lr decay)          m <- m + (1 - beta1)(g - m)          v <- beta2 v + (1 - beta2) g^2
//   w <- w - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
// Where the gradient was not finite (clip.finite = 0) nothing is written.

import package::lib::clip::{CLIP_FACTOR, CLIP_FINITE};
import package::lib::index::flat_workgroup;
import package::lib::step::step;

struct Params {
    n: u32,
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
@group(0) @binding(6) var<storage, read> d_w4: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> w4: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> m4: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read_write> v4: array<vec4<f32>>;

const INVOCATIONS = 64u;

struct State {
    w: vec4<f32>,
    m: vec4<f32>,
    v: vec4<f32>,
}

fn updated(old: State, d_w: vec4<f32>) -> State {
    let g = d_w * bitcast<f32>(clip[CLIP_FACTOR]);
    let decayed = old.w * (1.0 - step.lr_adamw * params.weight_decay);
    let m = old.m + (1.0 - params.beta1) * (g - old.m);
    let v = params.beta2 * old.v + (1.0 - params.beta2) * g * g;
    let denominator = sqrt(v) / sqrt(step.adamw_correction2) + params.eps;
    return State(decayed - step.lr_adamw / step.adamw_correction1 * m / denominator, m, v);
}

// An invocation owns four elements; n counts those fours.
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
    let state = updated(State(w4[i], m4[i], v4[i]), d_w4[i]);
    w4[i] = state.w;
    m4[i] = state.m;
    v4[i] = state.v;
}

// An invocation owns one element: for lengths that are no multiple of four.
@compute @workgroup_size(INVOCATIONS)
fn update_ragged(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i >= params.n || clip[CLIP_FINITE] == 0u) {
        return;
    }
    let state = updated(State(vec4<f32>(w[i]), vec4<f32>(m[i]), vec4<f32>(v[i])), vec4<f32>(d_w[i]));
    w[i] = state.w.x;
    m[i] = state.m.x;
    v[i] = state.v.x;
}
