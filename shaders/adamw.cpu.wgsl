// AdamW on CPU rasterisers, as adamw.wgsl; what is read comes through texture images of `columns` texels a row.
//
// requires: images
// fits: n >= MIN_ELEMENTS && expert % 4 == 0
// rank: 10

import package::adamw::{INVOCATIONS, State, clip, corrections_at, is_sound, params, tell, updated};
import package::lib::clip::CLIP_FINITE;
import package::lib::index::flat_workgroup;

@group(0) @binding(2) var d_w: texture_2d<f32>;
@group(0) @binding(11) var w_texels: texture_2d<f32>;
@group(0) @binding(12) var m_texels: texture_2d<f32>;
@group(0) @binding(13) var v_texels: texture_2d<f32>;
@group(0) @binding(3) var<storage, read_write> w: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> m: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> v: array<vec4<f32>>;

const TEXELS = 4u;
const MIN_ELEMENTS = 8192u; // below, the copies cost more than reading through textures gains

// An invocation owns four texels, 64 apart.
// grid: n / (4 * TEXELS) / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn update(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first = flat_workgroup(workgroup, workgroups) * INVOCATIONS * TEXELS + local;
    let columns = textureDimensions(w_texels).x;
    if (clip[CLIP_FINITE] == 0u) {
        return;
    }
    var sound = true;
    @unroll for (var q = 0u; q < TEXELS; q++) {
        let i = first + q * INVOCATIONS;
        let at = vec2<u32>(i % columns, i / columns);
        let old = State(textureLoad(w_texels, at, 0), textureLoad(m_texels, at, 0), textureLoad(v_texels, at, 0));
        let correction = corrections_at(min(4u * i, params.n - 1u));
        let state = updated(old, textureLoad(d_w, at, 0), correction);
        if (4u * i < params.n && correction.x != 0.0) {
            w[i] = state.w;
            m[i] = state.m;
            v[i] = state.v;
            sound &= is_sound(state);
        }
    }
    tell(sound); // Once: a store to a buffer costs these drivers as much as a texel's arithmetic.
}
