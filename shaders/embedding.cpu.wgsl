// Embedding for CPU rasterisers, see embedding.wgsl: w [vocabulary, 4 texels] and d_y [rows, 4 texels] are images.
// The gradient needs no sorting here: an invocation that owns some columns of d_w walks all rows in order.
//
// requires: images

struct Params {
    rows: u32,
    texels: u32, // of a row of width, a multiple of 16
    vocabulary: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(2) var image_w: texture_2d<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var image_d_y: texture_2d<f32>;
@group(0) @binding(5) var<storage, read_write> d_w: array<vec4<f32>>;

const INVOCATIONS = 8u;
const COLUMNS = 4u; // invocations along a row of 16 texels
const ROWS = 16u;
const TEXELS = 4u; // of an invocation, COLUMNS apart

fn token_of(n: u32) -> u32 {
    return min(tokens[n], params.vocabulary - 1u);
}

// A workgroup owns 16 texels of 16 rows, an invocation every fourth texel of one row.
@compute @workgroup_size(COLUMNS, ROWS)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let row = workgroup.y * ROWS + local.y;
    let column = workgroup.x * COLUMNS * TEXELS + local.x;
    if (row < params.rows) {
        let token = token_of(row);
        @unroll for (var i = 0u; i < TEXELS; i++) {
            let value = textureLoad(image_w, vec2<u32>(column + i * COLUMNS, token), 0);
            y[row * params.texels + column + i * COLUMNS] = params.scale * value;
        }
    }
}

// An invocation owns a texel of columns and walks the rows in order.
@compute @workgroup_size(INVOCATIONS)
fn backward_weight(@builtin(global_invocation_id) id: vec3<u32>) {
    for (var row = 0u; row < params.rows; row++) {
        d_w[token_of(row) * params.texels + id.x] += params.scale * textureLoad(image_d_y, vec2<u32>(id.x, row), 0);
    }
}
