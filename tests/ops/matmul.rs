//! Matrix products in all forms, and the linear layer, against plain loops.

use moelab::{
    gpu::{Capabilities, Command, Tensor},
    ops::{Addend, Form, Graph, kernels::MODULES},
};

use crate::harness::{Array, Case, Input, catches, device, run, run_bytes, tiers};

/// x [N, in] times w [out, in] transposed.
pub fn linear(x: &Array, w: &Array) -> Array {
    let rows = x.data.len() / x.width();
    let out = w.data.len() / w.width();
    let mut y = Array::zeros([rows, out]);
    for (row, y) in x.rows().zip(y.data.chunks_mut(out)) {
        for (w, y) in w.rows().zip(y) {
            *y = row.iter().zip(w).map(|(x, w)| x * w).sum();
        }
    }
    y
}

/// Compares with every kernel, those with f16 operands included.
fn check(name: &str, inputs: &[Input], graph: impl Fn(&mut Graph, &[Tensor]) -> Vec<Tensor>, twin: impl Fn(&[Array]) -> Vec<Array>) {
    let inputs: Vec<Input> = inputs.iter().cloned().map(Input::halves).collect();
    Case::new(name).halves().check(&inputs, graph, twin);
}

/// [rows, inner, columns] below, at and beyond a tile of either tier; the last ones have images, the very last ones whole vec4s only.
const SHAPES: [[u32; 3]; 18] = [
    [1, 1, 1],
    [1, 7, 3],
    [5, 16, 1],
    [13, 17, 19],
    [64, 16, 64],
    [67, 131, 71],
    [129, 5, 66],
    [1, 64, 64],
    [33, 64, 68],
    [37, 128, 65],
    [31, 192, 68],
    [65, 64, 128],
    [4, 4, 4],
    [132, 20, 68],
    [68, 68, 132],
    [8, 8, 8],
    [64, 40, 32],
    [72, 136, 40],
];

#[test]
fn linear_follows_the_twin() {
    for [rows, inner, out] in SHAPES {
        check(
            &format!("linear {rows}x{inner}x{out}"),
            &[Input::normal("x", [rows, inner]), Input::normal("w", [out, inner]).param()],
            |g, t| vec![g.linear(t[0], t[1])],
            |a| vec![linear(&a[0], &a[1])],
        );
    }
}

#[test]
fn linear_takes_weights_that_are_no_parameter() {
    for [rows, inner, out] in [[13, 17, 19], [37, 128, 64]] {
        check(
            &format!("linear {rows}x{inner}x{out}, w a leaf"),
            &[Input::normal("x", [rows, inner]), Input::normal("w", [out, inner])],
            |g, t| vec![g.linear(t[0], t[1])],
            |a| vec![linear(&a[0], &a[1])],
        );
    }
}

#[test]
fn linear_add_follows_the_twin() {
    for [rows, inner, out] in [[1, 1, 1], [13, 17, 19], [67, 131, 71], [33, 64, 68], [97, 64, 192]] {
        check(
            &format!("linear_add {rows}x{inner}x{out}"),
            &[Input::normal("x", [rows, inner]), Input::normal("w", [out, inner]).param(), Input::normal("residual", [rows, out])],
            |g, t| vec![g.linear_add(t[0], t[1], t[2])],
            |a| {
                let mut y = linear(&a[0], &a[1]);
                y.data.iter_mut().zip(&a[2].data).for_each(|(y, r)| *y += r);
                vec![y]
            },
        );
    }
}

/// A parameter used twice gathers both gradients, and leading dimensions are kept.
#[test]
fn a_shared_weight_accumulates() {
    for width in [5, 64] {
        check(
            &format!("shared linear {width}"),
            &[Input::normal("x", [2, 3, width]), Input::normal("w", [width, width]).param()],
            |g, t| {
                let h = g.linear(t[0], t[1]);
                assert_eq!(h.shape.as_slice(), [2, 3, width]);
                vec![g.linear(h, t[1])]
            },
            |a| vec![linear(&linear(&a[0], &a[1]), &a[1])],
        );
    }
}

/// alpha (product) + beta residual + diagonal I of each slice; `Tn` has the product only.
fn product(a: &Array, b: &Array, form: Form, residual: Option<(&Array, [f64; 3])>) -> Array {
    let (batch, [a0, a1], [b0, b1]) = (a.shape[0], [a.shape[1], a.shape[2]], [b.shape[1], b.shape[2]]);
    let (m, n, k) = match form {
        Form::Nn => (a0, b1, a1),
        Form::Nt => (a0, b0, a1),
        Form::Tn => (a1, b1, a0),
    };
    let mut y = Array::zeros([batch, m, n]);
    for s in 0..batch {
        let a_at = |i: usize, l: usize| a.data[s * a0 * a1 + if form == Form::Tn { l * a1 + i } else { i * a1 + l }];
        let b_at = |l: usize, j: usize| b.data[s * b0 * b1 + if form == Form::Nt { j * b1 + l } else { l * b1 + j }];
        for i in 0..m {
            for j in 0..n {
                let sum: f64 = (0..k).map(|l| a_at(i, l) * b_at(l, j)).sum();
                let to = (s * m + i) * n + j;
                y.data[to] = match residual {
                    Some((r, [alpha, beta, diagonal])) => alpha * sum + beta * r.data[to] + if i == j { diagonal } else { 0.0 },
                    None => sum,
                };
            }
        }
    }
    y
}

#[test]
fn batched_products_follow_the_twin() {
    for (form, a, b) in [
        (Form::Nn, [3, 13, 17], [3, 17, 19]),
        (Form::Nn, [2, 65, 64], [2, 64, 128]),
        (Form::Nt, [3, 13, 17], [3, 19, 17]),
        (Form::Nt, [3, 33, 64], [3, 36, 64]),
        (Form::Tn, [3, 17, 13], [3, 17, 19]),
        (Form::Tn, [3, 18, 64], [3, 18, 128]),
        (Form::Tn, [2, 7, 128], [2, 7, 64]),
        (Form::Nn, [2, 72, 40], [2, 40, 24]),
        (Form::Nt, [2, 64, 96], [2, 32, 96]),
        (Form::Tn, [2, 24, 40], [2, 24, 72]),
    ] {
        // The forms record no backward, so the operands want no gradient.
        check_forward(
            &format!("{form:?} {a:?} {b:?}"),
            &[Input::normal("a", a), Input::normal("b", b)],
            move |g, t| vec![g.matmul(t[0], t[1], form)],
            |x| product(&x[0], &x[1], form, None),
        );
    }
}

/// A product with few tiles and a long sum, as the gradients of weights and of hidden states are.
#[test]
fn sums_in_parts_follow_the_twin() {
    for (form, a, b) in [
        (Form::Nn, [1, 20, 1300], [1, 1300, 24]),
        (Form::Nn, [1, 5, 1031], [1, 1031, 7]),
        (Form::Tn, [1, 1300, 20], [1, 1300, 24]),
        (Form::Tn, [1, 1031, 5], [1, 1031, 7]),
        (Form::Nn, [1, 16, 1304], [1, 1304, 24]),
        (Form::Tn, [1, 1304, 16], [1, 1304, 24]),
    ] {
        check_forward(
            &format!("{form:?} {a:?} {b:?} in parts"),
            &[Input::normal("a", a), Input::normal("b", b)],
            move |g, t| vec![g.matmul(t[0], t[1], form)],
            |x| product(&x[0], &x[1], form, None),
        );
    }
    for [rows, inner, out] in [[1300, 20, 24], [1031, 5, 7], [1304, 16, 24]] {
        check(
            &format!("linear {rows}x{inner}x{out} in parts"),
            &[Input::normal("x", [rows, inner]), Input::normal("w", [out, inner]).param()],
            |g, t| vec![g.linear(t[0], t[1])],
            |a| vec![linear(&a[0], &a[1])],
        );
    }
    let mut g = Graph::new(Capabilities::PORTABLE);
    let (a, b) = (g.leaf("a", [1300, 20]), g.leaf("b", [1300, 24]));
    g.matmul(a, b, Form::Tn);
    let kernels = g.program().micro.iter().filter_map(|c| if let Command::Dispatch(d) = c { Some(d.kernel.entry) } else { None });
    let kernels: Vec<&str> = kernels.collect();
    assert_eq!(kernels, ["tn_parts", "add_parts"]);
}

#[test]
fn additions_follow_the_twin() {
    for (form, a, b, y) in [
        (Form::Nn, [3, 13, 17], [3, 17, 19], [3, 13, 19]),
        (Form::Nn, [2, 128, 64], [2, 64, 128], [2, 128, 128]),
        (Form::Nt, [2, 66, 5], [2, 70, 5], [2, 66, 70]),
        (Form::Nt, [2, 33, 64], [2, 36, 64], [2, 33, 36]),
        (Form::Nn, [2, 40, 72], [2, 72, 40], [2, 40, 40]),
        (Form::Nt, [2, 40, 24], [2, 72, 24], [2, 40, 72]),
    ] {
        let inputs = [Input::normal("a", a), Input::normal("b", b), Input::normal("r", y)];
        check_forward(
            &format!("{form:?} {a:?} {b:?} added"),
            &inputs,
            move |g, t| {
                let addend = Addend { alpha: 0.5, beta: -2.0, residual: t[2], diagonal: 3.0 };
                vec![g.matmul_add(t[0], t[1], form, addend)]
            },
            |x| product(&x[0], &x[1], form, Some((&x[2], [0.5, -2.0, 3.0]))),
        );
    }
}

#[test]
fn catches_mutants() {
    // The gradient of w is a whole tile of every kernel, and a ragged one.
    let inputs = [Input::normal("x", [72, 136]).halves(), Input::normal("w", [64, 136]).param().halves()];
    catches(
        &[
            ("matmul_vec4", "return transpose(block);", "return block;"),
            ("matmul_vec4", "+= sum[", "= 2.0 * sum["),
            ("matmul_coop", "at.x < params.m && at.y < n", "at.x < params.m && at.y + 1u < n"),
            ("matmul_coop", "before + (*sum)", "before - (*sum)"),
        ],
        |case| case.halves().try_check(&inputs, |g, t| vec![g.linear(t[0], t[1])], |a| vec![linear(&a[0], &a[1])]),
    );
}

/// Operands that need both halves.
#[test]
fn catches_mutants_of_split_operands() {
    let inputs = [Input::normal("x", [72, 136]), Input::normal("w", [64, 136]).param()];
    catches(
        &[
            ("matmul_coop", "term == LOW_HIGH", "term == HIGH_LOW"),
            ("halves", "(first - high_first) * 2048.0", "(first - high_first) * 1024.0"),
        ],
        |case| case.try_check(&inputs, |g, t| vec![g.linear(t[0], t[1])], |a| vec![linear(&a[0], &a[1])]),
    );
}

/// Compares forward only, on both tiers.
fn check_forward(name: &str, inputs: &[Input], graph: impl Fn(&mut Graph, &[Tensor]) -> Vec<Tensor>, twin: impl Fn(&[Array]) -> Array) {
    let inputs: Vec<Input> = inputs.iter().cloned().map(Input::halves).collect();
    let inputs = inputs.as_slice();
    let wanted = twin(&inputs.iter().map(Input::array).collect::<Vec<_>>());
    let tiers = {
        let device = device();
        let matrices = device.with_matrices(MODULES).into_iter();
        let all = matrices.flat_map(|all| [false, true].map(|splits_operands| Capabilities { splits_operands, ..all }));
        tiers(&device).into_iter().chain(all).collect::<Vec<_>>()
    };
    for tier in tiers {
        let found = run(tier, inputs, &graph).remove(0);
        assert_eq!(found.len(), wanted.data.len(), "{name}");
        let norm = wanted.data.iter().map(|w| w * w).sum::<f64>().sqrt();
        let difference = found.iter().zip(&wanted.data).map(|(f, w)| (f64::from(*f) - w).powi(2)).sum::<f64>().sqrt();
        assert!(difference <= 1e-5 * norm, "{name} ({} tier): relative L2 error {:.2e}", tier.name(), difference / norm);
    }
}

/// Operands with more rows than an image may have are read with several side by side, to the same bits.
#[test]
fn folded_images_change_no_bit() {
    let images: Vec<Capabilities> = tiers(&device()).into_iter().filter(|tier| tier.images).collect();
    for tier in images {
        let short = Capabilities { image_side: 128, ..tier };
        for (form, b) in [(Form::Nn, [512, 64]), (Form::Nt, [1000, 64])] {
            let k = if form == Form::Nn { b[0] } else { b[1] };
            let inputs = [Input::normal("a", [40, k]), Input::normal("b", b)];
            let product = |g: &mut Graph, t: &[Tensor]| vec![g.matmul(t[0], t[1], form)];
            assert_eq!(folds(short, &inputs, product), [if form == Form::Nn { 4.0 } else { 8.0 }], "{form:?}");
            assert_eq!(folds(tier, &inputs, product), [0.0; 0], "{form:?}");
            assert_eq!(run_bytes(short, &inputs, product), run_bytes(tier, &inputs, product), "{form:?}");
        }
        let experts = [Input::normal("x", [40, 64]), Input::normal("w", [3, 256, 64]), Input::u32("offsets", [4], vec![0, 13, 13, 40])];
        let layer = |g: &mut Graph, t: &[Tensor]| vec![g.grouped_linear(t[0], t[1], t[2])];
        assert_eq!(folds(short, &experts, layer), [8.0]);
        assert_eq!(run_bytes(short, &experts, layer), run_bytes(tier, &experts, layer));
    }
}

/// The rows side by side in the folded images that kernels read.
fn folds(tier: Capabilities, inputs: &[Input], graph: impl Fn(&mut Graph, &[Tensor]) -> Vec<Tensor>) -> Vec<f64> {
    let mut g = Graph::new(tier);
    let tensors: Vec<Tensor> = inputs.iter().map(|i| i.declare(&mut g)).collect();
    graph(&mut g, &tensors);
    let dispatches = g.program().micro.iter().filter_map(|c| if let Command::Dispatch(d) = c { Some(d) } else { None });
    dispatches.flat_map(|d| &d.constants).filter(|(name, _)| *name == "FOLD").map(|(_, fold)| *fold).collect()
}
