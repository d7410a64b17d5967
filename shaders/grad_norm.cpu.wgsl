// First pass of the gradient norm on CPU rasterisers, as grad_norm.wgsl; gradients are read through texture images and
// no invocation waits for another.
//
// requires: images

import package::grad_norm::{params, partials};
import package::lib::index::flat_workgroup;

@group(0) @binding(11) var image0: texture_2d<f32>;
@group(0) @binding(12) var image1: texture_2d<f32>;
@group(0) @binding(13) var image2: texture_2d<f32>;
@group(0) @binding(14) var image3: texture_2d<f32>;
@group(0) @binding(15) var image4: texture_2d<f32>;
@group(0) @binding(16) var image5: texture_2d<f32>;

const INVOCATIONS = 8u;
const TEXELS = 256u;                      // of an invocation
const BLOCK = 4u * INVOCATIONS * TEXELS;  // elements of a workgroup

struct Sum {
    squares: vec4<f32>,
    bad: vec4<u32>, // values not finite
}

// The texels first, first + 8, .. below end. Which gradient is chosen outside of this loop: inside, a rasteriser would
// load from all of them and mask.
fn sum_squares(image: texture_2d<f32>, first: u32, end: u32) -> Sum {
    let columns = textureDimensions(image).x;
    var sum = Sum();
    for (var i = first; i < end; i += INVOCATIONS) {
        let g = textureLoad(image, vec2<u32>(i % columns, i / columns), 0);
        let exponents = bitcast<vec4<u32>>(g) & vec4<u32>(0x7f800000u);
        sum.squares += g * g;
        sum.bad += vec4<u32>(exponents == vec4<u32>(0x7f800000u));
    }
    return sum;
}

// A workgroup owns a block of one gradient, an invocation every eighth texel of it and a partial of its own.
@compute @workgroup_size(INVOCATIONS)
fn squares(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = flat_workgroup(workgroup, workgroups);
    var lengths = array<u32, 6>(params.n0, params.n1, params.n2, params.n3, params.n4, params.n5);
    var block = index;
    var which = 0u;
    while (which < 6u && block >= (lengths[which] + BLOCK - 1u) / BLOCK) {
        block -= (lengths[which] + BLOCK - 1u) / BLOCK;
        which++;
    }
    if (which == 6u) {
        return;
    }
    let end = min(lengths[which], (block + 1u) * BLOCK) / 4u;
    let start = block * (BLOCK / 4u) + local;
    var sum: Sum;
    switch which {
        case 0u: { sum = sum_squares(image0, start, end); }
        case 1u: { sum = sum_squares(image1, start, end); }
        case 2u: { sum = sum_squares(image2, start, end); }
        case 3u: { sum = sum_squares(image3, start, end); }
        case 4u: { sum = sum_squares(image4, start, end); }
        default: { sum = sum_squares(image5, start, end); }
    }
    let squares = (sum.squares.x + sum.squares.y) + (sum.squares.z + sum.squares.w);
    let bad = sum.bad.x + sum.bad.y + sum.bad.z + sum.bad.w;
    partials[params.first + index * INVOCATIONS + local] = vec2<u32>(bitcast<u32>(squares), bad);
}
