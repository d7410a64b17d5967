// AdamW on CPU rasterisers, as adamw.wgsl; what is read comes through texture images of `columns` texels a row.
//
// requires: images

import package::adamw::{INVOCATIONS, State, clip, corrections_at, is_sound, params, tell, updated};
import package::lib::clip::CLIP_FINITE;
import package::lib::index::flat_workgroup;

@group(0) @binding(10) var image_d_w: texture_2d<f32>;
@group(0) @binding(11) var image_w: texture_2d<f32>;
@group(0) @binding(12) var image_m: texture_2d<f32>;
@group(0) @binding(13) var image_v: texture_2d<f32>;
@group(0) @binding(7) var<storage, read_write> w: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> m: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read_write> v: array<vec4<f32>>;

const TEXELS = 4u;

// An invocation owns four texels, 64 apart; n counts texels.
@compute @workgroup_size(INVOCATIONS)
fn update(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = flat_workgroup(workgroup, workgroups) * INVOCATIONS * TEXELS + local;
    let columns = textureDimensions(image_w).x;
    if (clip[CLIP_FINITE] == 0u) {
        return;
    }
    var sound = true;
    @unroll for (var q = 0u; q < TEXELS; q++) {
        let i = first + q * INVOCATIONS;
        let at = vec2<u32>(i % columns, i / columns);
        let old = State(textureLoad(image_w, at, 0), textureLoad(image_m, at, 0), textureLoad(image_v, at, 0));
        let correction = corrections_at(min(i, params.n - 1u));
        let state = updated(old, textureLoad(image_d_w, at, 0), correction);
        if (i < params.n && correction.x != 0.0) {
            w[i] = state.w;
            m[i] = state.m;
            v[i] = state.v;
            sound &= is_sound(state);
        }
    }
    tell(sound); // Once: a store to a buffer costs these drivers as much as a texel's arithmetic.
}
