// AdamW four elements at a time, as adamw.wgsl.
//
// fits: n % 4 == 0 && expert % 4 == 0
// rank: 5

import package::adamw::{INVOCATIONS, State, clip, corrections_at, is_sound, params, tell, updated};
import package::lib::clip::CLIP_FINITE;
import package::lib::index::flat_workgroup;

@group(0) @binding(2) var<storage, read> d_w: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> w: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> m: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> v: array<vec4<f32>>;

// An invocation owns four elements.
// grid: n / 4 / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn update(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i >= params.n / 4u || clip[CLIP_FINITE] == 0u) {
        return;
    }
    let correction = corrections_at(4u * i);
    if (correction.x == 0.0) {
        return;
    }
    let state = updated(State(w[i], m[i], v[i]), d_w[i], correction);
    w[i] = state.w;
    m[i] = state.m;
    v[i] = state.v;
    tell(is_sound(state));
}
