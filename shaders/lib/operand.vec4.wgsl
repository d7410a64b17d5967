// operand.wgsl for rows of whole groups of four, which GPUs load and store at once.
//
// requires: buffers
// whole: rows
// rank: 5

alias Operand = array<vec4<f32>>;
alias Result = array<vec4<f32>>;
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

fn store_result_from(first: u32, count: u32, value: vec4<f32>) {
    result[first / 4u] = value;
}

fn store_result(at: vec2<u32>, width: u32, value: vec4<f32>) {
    result[at.y * (width / 4u) + at.x] = value;
}

fn store_result_of(at: vec2<u32>, width: u32, n: u32, value: vec4<f32>) {
    result[at.y * (width / 4u) + at.x] = value;
}

fn add_to_result(at: vec2<u32>, width: u32, value: vec4<f32>) {
    result[at.y * (width / 4u) + at.x] += value;
}
