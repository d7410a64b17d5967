// Columns of one tensor as two, for CPU rasterisers: split_columns.wgsl with its operands read through images by flat
// texels. All widths are in texels.
//
// requires: images

import package::lib::texels::flat_texel;

struct Params {
    rows: u32,
    left_width: u32,
    right_width: u32,
    has_left: u32,  // whether left has a gradient
    has_right: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var x: texture_2d<f32>;
@group(0) @binding(2) var<storage, read_write> left: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> right: array<vec4<f32>>;
@group(0) @binding(4) var d_left: texture_2d<f32>;
@group(0) @binding(5) var d_right: texture_2d<f32>;
@group(0) @binding(6) var<storage, read_write> d_x: array<vec4<f32>>;

const COLUMNS = 16u; // texels of a row that a workgroup owns
const ROWS = 4u;
const REPEATS = 4u; // rows that an invocation owns, ROWS apart

// A workgroup owns 16 texels of 16 rows of x, an invocation every fourth row of one column.
@compute @workgroup_size(COLUMNS, ROWS)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let column = workgroup.x * COLUMNS + local.x;
    let width = params.left_width + params.right_width;
    for (var i = 0u; i < REPEATS; i++) {
        let row = workgroup.y * ROWS * REPEATS + local.y + i * ROWS;
        if (row < params.rows && column < width) {
            let texel = flat_texel(x, row * width + column);
            if (column < params.left_width) {
                left[row * params.left_width + column] = texel;
            } else {
                right[row * params.right_width + column - params.left_width] = texel;
            }
        }
    }
}

// A workgroup owns 16 texels of 16 rows of d_x, an invocation every fourth row of one column.
@compute @workgroup_size(COLUMNS, ROWS)
fn backward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let column = workgroup.x * COLUMNS + local.x;
    let width = params.left_width + params.right_width;
    for (var i = 0u; i < REPEATS; i++) {
        let row = workgroup.y * ROWS * REPEATS + local.y + i * ROWS;
        if (row < params.rows && column < width) {
            var gradient = vec4<f32>();
            if (column < params.left_width) {
                if (params.has_left != 0u) {
                    gradient = flat_texel(d_left, row * params.left_width + column);
                }
            } else if (params.has_right != 0u) {
                gradient = flat_texel(d_right, row * params.right_width + column - params.left_width);
            }
            d_x[row * width + column] = gradient;
        }
    }
}
