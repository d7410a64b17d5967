// Texels of images: blocks as matrices, and single ones by a flat index.

// The texels of one column in four rows from `row` on: a column of the matrix each.
fn four_rows(image: texture_2d<f32>, column: u32, row: u32) -> mat4x4<f32> {
    return mat4x4<f32>(
        textureLoad(image, vec2<u32>(column, row), 0),
        textureLoad(image, vec2<u32>(column, row + 1u), 0),
        textureLoad(image, vec2<u32>(column, row + 2u), 0),
        textureLoad(image, vec2<u32>(column, row + 3u), 0),
    );
}

// Rows of the tensor that lie side by side in a row of a folded image, which the host sets: more than one if the tensor has more rows
// than an image can.
override FOLD: u32 = 1u;

// four_rows of an image that may be folded.
fn four_folded_rows(image: texture_2d<f32>, column: u32, row: u32) -> mat4x4<f32> {
    if (FOLD == 1u) {
        return four_rows(image, column, row);
    }
    let width = textureDimensions(image).x / FOLD;
    let rows = vec4<u32>(row) + vec4<u32>(0u, 1u, 2u, 3u);
    let x = column + rows % FOLD * width;
    let y = rows / FOLD;
    return mat4x4<f32>(
        textureLoad(image, vec2<u32>(x[0], y[0]), 0),
        textureLoad(image, vec2<u32>(x[1], y[1]), 0),
        textureLoad(image, vec2<u32>(x[2], y[2]), 0),
        textureLoad(image, vec2<u32>(x[3], y[3]), 0),
    );
}

// Texel `index` of a tensor in an image whose rows are a power of two long, whatever the tensor's are: no division.
fn flat_texel(image: texture_2d<f32>, index: u32) -> vec4<f32> {
    let row_texels = textureDimensions(image).x;
    return textureLoad(image, vec2<u32>(index & (row_texels - 1u), index >> firstTrailingBit(row_texels)), 0);
}
