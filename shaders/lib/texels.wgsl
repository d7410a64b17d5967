// Blocks of texels of an image, as matrices.

// The texels of one column in four rows from `row` on: a column of the matrix each.
fn four_rows(image: texture_2d<f32>, column: u32, row: u32) -> mat4x4<f32> {
    return mat4x4<f32>(
        textureLoad(image, vec2<u32>(column, row), 0),
        textureLoad(image, vec2<u32>(column, row + 1u), 0),
        textureLoad(image, vec2<u32>(column, row + 2u), 0),
        textureLoad(image, vec2<u32>(column, row + 3u), 0),
    );
}
