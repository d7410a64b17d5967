//! Biases of rows and learned positions against their twin.

use crate::harness::{Array, Case, Input, catches, check};

/// Row n of `x` plus row n % `period` of `b`.
pub fn twin(x: &Array, b: &Array, period: usize) -> Array {
    let biases: Vec<&[f64]> = b.data.chunks(x.width()).collect();
    let row = |(n, row): (usize, &[f64])| row.iter().zip(biases[n % period]).map(|(x, b)| x + b).collect::<Vec<_>>();
    Array::new(x.shape.clone(), x.rows().enumerate().flat_map(row).collect())
}

#[test]
fn bias_follows_the_twin() {
    for [rows, width] in [[1, 1], [1, 67], [7, 3], [64, 64], [131, 5], [67, 131], [300, 192]] {
        check(
            &format!("add_bias {rows}x{width}"),
            &[Input::normal("x", [rows, width]), Input::normal("b", [width]).param()],
            |g, t| vec![g.add_bias(t[0], t[1])],
            |a| vec![twin(&a[0], &a[1], 1)],
        );
    }
}

#[test]
fn positions_follow_the_twin() {
    // Sequences, tokens, context, width.
    for [b, t, c, d] in [[1, 1, 1, 1], [1, 7, 7, 5], [3, 5, 11, 7], [67, 2, 3, 3], [131, 1, 2, 64], [3, 37, 41, 64], [2, 19, 19, 192]] {
        check(
            &format!("add_positions {b}x{t} of {c}x{d}"),
            &[Input::normal("x", [b * t, d]), Input::normal("table", [c, d]).param()],
            |g, v| vec![g.add_positions(v[0], v[1], t)],
            |a| vec![twin(&a[0], &a[1], t as usize)],
        );
    }
}

#[test]
fn a_constant_bias_gets_no_gradient() {
    for width in [5, 64] {
        let b: Vec<f32> = (0..width).map(|i| i as f32 - 2.5).collect();
        let row = Array::new([width as usize], b.iter().map(|v| f64::from(*v)).collect());
        check(
            &format!("add_bias of a constant {width}"),
            &[Input::normal("x", [3, width])],
            |g, t| {
                let b = g.constant("b", [width], b.clone());
                vec![g.add_bias(t[0], b)]
            },
            |a| vec![twin(&a[0], &row, 1)],
        );
    }
}

/// A position table and a bias, each used twice, for two lengths of sequence.
fn twice(case: Case, width: u32) -> Result<(), String> {
    case.try_check(
        &[Input::normal("x", [138, width]), Input::normal("table", [3, width]).param(), Input::normal("b", [width]).param()],
        |g, t| {
            let y = g.add_positions(t[0], t[1], 2);
            let y = g.add_bias(y, t[2]);
            let y = g.add_positions(y, t[1], 3);
            vec![g.add_bias(y, t[2])]
        },
        |a| {
            let y = twin(&twin(&a[0], &a[1], 2), &a[2], 1);
            vec![twin(&twin(&y, &a[1], 3), &a[2], 1)]
        },
    )
}

#[test]
fn catches_mutants_of_the_backward() {
    let portable = [
        ("add_bias", "at.y % params.period", "0u"),
        ("column_sums", "row < min((workgroup.z + 1u)", "row + 1u < min((workgroup.z + 1u)"),
        ("column_sums", "block < params.blocks", "block < 1u"),
        ("column_sums", "sums[column] += sum", "sums[column] = sum"),
    ];
    catches(&portable, |case| twice(case, 5));
    let cpu = [
        ("column_sums_cpu", "row += params.period", "row += 1u"),
        ("column_sums_cpu", "row = id.y;", "row = 0u;"),
        ("column_sums_cpu", "+ id.x] += sum", "+ id.x] = sum"),
    ];
    catches(&cpu, |case| twice(case, 64));
}
