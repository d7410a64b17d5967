// Element by element, for CPU rasterisers: operands are images of [rows, 4 texels], see elementwise.wgsl.
//
// requires: images

struct Params {
    rows: u32,
    texels: u32, // of a row, a multiple of 16
    factor: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var image_a: texture_2d<f32>;
@group(0) @binding(2) var image_b: texture_2d<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

const COLUMNS = 16u; // texels of a row that a workgroup owns
const ROWS = 4u;
const REPEATS = 4u; // rows that an invocation owns, ROWS apart

// A workgroup owns 16 texels of 16 rows, an invocation every fourth row of one column.
@compute @workgroup_size(COLUMNS, ROWS)
fn add(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let column = workgroup.x * COLUMNS + local.x;
    let first = workgroup.y * ROWS * REPEATS + local.y;
    @unroll for (var i = 0u; i < REPEATS; i++) {
        let row = first + i * ROWS;
        if (row < params.rows) {
            let at = vec2<u32>(column, row);
            y[row * params.texels + column] = textureLoad(image_a, at, 0) + textureLoad(image_b, at, 0);
        }
    }
}

// A workgroup owns 16 texels of 16 rows, an invocation every fourth row of one column.
@compute @workgroup_size(COLUMNS, ROWS)
fn scale(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let column = workgroup.x * COLUMNS + local.x;
    let first = workgroup.y * ROWS * REPEATS + local.y;
    @unroll for (var i = 0u; i < REPEATS; i++) {
        let row = first + i * ROWS;
        if (row < params.rows) {
            y[row * params.texels + column] = params.factor * textureLoad(image_a, vec2<u32>(column, row), 0);
        }
    }
}
