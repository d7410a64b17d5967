// operand.wgsl where operands are read through texture images and results are buffers of whole texels: widths are multiples
// of four, as every row of an image is. By a flat index (`_from`) the image's rows are a power of two long.
//
// requires: images
// rank: 10

alias Operand = texture_2d<f32>;
alias Result = array<vec4<f32>>;
const WHOLE_GROUPS = true;

fn load_operand_from(first: u32, count: u32) -> vec4<f32> {
    return package::lib::texels::flat_texel(operand, first / 4u);
}

fn load_operand(at: vec2<u32>, width: u32) -> vec4<f32> {
    return textureLoad(operand, at, 0);
}

fn load_operand_of(at: vec2<u32>, width: u32, n: u32) -> vec4<f32> {
    return textureLoad(operand, at, 0);
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
