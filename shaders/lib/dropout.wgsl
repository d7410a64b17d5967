// Inverted dropout (Srivastava et al., JMLR 2014). One Philox draw decides four consecutive elements of a tensor, and
// backward draws again instead of keeping a mask.

import package::lib::random::{random_bits, uniform01};
import package::lib::step::step;

// 0: p is 0 and every factor 1. A pipeline constant, because CPU rasterisers run both sides of a branch.
override has_dropout: u32 = 1u;

// What elements 4 group .. 4 group + 3 are multiplied by: 0 with probability p, else 1 / (1 - p).
fn dropout_scale4(group: u32, p: f32, stream: u32) -> vec4<f32> {
    if (has_dropout == 0u) {
        return vec4<f32>(1.0);
    }
    let bits = random_bits(group, stream, step.micro_step, step.seed_low, step.seed_high);
    let draw = vec4<f32>(uniform01(bits.x), uniform01(bits.y), uniform01(bits.z), uniform01(bits.w));
    return select(vec4<f32>(1.0 / (1.0 - p)), vec4<f32>(0.0), draw < vec4<f32>(p));
}

// The same for one element.
fn dropout_scale(element: u32, p: f32, stream: u32) -> f32 {
    let scale = dropout_scale4(element / 4u, p, stream);
    return scale[element % 4u];
}
