//! One row for all rows, of a parameter and of an activation, against its twin.

use crate::harness::{Array, Case, Input, catches, device, run, tiers};

fn twin(v: &Array, rows: usize) -> Array {
    Array::new([rows, v.data.len()], v.data.repeat(rows))
}

/// `v` is used twice, so that its gradient accumulates.
fn outcome(case: Case, [rows, width]: [u32; 2], is_param: bool) -> Result<(), String> {
    let v = Input::normal("v", [width]);
    case.try_check(
        &[if is_param { v.param() } else { v }],
        |g, t| vec![g.broadcast_rows(t[0], rows), g.broadcast_rows(t[0], 3)],
        |a| vec![twin(&a[0], rows as usize), twin(&a[0], 3)],
    )
}

#[test]
fn follows_the_twin() {
    for shape in [[1, 1], [3, 5], [64, 64], [65, 48], [131, 67], [257, 192]] {
        for is_param in [false, true] {
            outcome(Case::new(format!("broadcast_rows {shape:?}, parameter: {is_param}")), shape, is_param).unwrap();
        }
    }
}

#[test]
fn a_constant_needs_no_gradient() {
    let tiers = tiers(&device()); // not in the loop's head, which would hold the device
    for tier in tiers {
        let outputs = run(tier, &[], |g, _| {
            let v = g.constant("v", [3], vec![1.0, 2.0, 4.0]);
            let y = g.broadcast_rows(v, 2);
            assert!(!g.wants_grad(y));
            vec![y]
        });
        assert_eq!(outputs[0], [1.0, 2.0, 4.0, 1.0, 2.0, 4.0]);
    }
}

#[test]
fn catches_mutants_of_the_backward() {
    let mutants = [
        ("column_sums", "var row = workgroup.z * BLOCK_ROWS", "var row = workgroup.z * BLOCK_ROWS + 1u"),
        ("column_sums", "block < params.blocks", "block < 1u"),
        ("column_sums", "sums[column] += sum", "sums[column] = sum"),
    ];
    catches(&mutants, |case| outcome(case, [131, 7], true));
    let mutants =
        [("column_sums_cpu", "row < params.rows;", "row + 1u < params.rows;"), ("column_sums_cpu", "+ id.x] += sum", "+ id.x] = sum")];
    catches(&mutants, |case| outcome(case, [67, 64], true));
}
