// Column sums in one launch, for CPU rasterisers: x [rows, width] read as texels, its rows in order.
//
// requires: images
// rank: 10

struct Params {
    rows: u32,
    width: u32,
    period: u32,
    blocks: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var x: texture_2d<f32>;
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<f32>>;

const LANES = 8u;

// An invocation owns a texel of a row of the sums, y of the grid, and walks the rows that belong to it.
// grid: width / 4 / LANES, period
@compute @workgroup_size(LANES)
fn sums_in_order(@builtin(global_invocation_id) id: vec3<u32>) {
    var sum = vec4<f32>();
    for (var row = id.y; row < params.rows; row += params.period) {
        sum += textureLoad(x, vec2<u32>(id.x, row), 0);
    }
    sums[id.y * (params.width / 4u) + id.x] += sum;
}
