// Results that a sibling writes as f16 where only products on cooperative matrices read them (ops/halves.rs).

alias Rounded = vec4<f32>;

fn rounded(value: vec4<f32>) -> Rounded {
    return value;
}
