//! Columns of one tensor as two, against their twin, with both gradients and with either absent.

use moelab::{gpu::Tensor, ops::Graph};

use crate::harness::{Array, Case, Input, catches};

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
    for shape in [[1, 1, 1], [3, 5, 2], [17, 48, 16], [1, 64, 64], [131, 7, 13], [2, 1, 191], [67, 128, 64]] {
        for sides in [&[0, 1][..], &[0], &[1]] {
            outcome(Case::new(format!("split_columns {shape:?}, gradients of {sides:?}")), shape, sides).unwrap();
        }
    }
}

#[test]
fn catches_mutants_of_the_backward() {
    let mutants = [
        ("split_columns", "params.left_width + column]", "params.right_width + column]"),
        ("split_columns", "d_right[row * params.right_width + column - params.left_width]", "d_right[row * params.right_width]"),
        ("split_columns", "d_x[i] = gradient", "d_x[i] = -gradient"),
    ];
    catches(&mutants, |case| outcome(case, [19, 7, 5], &[0, 1]));
    catches(&[("split_columns", "params.has_left != 0u", "true")], |case| outcome(case, [19, 7, 5], &[1]));
    catches(&[("split_columns", "params.has_right != 0u", "true")], |case| outcome(case, [19, 7, 5], &[0]));
}
