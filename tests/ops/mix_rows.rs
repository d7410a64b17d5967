//! Whole sequences of two tensors by a mask, against the twin.

use crate::{
    elementwise::sum,
    harness::{Array, Case, Input, catches},
};

fn twin(a: &Array, b: &Array, mask: &[f32], tokens: usize) -> Array {
    let width = a.width();
    let pick = |i: usize| if mask[i / width / tokens] != 0.0 { b.data[i] } else { a.data[i] };
    Array::new(a.shape.clone(), (0..a.data.len()).map(pick).collect())
}

fn outcome(case: Case, tokens: u32, width: u32, mask: &[f32]) -> Result<(), String> {
    let batch = mask.len() as u32;
    let inputs = [Input::normal("a", [batch * tokens, width]), Input::normal("b", [batch * tokens, width])];
    case.try_check(
        &inputs,
        |g, t| {
            let mask = g.constant("mask", [batch], mask.to_vec());
            vec![g.mix_rows(t[0], t[1], mask, tokens)]
        },
        |a| vec![twin(&a[0], &a[1], mask, tokens as usize)],
    )
}

#[test]
fn follows_the_twin() {
    for mask in [&[0.0][..], &[1.0], &[1.0, 0.0, 1.0], &[0.0, 1.0, -1.0, 0.0, 0.5, 0.0, 0.0]] {
        for [tokens, width] in [[1, 1], [3, 5], [13, 7], [5, 64], [67, 48]] {
            outcome(Case::new(format!("mix_rows {mask:?}, T = {tokens}, D = {width}")), tokens, width, mask).unwrap();
        }
    }
}

/// An operand without a gradient, and one tensor as both operands' source.
#[test]
fn hands_each_operand_its_part() {
    let mask = [0.0, 1.0, 1.0];
    let fixed = Input::normal("fixed", [6, 5]).array();
    let values: Vec<f32> = fixed.data.iter().map(|v| *v as f32).collect();
    Case::new("mix_rows(x, fixed) + mix_rows(fixed, x) + mix_rows(x, 2 x)").check(
        &[Input::normal("x", [6, 5])],
        |g, t| {
            let mask = g.constant("mask", [3], mask.to_vec());
            let fixed = g.constant("fixed", [6, 5], values.clone());
            let twice = g.scale(t[0], 2.0);
            let parts = [(t[0], fixed), (fixed, t[0]), (t[0], twice)].map(|(a, b)| g.mix_rows(a, b, mask, 2));
            let first = g.add(parts[0], parts[1]);
            vec![g.add(first, parts[2])]
        },
        |a| {
            let twice = sum(&a[0], &a[0]);
            let parts = [(&a[0], &fixed), (&fixed, &a[0]), (&a[0], &twice)].map(|(a, b)| twin(a, b, &mask, 2));
            vec![sum(&sum(&parts[0], &parts[1]), &parts[2])]
        },
    );
}

#[test]
fn catches_mutants_of_the_backward() {
    let mutants = [
        ("mix_rows", "== (params.wanted != 0u)", "== true"),
        ("mix_rows", "select(vec4<f32>(), load_d_y", "select(vec4<f32>(1.0), load_d_y"),
        ("mix_rows", "workgroup.z * params.tokens", "0u"),
    ];
    catches(&mutants, |case| outcome(case, 3, 7, &[1.0, 0.0, 0.0]));
    let mutants = [
        ("mix_rows_texels", "== (params.wanted != 0u)", "== true"),
        ("mix_rows_texels", "select(vec4<f32>(), load_d_y", "select(vec4<f32>(1.0), load_d_y"),
        ("mix_rows_texels", "workgroup.z * params.tokens", "0u"),
    ];
    catches(&mutants, |case| outcome(case, 19, 64, &[1.0, 0.0, 0.0]));
}
