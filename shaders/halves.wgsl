// The elements of a tensor as f16, for products on cooperative matrices: rounded, or split into two, x = high + low / 2^11, which
// together have 22 bits. Source: Ootomo and Yokota, "Recovering single precision accuracy from Tensor Cores", 2022.
//
// requires: f16

import package::lib::index::flat_workgroup;

enable f16;

@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<mat2x4<f16>>; // eight elements each

const INVOCATIONS = 256u;

// An invocation owns eight elements.
// fits: len(x) % 8 == 0
// grid: len(x) / 8 / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn round(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    if (i < arrayLength(&y)) {
        y[i] = mat2x4<f16>(vec4<f16>(x[2u * i]), vec4<f16>(x[2u * i + 1u]));
    }
}

// x rounded to the 11 bits of an f16, and 0 below the smallest normal one: adapters may flush what is smaller. Not f32(f16(x)), which
// compilers may take for x (Mesa does): nothing would be left for the low half.
fn high(x: f32) -> f32 {
    let bits = bitcast<u32>(x);
    let rounded = bitcast<f32>((bits + 0x1000u) & 0xffffe000u);
    return select(rounded, 0.0, abs(x) < 6.103515625e-5); // 2^-14: naga 30 takes 0x1p-14 for another number
}

fn high_of(x: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(high(x.x), high(x.y), high(x.z), high(x.w));
}

// y [2, len(x)]: high halves, then low ones. An invocation owns eight elements.
// fits: len(x) % 8 == 0
// grid: len(x) / 8 / INVOCATIONS
@compute @workgroup_size(INVOCATIONS)
fn split(
    @builtin(workgroup_id) workgroup: vec3<u32>,
    @builtin(num_workgroups) workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let i = flat_workgroup(workgroup, workgroups) * INVOCATIONS + local;
    let count = arrayLength(&y) / 2u;
    if (i < count) {
        let first = x[2u * i];
        let second = x[2u * i + 1u];
        let high_first = high_of(first);
        let high_second = high_of(second);
        y[i] = mat2x4<f16>(vec4<f16>(high_first), vec4<f16>(high_second));
        y[count + i] = mat2x4<f16>(vec4<f16>((first - high_first) * 2048.0), vec4<f16>((second - high_second) * 2048.0));
    }
}
