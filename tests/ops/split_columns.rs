//! Columns of one tensor as two, against their twin, with both gradients and with either absent.

use moelab::{gpu::Tensor, ops::Graph};

use crate::harness::{Array, Case, Input, catches, device, run, tiers};

fn twin(x: &Array, left: usize) -> [Array; 2] {
    let rows = x.data.len() / x.width();
    let side = |from: usize, to: usize| Array::new([rows, to - from], x.rows().flat_map(|row| row[from..to].to_vec()).collect());
    [side(0, left), side(left, x.width())]
}

/// `sides` are the outputs that get a gradient.
fn outcome(case: Case, [rows, left, right]: [u32; 3], sides: &[usize]) -> Result<(), String> {
    let split = |g: &mut Graph, t: &[Tensor]| {
        let (left, right) = g.split_columns(t[0], left);
        sides.iter().map(|i| [left, right][*i]).collect()
    };
    let wanted = |a: &[Array]| sides.iter().map(|i| twin(&a[0], left as usize)[*i].clone()).collect();
    case.try_check(&[Input::normal("x", [rows, left + right])], split, wanted)
}

#[test]
fn follows_the_twin() {
    for shape in [[1, 1, 1], [3, 5, 2], [17, 48, 16], [1, 64, 64], [131, 7, 13], [2, 1, 191], [67, 128, 64], [16, 12, 8]] {
        for sides in [&[0, 1][..], &[0], &[1]] {
            outcome(Case::new(format!("split_columns {shape:?}, gradients of {sides:?}")), shape, sides).unwrap();
        }
    }
}

/// Its images need rows of more than 64 elements to stay within the longest side.
#[test]
fn large_tensors_are_split_as_they_are() {
    let [rows, width, left] = [2048, 320, 64];
    let values: Vec<f32> = (0..rows * width).map(|i| i as f32).collect();
    let sides = [0..left, left..width].map(|side| values.chunks(width).flat_map(|row| row[side.clone()].to_vec()).collect::<Vec<f32>>());
    let x = [Input::values("x", [rows as u32, width as u32], values)];
    let tiers = tiers(&device()); // not in the loop's head, which would hold the device
    for tier in tiers {
        let outputs = run(tier, &x, |g, t| <[Tensor; 2]>::from(g.split_columns(t[0], left as u32)).to_vec());
        assert!(outputs == sides, "{tier:?}");
    }
}

#[test]
fn catches_mutants_of_the_backward() {
    let mutants = [
        ("split_columns", "row * params.left_width + group.first", "row * params.right_width + group.first"),
        ("split_columns", "row * params.right_width + group.first", "row * params.right_width"),
        ("split_columns", "group.count, gradient", "group.count, -gradient"),
    ];
    catches(&mutants, |case| outcome(case, [19, 7, 5], &[0, 1]));
    catches(&[("split_columns", "params.has_left != 0u", "true")], |case| outcome(case, [19, 7, 5], &[1]));
    catches(&[("split_columns", "params.has_right != 0u", "true")], |case| outcome(case, [19, 7, 5], &[0]));
    let mutants = [
        ("split_columns_texels", "row * params.right_width + group.first", "row * params.right_width"),
        ("split_columns_texels", "load_d_left_from(row * params.left_width + ", "load_d_left_from("),
    ];
    catches(&mutants, |case| outcome(case, [16, 12, 8], &[0, 1]));
    catches(&[("split_columns_texels", "params.has_left != 0u", "true")], |case| outcome(case, [16, 12, 8], &[1]));
    catches(&[("split_columns_texels", "params.has_right != 0u", "true")], |case| outcome(case, [16, 12, 8], &[0]));
}
