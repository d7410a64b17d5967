// Biases of rows for CPU rasterisers, see add_bias.wgsl: operands are images of [rows, 4 texels]. Rows of b come round
// with a period, 1 for a bias and T for positions, because a whole sequence is too wide for one row of an image.
//
// requires: images

struct Params {
    rows: u32,
    texels: u32, // of a row, a multiple of 16
    period: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var image_x: texture_2d<f32>;
@group(0) @binding(2) var image_b: texture_2d<f32>; // [period or more, 4 texels]
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var image_d_y: texture_2d<f32>;
@group(0) @binding(5) var<storage, read_write> d_b: array<vec4<f32>>;

const COLUMNS = 16u; // texels of a row that a workgroup owns
const ROWS = 4u;
const REPEATS = 4u; // rows that an invocation owns, ROWS apart
const INVOCATIONS = 8u;

// A workgroup owns 16 texels of 16 rows, an invocation every fourth row of one column.
@compute @workgroup_size(COLUMNS, ROWS)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let column = workgroup.x * COLUMNS + local.x;
    let first = workgroup.y * ROWS * REPEATS + local.y;
    @unroll for (var i = 0u; i < REPEATS; i++) {
        let row = first + i * ROWS;
        if (row < params.rows) {
            let bias = textureLoad(image_b, vec2<u32>(column, row % params.period), 0);
            y[row * params.texels + column] = textureLoad(image_x, vec2<u32>(column, row), 0) + bias;
        }
    }
}

// An invocation owns a texel of a row of d_b, y of the grid, and walks the rows that took it in order.
@compute @workgroup_size(INVOCATIONS)
fn backward_bias(@builtin(global_invocation_id) id: vec3<u32>) {
    var sum = vec4<f32>();
    for (var row = id.y; row < params.rows; row += params.period) {
        sum += textureLoad(image_d_y, vec2<u32>(id.x, row), 0);
    }
    d_b[id.y * params.texels + id.x] += sum;
}
