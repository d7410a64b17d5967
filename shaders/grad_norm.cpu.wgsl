// First pass of the gradient norm on CPU rasterisers, as grad_norm.wgsl; gradients are read through texture images and
// no invocation waits for another.
//
// requires: images
// rank: 10

import package::grad_norm::{params, partials};
import package::lib::index::flat_workgroup;

@group(0) @binding(1) var d0: texture_2d<f32>;
@group(0) @binding(2) var d1: texture_2d<f32>;
@group(0) @binding(3) var d2: texture_2d<f32>;
@group(0) @binding(4) var d3: texture_2d<f32>;
@group(0) @binding(5) var d4: texture_2d<f32>;
@group(0) @binding(6) var d5: texture_2d<f32>;

const LANES = 8u;
const TEXELS = 256u;                      // of an invocation
const LANE_BLOCK = 4u * LANES * TEXELS;  // elements of a workgroup, which leaves a partial for each of its lanes
const MIN_ELEMENTS = 8192u; // of a gradient; below, the copies cost more than reading through textures gains

struct Sum {
    squares: vec4<f32>,
    bad: vec4<u32>, // values not finite
}

// The texels first, first + 8, .. below end. Which gradient is chosen outside of this loop: inside, a rasteriser would
// load from all of them and mask.
fn sum_squares(image: texture_2d<f32>, first: u32, end: u32) -> Sum {
    let columns = textureDimensions(image).x;
    var sum = Sum();
    for (var i = first; i < end; i += LANES) {
        let g = textureLoad(image, vec2<u32>(i % columns, i / columns), 0);
        let exponents = bitcast<vec4<u32>>(g) & vec4<u32>(0x7f800000u);
        sum.squares += g * g;
        sum.bad += vec4<u32>(exponents == vec4<u32>(0x7f800000u));
    }
    return sum;
}

// A workgroup owns a block of one gradient, an invocation every eighth texel of it and a partial of its own.
// fits: len(d0) >= MIN_ELEMENTS
// grid: n0 / LANE_BLOCK + n1 / LANE_BLOCK + n2 / LANE_BLOCK + n3 / LANE_BLOCK + n4 / LANE_BLOCK + n5 / LANE_BLOCK
@compute @workgroup_size(LANES)
fn squares_by_lane(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = flat_workgroup(workgroup, workgroups);
    var lengths = array<u32, 6>(params.n0, params.n1, params.n2, params.n3, params.n4, params.n5);
    var block = index;
    var which = 0u;
    while (which < 6u && block >= (lengths[which] + LANE_BLOCK - 1u) / LANE_BLOCK) {
        block -= (lengths[which] + LANE_BLOCK - 1u) / LANE_BLOCK;
        which++;
    }
    if (which == 6u) {
        return;
    }
    let end = min(lengths[which], (block + 1u) * LANE_BLOCK) / 4u;
    let start = block * (LANE_BLOCK / 4u) + local;
    var sum: Sum;
    switch which {
        case 0u: { sum = sum_squares(d0, start, end); }
        case 1u: { sum = sum_squares(d1, start, end); }
        case 2u: { sum = sum_squares(d2, start, end); }
        case 3u: { sum = sum_squares(d3, start, end); }
        case 4u: { sum = sum_squares(d4, start, end); }
        default: { sum = sum_squares(d5, start, end); }
    }
    let squares = (sum.squares.x + sum.squares.y) + (sum.squares.z + sum.squares.w);
    let bad = sum.bad.x + sum.bad.y + sum.bad.z + sum.bad.w;
    partials[params.first + index * LANES + local] = vec2<u32>(bitcast<u32>(squares), bad);
}
