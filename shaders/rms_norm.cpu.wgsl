// Root-mean-square norm for CPU rasterisers, see rms_norm.wgsl: operands are images of [rows, 4 texels], w of [1, 4 texels].
// One invocation reads a row twice; a tree over a workgroup would spend its time in barriers.
//
// requires: images
// rank: 10

struct Params {
    rows: u32,
    width: u32,
    eps: f32,
    blocks: u32, // of the portable source
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var x: texture_2d<f32>;
@group(0) @binding(2) var w: texture_2d<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> r: array<f32>;
@group(0) @binding(5) var d_y: texture_2d<f32>;
@group(0) @binding(6) var d_residual: texture_2d<f32>;
@group(0) @binding(7) var<storage, read_write> d_x: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> d_w: array<vec4<f32>>;
@group(0) @binding(9) var a: texture_2d<f32>;
@group(0) @binding(10) var b: texture_2d<f32>;
@group(0) @binding(11) var<storage, read_write> added: array<vec4<f32>>;

const ROWS = 8u; // of a workgroup
const UNROLL = 4u;

fn texels() -> u32 {
    return params.width / 4u;
}

fn total(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// r^2 mean_j(w_j d_y_j x_j)
fn projection(row: u32, scale: f32) -> f32 {
    var sum = vec4<f32>();
    for (var column = 0u; column < texels(); column += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            let at = vec2<u32>(column + i, row);
            sum += textureLoad(w, vec2<u32>(column + i, 0u), 0) * textureLoad(d_y, at, 0) * textureLoad(x, at, 0);
        }
    }
    return total(sum) / f32(params.width) * scale * scale;
}

fn input_gradient(column: u32, row: u32, scale: f32, mean: f32) -> vec4<f32> {
    let at = vec2<u32>(column, row);
    let d_unit = textureLoad(w, vec2<u32>(column, 0u), 0) * textureLoad(d_y, at, 0);
    return scale * (d_unit - textureLoad(x, at, 0) * mean);
}

// An invocation owns a row.
// grid: rows / ROWS
@compute @workgroup_size(ROWS)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= params.rows) {
        return;
    }
    var sum = vec4<f32>();
    for (var column = 0u; column < texels(); column += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            let value = textureLoad(x, vec2<u32>(column + i, row), 0);
            sum += value * value;
        }
    }
    let scale = inverseSqrt(total(sum) / f32(params.width) + params.eps);
    r[row] = scale;
    for (var column = 0u; column < texels(); column += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            let value = textureLoad(x, vec2<u32>(column + i, row), 0);
            y[row * texels() + column + i] = value * scale * textureLoad(w, vec2<u32>(column + i, 0u), 0);
        }
    }
}

// As forward, of a + b, which is written as well. An invocation owns a row.
// grid: rows / ROWS
@compute @workgroup_size(ROWS)
fn add_forward(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= params.rows) {
        return;
    }
    var sum = vec4<f32>();
    for (var column = 0u; column < texels(); column += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            let at = vec2<u32>(column + i, row);
            let value = textureLoad(a, at, 0) + textureLoad(b, at, 0);
            sum += value * value;
        }
    }
    let scale = inverseSqrt(total(sum) / f32(params.width) + params.eps);
    r[row] = scale;
    for (var column = 0u; column < texels(); column += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            let at = vec2<u32>(column + i, row);
            let value = textureLoad(a, at, 0) + textureLoad(b, at, 0);
            added[row * texels() + column + i] = value;
            y[row * texels() + column + i] = value * scale * textureLoad(w, vec2<u32>(column + i, 0u), 0);
        }
    }
}

// An invocation owns a row.
// grid: rows / ROWS
@compute @workgroup_size(ROWS)
fn backward(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= params.rows) {
        return;
    }
    let scale = r[row];
    let mean = projection(row, scale);
    for (var column = 0u; column < texels(); column += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            d_x[row * texels() + column + i] = input_gradient(column + i, row, scale, mean);
        }
    }
}

// As backward, plus the gradient that the residual connection has brought. An invocation owns a row.
// grid: rows / ROWS
@compute @workgroup_size(ROWS)
fn backward_residual(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= params.rows) {
        return;
    }
    let scale = r[row];
    let mean = projection(row, scale);
    for (var column = 0u; column < texels(); column += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            let residual = textureLoad(d_residual, vec2<u32>(column + i, row), 0);
            d_x[row * texels() + column + i] = residual + input_gradient(column + i, row, scale, mean);
        }
    }
}

// An invocation owns a texel of columns and walks the rows in order.
// grid: width / 4 / ROWS
@compute @workgroup_size(ROWS)
fn backward_weight_in_order(@builtin(global_invocation_id) id: vec3<u32>) {
    var sum = vec4<f32>();
    for (var row = 0u; row < params.rows; row++) {
        let at = vec2<u32>(id.x, row);
        sum += r[row] * textureLoad(d_y, at, 0) * textureLoad(x, at, 0);
    }
    d_w[id.x] += sum;
}
