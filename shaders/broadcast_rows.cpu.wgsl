// A row for all rows, for CPU rasterisers: broadcast_rows.wgsl with v and d_y read as images of [rows, 4 texels].
//
// requires: images

struct Params {
    rows: u32,
    texels: u32, // of a row, a multiple of 16
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var image_v: texture_2d<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(3) var image_d_y: texture_2d<f32>;
@group(0) @binding(4) var<storage, read_write> d_v: array<vec4<f32>>;

const COLUMNS = 16u; // texels of a row that a workgroup owns
const ROWS = 4u;
const REPEATS = 4u; // rows that an invocation owns, ROWS apart

// A workgroup owns 16 texels of 16 rows, an invocation every fourth row of one column.
@compute @workgroup_size(COLUMNS, ROWS)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let column = workgroup.x * COLUMNS + local.x;
    let texel = textureLoad(image_v, vec2<u32>(column, 0u), 0);
    @unroll for (var i = 0u; i < REPEATS; i++) {
        let row = workgroup.y * ROWS * REPEATS + local.y + i * ROWS;
        if (row < params.rows) {
            y[row * params.texels + column] = texel;
        }
    }
}

// An invocation owns a texel of d_v: it walks the rows in order.
@compute @workgroup_size(COLUMNS)
fn backward(@builtin(global_invocation_id) id: vec3<u32>) {
    var sum = vec4<f32>();
    for (var row = 0u; row < params.rows; row++) {
        sum += textureLoad(image_d_y, vec2<u32>(id.x, row), 0);
    }
    d_v[id.x] += sum;
}
