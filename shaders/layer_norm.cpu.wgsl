// Layer norm for CPU rasterisers, see layer_norm.wgsl: operands are images of [rows, 4 texels], w and b of [1, 4 texels].
// One invocation reads a row three times; a tree over a workgroup would spend its time in barriers.
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
@group(0) @binding(3) var b: texture_2d<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> mean: array<f32>;
@group(0) @binding(6) var<storage, read_write> r: array<f32>;
@group(0) @binding(7) var d_y: texture_2d<f32>;
@group(0) @binding(8) var d_residual: texture_2d<f32>;
@group(0) @binding(9) var<storage, read_write> d_x: array<vec4<f32>>;
@group(0) @binding(10) var<storage, read_write> d_w: array<vec4<f32>>;
@group(0) @binding(11) var<storage, read_write> d_b: array<vec4<f32>>;

const ROWS = 8u; // of a workgroup
const UNROLL = 4u;

fn texels() -> u32 {
    return params.width / 4u;
}

fn mean_of(v: vec4<f32>) -> f32 {
    return ((v.x + v.y) + (v.z + v.w)) / f32(params.width);
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
            sum += textureLoad(x, vec2<u32>(column + i, row), 0);
        }
    }
    let center = mean_of(sum);
    var squares = vec4<f32>();
    for (var column = 0u; column < texels(); column += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            let value = textureLoad(x, vec2<u32>(column + i, row), 0) - center;
            squares += value * value;
        }
    }
    let scale = inverseSqrt(mean_of(squares) + params.eps);
    mean[row] = center;
    r[row] = scale;
    for (var column = 0u; column < texels(); column += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            let u = (textureLoad(x, vec2<u32>(column + i, row), 0) - center) * scale;
            let at = vec2<u32>(column + i, 0u);
            y[row * texels() + column + i] = u * textureLoad(w, at, 0) + textureLoad(b, at, 0);
        }
    }
}

// What a row's gradient takes from the row as a whole.
struct Row {
    center: f32,
    scale: f32,
    mean_g: f32,  // mean_j(g_j)
    mean_gu: f32, // mean_j(g_j u_j)
}

fn row_of(row: u32) -> Row {
    let center = mean[row];
    let scale = r[row];
    var sum_g = vec4<f32>();
    var sum_gu = vec4<f32>();
    for (var column = 0u; column < texels(); column += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            let at = vec2<u32>(column + i, row);
            let g = textureLoad(w, vec2<u32>(column + i, 0u), 0) * textureLoad(d_y, at, 0);
            sum_g += g;
            sum_gu += g * (textureLoad(x, at, 0) - center);
        }
    }
    return Row(center, scale, mean_of(sum_g), mean_of(sum_gu) * scale);
}

fn input_gradient(column: u32, row: u32, whole: Row) -> vec4<f32> {
    let at = vec2<u32>(column, row);
    let g = textureLoad(w, vec2<u32>(column, 0u), 0) * textureLoad(d_y, at, 0);
    let u = (textureLoad(x, at, 0) - whole.center) * whole.scale;
    return whole.scale * (g - whole.mean_g - u * whole.mean_gu);
}

// An invocation owns a row.
// grid: rows / ROWS
@compute @workgroup_size(ROWS)
fn backward(@builtin(global_invocation_id) id: vec3<u32>) {
    let row = id.x;
    if (row >= params.rows) {
        return;
    }
    let whole = row_of(row);
    for (var column = 0u; column < texels(); column += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            d_x[row * texels() + column + i] = input_gradient(column + i, row, whole);
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
    let whole = row_of(row);
    for (var column = 0u; column < texels(); column += UNROLL) {
        @unroll for (var i = 0u; i < UNROLL; i++) {
            let residual = textureLoad(d_residual, vec2<u32>(column + i, row), 0);
            d_x[row * texels() + column + i] = residual + input_gradient(column + i, row, whole);
        }
    }
}

// An invocation owns a texel of columns and walks the rows in order.
// grid: width / 4 / ROWS
@compute @workgroup_size(ROWS)
fn backward_weight_in_order(@builtin(global_invocation_id) id: vec3<u32>) {
    var sum_w = vec4<f32>();
    var sum_b = vec4<f32>();
    for (var row = 0u; row < params.rows; row++) {
        let at = vec2<u32>(id.x, row);
        let d = textureLoad(d_y, at, 0);
        sum_w += d * ((textureLoad(x, at, 0) - mean[row]) * r[row]);
        sum_b += d;
    }
    d_w[id.x] += sum_w;
    d_b[id.x] += sum_b;
}
