//! Heads without their padding, against their twin.

use crate::harness::{Array, Case, Input, catches};

fn twin(x: &Array, heads: usize, value: usize) -> Array {
    let width = x.width() / heads;
    let y = x.data.chunks(width).flat_map(|head| head[..value].to_vec()).collect();
    Array::new([x.data.len() / x.width(), heads * value], y)
}

fn outcome(case: Case, rows: u32, [heads, width, value]: [u32; 3]) -> Result<(), String> {
    case.try_check(
        &[Input::normal("x", [rows, heads * width])],
        |g, t| vec![g.take_heads(t[0], heads, width, value)],
        |a| vec![twin(&a[0], heads as usize, value as usize)],
    )
}

#[test]
fn follows_the_twin() {
    for (rows, sizes) in [(1, [1, 4, 1]), (7, [3, 8, 5]), (13, [4, 48, 32]), (131, [2, 7, 3]), (5, [1, 128, 127]), (3, [4, 16, 16])] {
        outcome(Case::new(format!("take_heads {rows} x {sizes:?}")), rows, sizes).unwrap();
    }
}

#[test]
fn whole_heads_are_no_work() {
    let mut g = moelab::ops::Graph::new(moelab::gpu::Capabilities::PORTABLE);
    let x = g.leaf("x", [6, 32]);
    assert_eq!(g.take_heads(x, 2, 16, 16), x);
    assert_eq!(g.program().dispatches(), (0, 0));
}

#[test]
fn catches_mutants_of_the_backward() {
    let mutants = [
        ("take_heads", "load_d_y_from(head * params.value + c", "load_d_y_from(head * params.width + c"),
        ("take_heads", "params.width - c, vec4<f32>()", "params.width - c, vec4<f32>(1.0)"),
    ];
    catches(&mutants, |case| outcome(case, 17, [3, 8, 5]));
    let mutants = [
        ("take_heads_texels", "load_d_y_from(head * params.value + c", "load_d_y_from(head * params.width + c"),
        ("take_heads_texels", "params.width - c, vec4<f32>()", "params.width - c, vec4<f32>(1.0)"),
    ];
    catches(&mutants, |case| outcome(case, 16, [3, 12, 8]));
}
