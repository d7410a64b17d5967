// Whole sequences of two tensors by a mask, for CPU rasterisers: mix_rows.wgsl with operands read as images of
// [N, 4 texels].
//
// requires: images

struct Params {
    tokens: u32, // T
    texels: u32, // of a row, a multiple of 16
    wanted: u32, // whose gradient: 0 = a, 1 = b
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var image_a: texture_2d<f32>;
@group(0) @binding(2) var image_b: texture_2d<f32>;
@group(0) @binding(3) var<storage, read> mask: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(5) var image_d_y: texture_2d<f32>;
@group(0) @binding(6) var<storage, read_write> d_x: array<vec4<f32>>;

const COLUMNS = 16u; // texels of a row that a workgroup owns
const ROWS = 4u;
const REPEATS = 4u; // rows that an invocation owns, ROWS apart

// A workgroup owns 16 texels of 16 rows of a sequence, an invocation every fourth row of one column.
@compute @workgroup_size(COLUMNS, ROWS)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let column = workgroup.x * COLUMNS + local.x;
    let takes_b = mask[workgroup.z] != 0.0;
    @unroll for (var i = 0u; i < REPEATS; i++) {
        let token = workgroup.y * ROWS * REPEATS + local.y + i * ROWS;
        if (token < params.tokens) {
            let row = workgroup.z * params.tokens + token;
            let at = vec2<u32>(column, row);
            y[row * params.texels + column] = select(textureLoad(image_a, at, 0), textureLoad(image_b, at, 0), takes_b);
        }
    }
}

// A workgroup owns 16 texels of 16 rows of a sequence, an invocation every fourth row of one column.
@compute @workgroup_size(COLUMNS, ROWS)
fn backward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let column = workgroup.x * COLUMNS + local.x;
    let is_taken = (mask[workgroup.z] != 0.0) == (params.wanted != 0u);
    @unroll for (var i = 0u; i < REPEATS; i++) {
        let token = workgroup.y * ROWS * REPEATS + local.y + i * ROWS;
        if (token < params.tokens) {
            let row = workgroup.z * params.tokens + token;
            let texel = textureLoad(image_d_y, vec2<u32>(column, row), 0);
            d_x[row * params.texels + column] = select(vec4<f32>(), texel, is_taken);
        }
    }
}
