// The inner product of two tiles staged in workgroup memory, for 256 invocations that own 4x4 elements each of a
// 64x64 tile. Both tiles are staged with k outermost and four rows (columns) to a vec4, so that an invocation reads
// two vec4s for 16 multiply-adds; a stride of 17 keeps neighbours in different banks.

const TILE = 64u;        // rows and columns of y that a workgroup owns
const TILE_DEPTH = 16u;  // of k staged at a time
const TILE_STRIDE = 17u;

var<workgroup> sh_a: array<vec4<f32>, 272>; // [k][row / 4]
var<workgroup> sh_b: array<vec4<f32>, 272>; // [k][column / 4]

// Where an invocation stages: (k, four rows or columns). Neighbours stage along what lies contiguous in memory.
fn staging_place(local: u32, k_is_contiguous: bool) -> vec2<u32> {
    return select(vec2<u32>(local / 16u, local % 16u), vec2<u32>(local % 16u, local / 16u), k_is_contiguous);
}

// Adds the product of the staged tiles to an invocation's 4x4 elements; column i of the matrix is row i of y.
fn multiply_staged(local: u32, start: mat4x4<f32>) -> mat4x4<f32> {
    var sum = start;
    for (var k = 0u; k < TILE_DEPTH; k++) {
        let a = sh_a[k * TILE_STRIDE + local / 16u];
        let b = sh_b[k * TILE_STRIDE + local % 16u];
        sum[0] = fma(vec4<f32>(a.x), b, sum[0]);
        sum[1] = fma(vec4<f32>(a.y), b, sum[1]);
        sum[2] = fma(vec4<f32>(a.z), b, sum[2]);
        sum[3] = fma(vec4<f32>(a.w), b, sum[3]);
    }
    return sum;
}
