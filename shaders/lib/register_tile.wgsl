// The inner product of two tiles of 64x64 staged in workgroup memory, for invocations that own 8x4 elements each: three vec4s
// are read for 32 multiply-adds. Both tiles are staged with k outermost and four rows (columns) to a vec4, in blocks of 4x4
// elements, which pass through registers, so that the loads of one step overlap with the arithmetic of the step before.
// Neighbours form patches of 4x8 invocations, which together read the fewest vec4s; a stride of an odd number of vec4s keeps
// them in different banks.
//
// On an NVIDIA H200 (driver 580) it reaches 0.72 to 0.87 of cuBLAS at the sizes of small models and 0.65 to 0.71 at 4096
// (benches/results/2026-11-27-h200-products.jsonl, `s64x8x4`). Of two dozen shapes of tile none was more than 6 % faster where tiles fill
// the card, but 4x8 elements for the form tn alone (up to 13 %); where tiles do not, those of 32x32 are up to a third faster. Tiles of
// 128x128 were no faster at 4096 and a quarter slower at width 384.

const REGISTER_TILE = 64u;   // rows and columns of y that a workgroup owns
const REGISTER_LANES = 128u; // invocations of a workgroup
const REGISTER_DEPTH = 16u;  // of k staged at a time
const REGISTER_STRIDE = 17u; // vec4s from one k to the next
const STAGED = 272u;         // vec4s of one tile: REGISTER_DEPTH * REGISTER_STRIDE

var<workgroup> sh_tiles: array<vec4<f32>, 544>; // a, then b: [k][row / 4]

// The block of 4x4 elements that an invocation stages: (0 for a, 1 for b; four rows or columns; four k). Neighbours stage along
// what lies contiguous in memory.
fn staging_block(local: u32, a_is_transposed: bool, b_is_transposed: bool) -> vec3<u32> {
    let operand = local / REGISTER_TILE;
    let block = local % REGISTER_TILE;
    let is_k_contiguous = select(!a_is_transposed, b_is_transposed, operand == 1u);
    let along = vec2<u32>(block / 4u, block % 4u);
    let across = vec2<u32>(block % 16u, block / 16u);
    return vec3<u32>(operand, select(across, along, is_k_contiguous));
}

// Stages a block; its column i holds k + i.
fn stage(place: vec3<u32>, block: mat4x4<f32>) {
    let to = place.x * STAGED + 4u * place.z * REGISTER_STRIDE + place.y;
    @unroll for (var i = 0u; i < 4u; i++) {
        sh_tiles[to + i * REGISTER_STRIDE] = block[i];
    }
}

// An invocation's place in the tile: it owns the rows 4 x + 0 .. 3 and 32 more, of the columns 4 y + 0 .. 3.
fn register_place(local: u32) -> vec2<u32> {
    let lane = local % 32u;
    return vec2<u32>(local / 64u * 4u + lane / 8u, local / 32u % 2u * 8u + lane % 8u);
}

// Adds the product of the staged tiles to an invocation's 8x4 elements.
fn multiply_registers(local: u32, sum: ptr<function, array<vec4<f32>, 8>>) {
    let place = register_place(local);
    for (var k = 0u; k < REGISTER_DEPTH; k++) {
        let low = sh_tiles[k * REGISTER_STRIDE + place.x];
        let high = sh_tiles[k * REGISTER_STRIDE + 8u + place.x];
        let b = sh_tiles[STAGED + k * REGISTER_STRIDE + place.y];
        @unroll for (var i = 0u; i < 4u; i++) {
            (*sum)[i] = fma(vec4<f32>(low[i]), b, (*sum)[i]);
            (*sum)[4u + i] = fma(vec4<f32>(high[i]), b, (*sum)[4u + i]);
        }
    }
}

// Row `i` of an invocation's 8x4 elements: (row, column / 4) from the tile's first.
fn register_row(local: u32, i: u32) -> vec2<u32> {
    let place = register_place(local);
    return vec2<u32>(i / 4u * 32u + 4u * place.x + i % 4u, place.y);
}
