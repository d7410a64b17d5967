// WGSL lets a compiler assume that NaN and infinity never occur, so they are found by bit pattern only.

fn is_finite_bits(bits: u32) -> bool {
    return (bits & 0x7f800000u) != 0x7f800000u;
}

fn are_finite(values: vec4<f32>) -> bool {
    return all((bitcast<vec4<u32>>(values) & vec4<u32>(0x7f800000u)) != vec4<u32>(0x7f800000u));
}
