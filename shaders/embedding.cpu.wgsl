// The gradient of an embedding for CPU rasterisers, see embedding.wgsl: it needs no sorting, because an invocation that owns
// some columns of d_w walks all rows in order.
//
// requires: images
// fits: vocabulary <= 8192
// rank: 20

struct Params {
    rows: u32,
    width: u32,
    vocabulary: u32,
    scale: f32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(6) var d_y: texture_2d<f32>;
@group(0) @binding(7) var<storage, read_write> d_w: array<vec4<f32>>;

const LANES = 8u;

// An invocation owns a texel of columns and walks the rows in order.
// grid: width / 4 / LANES
@compute @workgroup_size(LANES)
fn backward_weight_in_order(@builtin(global_invocation_id) id: vec3<u32>) {
    for (var row = 0u; row < params.rows; row++) {
        let token = min(tokens[row], params.vocabulary - 1u);
        d_w[token * (params.width / 4u) + id.x] += params.scale * textureLoad(d_y, vec2<u32>(id.x, row), 0);
    }
}
