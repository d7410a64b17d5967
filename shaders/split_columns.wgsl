// Columns of x [rows, A + B] as two tensors, left [rows, A] and right [rows, B]. Backward joins their gradients; one that is
// absent counts as zero and is not read.
//
// fits_groups: left_width % 4 == 0 && right_width % 4 == 0
// flat: x, d_left, d_right

import package::lib::operand::{Operand, Result};
import package::lib::rows::{COLUMNS, REPEATS, ROWS, TILE_ROWS, TILE_WIDTH, place};

struct Params {
    rows: u32,
    left_width: u32,
    right_width: u32,
    has_left: u32,  // whether left has a gradient
    has_right: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: Operand;
@group(0) @binding(2) var<storage, read_write> left: Result;
@group(0) @binding(3) var<storage, read_write> right: Result;
@group(0) @binding(4) var<storage, read> d_left: Operand;
@group(0) @binding(5) var<storage, read> d_right: Operand;
@group(0) @binding(6) var<storage, read_write> d_x: Result;

// The groups of four of both sides, one after the other: the last of each may be short.
struct Group {
    is_left: bool,
    first: u32, // column of the side
    count: u32, // columns; 0 beyond the end
}

fn group_of(index: u32) -> Group {
    let left_groups = (params.left_width + 3u) / 4u;
    let is_left = index < left_groups;
    let width = select(params.right_width, params.left_width, is_left);
    let first = 4u * select(index - left_groups, index, is_left);
    return Group(is_left, first, select(0u, width - first, first < width));
}

// grid: (left_width / 4 + right_width / 4) / COLUMNS, rows / TILE_ROWS
@compute @workgroup_size(COLUMNS, ROWS)
fn forward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let group = group_of(place(workgroup, local, 0u).x);
    for (var i = 0u; i < REPEATS; i++) {
        let row = place(workgroup, local, i).y;
        if (row < params.rows && group.count > 0u) {
            let start = row * (params.left_width + params.right_width);
            if (group.is_left) {
                store_left_from(row * params.left_width + group.first, group.count, load_x_from(start + group.first, group.count));
            } else {
                let value = load_x_from(start + params.left_width + group.first, group.count);
                store_right_from(row * params.right_width + group.first, group.count, value);
            }
        }
    }
}

// grid: (left_width / 4 + right_width / 4) / COLUMNS, rows / TILE_ROWS
@compute @workgroup_size(COLUMNS, ROWS)
fn backward(@builtin(workgroup_id) workgroup: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let group = group_of(place(workgroup, local, 0u).x);
    for (var i = 0u; i < REPEATS; i++) {
        let row = place(workgroup, local, i).y;
        if (row < params.rows && group.count > 0u) {
            let start = row * (params.left_width + params.right_width);
            var gradient = vec4<f32>();
            if (group.is_left) {
                if (params.has_left != 0u) {
                    gradient = load_d_left_from(row * params.left_width + group.first, group.count);
                }
                store_d_x_from(start + group.first, group.count, gradient);
            } else {
                if (params.has_right != 0u) {
                    gradient = load_d_right_from(row * params.right_width + group.first, group.count);
                }
                store_d_x_from(start + params.left_width + group.first, group.count, gradient);
            }
        }
    }
}
