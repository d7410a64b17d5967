// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): a counter-based generator, so
// that backward recomputes what forward drew. src/random.rs gives the same numbers on the host.

fn multiply_wide(a: u32, b: u32) -> vec2<u32> { // (high, low) of the 64-bit product, in 16-bit halves
    let a0 = a & 0xffffu;
    let a1 = a >> 16u;
    let b0 = b & 0xffffu;
    let b1 = b >> 16u;
    let low = a1 * b0 + ((a0 * b0) >> 16u);
    let middle = a0 * b1 + (low & 0xffffu);
    let high = a1 * b1 + (low >> 16u) + (middle >> 16u);
    return vec2<u32>(high, a * b);
}

fn philox4x32(counter: vec4<u32>, key: vec2<u32>) -> vec4<u32> {
    var c = counter;
    var k = key;
    for (var round = 0u; round < 10u; round++) {
        let p0 = multiply_wide(0xd2511f53u, c.x);
        let p1 = multiply_wide(0xcd9e8d57u, c.z);
        c = vec4<u32>(p1.x ^ c.y ^ k.x, p1.y, p0.x ^ c.w ^ k.y, p0.y);
        k += vec2<u32>(0x9e3779b9u, 0xbb67ae85u);
    }
    return c;
}

// 128 random bits of one element of one stream at one step.
fn random_bits(element: u32, stream: u32, step: u32, seed_low: u32, seed_high: u32) -> vec4<u32> {
    return philox4x32(vec4<u32>(element, step, stream, 0u), vec2<u32>(seed_low, seed_high));
}

// [0, 1) in steps of 2^-24. (`uniform` is an address space: WGSL lets no module declare it.)
fn uniform01(bits: u32) -> f32 {
    return f32(bits >> 8u) * 5.9604644775390625e-8;
}

// Standard normal by Box-Muller, cosine branch.
fn normal(bits: vec4<u32>) -> f32 {
    let radius = sqrt(-2.0 * log(1.0 - uniform01(bits.x)));
    return radius * cos(6.283185307179586 * uniform01(bits.y));
}
