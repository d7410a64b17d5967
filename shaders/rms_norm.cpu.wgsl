// Root-mean-square norm for CPU rasterisers, see rms_norm.wgsl: operands are images of [rows, 4 texels], w of [1, 4 texels].
// One invocation reads a row twice; a tree over a workgroup would spend its time in barriers.
//
// requires: images

struct Params {
    rows: u32,
    texels: u32, // of a row, a multiple of 16
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var image_x: texture_2d<f32>;
@group(0) @binding(2) var image_w: texture_2d<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> r: array<f32>;
@group(0) @binding(5) var image_d_y: texture_2d<f32>;
@group(0) @binding(6) var image_residual: texture_2d<f32>;
@group(0) @binding(7) var<storage, read_write> d_x: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> d_w: array<vec4<f32>>;

const ROWS = 8u; // of a workgroup
const UNROLL = 4u;

fn total(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// r^2 mean_j(w_j d_y_j x_j)
fn projection(row: u32, scale: f32) -> f32 {
    var sum = vec4<f32>();
    for (var column = 0u; column < params.texels; column += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            let at = vec2<u32>(column + i, row);
            sum += textureLoad(image_w, vec2<u32>(column + i, 0u), 0) * textureLoad(image_d_y, at, 0) * textureLoad(image_x, at, 0);
        }
    }
    return total(sum) / f32(params.texels * 4u) * scale * scale;
}

fn input_gradient(column: u32, row: u32, scale: f32, mean: f32) -> vec4<f32> {
    let at = vec2<u32>(column, row);
    let d_unit = textureLoad(image_w, vec2<u32>(column, 0u), 0) * textureLoad(image_d_y, at, 0);
    return scale * (d_unit - textureLoad(image_x, at, 0) * mean);
}

// An invocation owns a row.
@compute @workgroup_size(ROWS)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= params.rows) {
        return;
    }
    var sum = vec4<f32>();
    for (var column = 0u; column < params.texels; column += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            let value = textureLoad(image_x, vec2<u32>(column + i, row), 0);
            sum += value * value;
        }
    }
    let scale = inverseSqrt(total(sum) / f32(params.texels * 4u) + params.eps);
    r[row] = scale;
    for (var column = 0u; column < params.texels; column += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            let value = textureLoad(image_x, vec2<u32>(column + i, row), 0);
            y[row * params.texels + column + i] = value * scale * textureLoad(image_w, vec2<u32>(column + i, 0u), 0);
        }
    }
}

// An invocation owns a row.
@compute @workgroup_size(ROWS)
fn backward(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= params.rows) {
        return;
    }
    let scale = r[row];
    let mean = projection(row, scale);
    for (var column = 0u; column < params.texels; column += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            d_x[row * params.texels + column + i] = input_gradient(column + i, row, scale, mean);
        }
    }
}

// As backward, plus the gradient that the residual connection has brought. An invocation owns a row.
@compute @workgroup_size(ROWS)
fn backward_residual(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= params.rows) {
        return;
    }
    let scale = r[row];
    let mean = projection(row, scale);
    for (var column = 0u; column < params.texels; column += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            let residual = textureLoad(image_residual, vec2<u32>(column + i, row), 0);
            d_x[row * params.texels + column + i] = residual + input_gradient(column + i, row, scale, mean);
        }
    }
}

// An invocation owns a texel of columns and walks the rows in order.
@compute @workgroup_size(ROWS)
fn backward_weight(@builtin(global_invocation_id) id: vec3<u32>) {
    var sum = vec4<f32>();
    for (var row = 0u; row < params.rows; row++) {
        let at = vec2<u32>(id.x, row);
        sum += r[row] * textureLoad(image_d_y, at, 0) * textureLoad(image_x, at, 0);
    }
    d_w[id.x] += sum;
}
