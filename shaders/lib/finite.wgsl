// WGSL lets a compiler assume that NaN and infinity never occur, so they are found by bit pattern only.

fn is_finite_bits(bits: u32) -> bool {
    return (bits & 0x7f800000u) != 0x7f800000u;
}
