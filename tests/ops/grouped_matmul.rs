//! Linear layers of experts over sorted rows, against one plain linear layer a segment.

use moelab::ops::GroupedForm;

use crate::{
    harness::{Array, Case, Input, device, run, tiers},
    matmul::linear,
};

/// Rows offsets[e]..offsets[e + 1] of x through w[e].
pub fn grouped_linear(x: &Array, w: &Array, offsets: &Array) -> Array {
    let [_, out, inner] = w.shape[..] else { panic!("w [E, out, in]") };
    let mut y = Vec::new();
    for (e, w) in w.data.chunks(out * inner).enumerate() {
        let [first, end] = [offsets.data[e] as usize, offsets.data[e + 1] as usize];
        if end > first {
            let rows = Array::new([end - first, inner], x.data[first * inner..end * inner].to_vec());
            y.extend(linear(&rows, &Array::new([out, inner], w.to_vec())).data);
        }
    }
    Array::new([x.shape[0], out], y)
}

fn follows(offsets: &[u32], inner: u32, out: u32, is_param: bool) {
    let experts = offsets.len() as u32 - 1;
    let rows = offsets[experts as usize];
    let w = Input::normal("w", [experts, out, inner]);
    let w = if is_param { w.param() } else { w };
    Case::new(format!("grouped_linear {offsets:?} {inner}x{out}")).halves().check(
        &[Input::normal("x", [rows, inner]).halves(), w.halves(), Input::u32("offsets", [experts + 1], offsets.to_vec())],
        |g, t| vec![g.grouped_linear(t[0], t[1], t[2])],
        |a| vec![grouped_linear(&a[0], &a[1], &a[2])],
    );
}

#[test]
fn one_expert_is_a_linear_layer() {
    follows(&[0, 1], 1, 1, true);
    follows(&[0, 71], 13, 17, true);
    follows(&[0, 37], 64, 128, true);
}

#[test]
fn segments_of_any_length() {
    // Prime lengths, one row, an empty expert first, in between and last, longer than a tile of either tier.
    for offsets in [[0, 3, 4, 11], [0, 0, 67, 131], [0, 67, 67, 80], [0, 5, 101, 101], [0, 32, 96, 160]] {
        follows(&offsets, 7, 5, true);
        follows(&offsets, 64, 68, true);
    }
    follows(&[0, 0, 67, 101], 128, 192, true);
    follows(&[0, 3, 35, 99, 99, 131], 40, 72, true);
}

#[test]
fn all_rows_on_one_expert() {
    for offsets in [[0, 71, 71, 71, 71], [0, 0, 0, 71, 71], [0, 0, 0, 0, 71]] {
        follows(&offsets, 19, 3, true);
        follows(&offsets, 64, 64, true);
    }
}

#[test]
fn weights_that_are_no_parameter() {
    follows(&[0, 3, 3, 11], 7, 5, false);
    follows(&[0, 3, 3, 71], 64, 64, false);
}

#[test]
fn more_experts_than_rows() {
    follows(&[0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 3, 3, 4], 64, 64, true);
}

/// A tile ends with its segment: rows that belong to no expert keep what was there.
#[test]
fn rows_beyond_the_last_segment_are_left_alone() {
    for width in [5, 64] {
        let inputs = [Input::normal("x", [20, width]), Input::normal("w", [2, width, width]), Input::u32("offsets", [3], vec![0, 3, 9])];
        let tiers = tiers(&device());
        for tier in tiers {
            for form in [GroupedForm::Nt, GroupedForm::Nn] {
                let y = run(tier, &inputs, |g, t| vec![g.grouped_matmul(t[0], t[1], t[2], form)]).remove(0);
                let written = y.iter().position(|v| !v.is_finite());
                assert_eq!(written, Some(9 * width as usize), "{form:?}, width {width} ({} tier)", tier.name());
                assert!(y[9 * width as usize..].iter().all(|v| v.is_nan()), "{form:?}, width {width} ({} tier)", tier.name());
            }
        }
    }
}
