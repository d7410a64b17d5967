// rounded.wgsl, as f16.
//
// requires: f16
// rank: 1
// halves: results

alias Rounded = vec4<f16>;

fn rounded(value: vec4<f32>) -> Rounded {
    return vec4<f16>(value);
}
