// Dropout of attention probabilities, recomputed wherever they are.

import package::lib::random::{random_bits, uniform01};
import package::lib::step::step;

// 0 with the given probability, else 1 / (1 - probability), for keys 4 quad .. 4 quad + 3 of one row of the
// T x T matrix: one draw serves four keys. `row` is (b H + h) T + i.
fn dropout_quad(row: u32, quad: u32, tokens: u32, stream: u32, probability: f32) -> vec4<f32> {
    let element = row * ((tokens + 3u) / 4u) + quad;
    let bits = random_bits(element, stream, step.micro_step, step.seed_low, step.seed_high);
    let draws = vec4<f32>(uniform01(bits.x), uniform01(bits.y), uniform01(bits.z), uniform01(bits.w));
    return select(vec4<f32>(0.0), vec4<f32>(1.0 / (1.0 - probability)), draws >= vec4<f32>(probability));
}
