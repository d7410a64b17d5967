// operand.vec4.wgsl with results of f16, for products on cooperative matrices where nothing else reads them (ops/halves.rs).
//
// requires: buffers, f16
// whole: rows
// rank: 1
// halves: results

alias Operand = array<vec4<f32>>;
alias Result = array<vec4<f16>>;
const WHOLE_GROUPS = true;

fn load_operand_from(first: u32, count: u32) -> vec4<f32> {
    return operand[first / 4u];
}

fn load_operand(at: vec2<u32>, width: u32) -> vec4<f32> {
    return operand[at.y * (width / 4u) + at.x];
}

fn load_operand_of(at: vec2<u32>, width: u32, n: u32) -> vec4<f32> {
    return operand[at.y * (width / 4u) + at.x];
}

fn store_result(at: vec2<u32>, width: u32, value: vec4<f32>) {
    result[at.y * (width / 4u) + at.x] = vec4<f16>(value);
}

fn store_result_of(at: vec2<u32>, width: u32, n: u32, value: vec4<f32>) {
    result[at.y * (width / 4u) + at.x] = vec4<f16>(value);
}
