//! Combining expert outputs against its twin.

use crate::{
    dropout::mask,
    harness::{Array, Case, Input, catches},
    permute::{experts_drawn, reference, routing},
};

/// `residual` + dropout(sum over k of gate * out).
pub fn twin(out: &Array, gate: &Array, expert: &[u32], experts: u32, residual: Option<&Array>, p: f32) -> Array {
    let [_, slot_of, _] = reference(expert, experts);
    let (tokens, width) = (gate.shape[0], out.width());
    let mask = mask(tokens * width, p, 1);
    let mut y = residual.cloned().unwrap_or_else(|| Array::zeros([tokens, width]));
    for n in 0..tokens {
        for k in 0..gate.width() {
            let a = n * gate.width() + k;
            for d in 0..width {
                let i = n * width + d;
                y.data[i] += mask[i] * gate.data[a] * out.data[slot_of[a] as usize * width + d];
            }
        }
    }
    y
}

fn outcome(case: Case, [tokens, k, experts, width]: [u32; 4], has_residual: bool, p: f32) -> Result<(), String> {
    let expert = experts_drawn(tokens * k, experts);
    case.try_check(
        &[
            Input::normal("out", [tokens * k, width]),
            Input::normal("gate", [tokens, k]),
            Input::normal("residual", [tokens, width]),
            Input::u32("expert", [tokens, k], expert.clone()),
        ],
        |g, t| {
            let routing = routing(g, t[3], t[1], experts);
            let permutation = g.permute(&routing);
            vec![g.combine(t[0], &routing, &permutation, has_residual.then_some(t[2]), p)]
        },
        |a| vec![twin(&a[0], &a[1], &expert, experts, has_residual.then_some(&a[2]), p)],
    )
}

#[test]
fn mutants_of_the_kernels_for_gpus_are_caught() {
    let mutants = [
        ("combine_gpu", "d_out[slot * groups + i] = rounded(weight * d)", "d_out[slot * groups + i] = rounded(d)"),
        ("combine_gpu", "dropout_scale4(group, params.p", "dropout_scale4(i, params.p"),
        ("combine_gpu", "(sum.x + sum.y) + (sum.z + sum.w)", "(sum.x + sum.y) + sum.z"),
        ("combine_gpu", "i += INVOCATIONS", "i += groups"),
        ("combine_vec4", "y[at.y * (width / 4u) + at.x] = value", "y[at.y * (width / 4u) + at.x] = value.yxzw"),
        ("combine_vec4", "out[at.y * (width / 4u) + at.x]", "out[at.y * (width / 4u)]"),
    ];
    catches(&mutants, |case| outcome(case, [13, 2, 3, 272], true, 0.3));
}

#[test]
fn follows_the_twin() {
    let cases = [(1, 1, 1, 1), (3, 2, 2, 7), (31, 2, 5, 13), (131, 1, 4, 64), (67, 3, 8, 192), (5, 8, 8, 64), (17, 2, 3, 131)];
    for (tokens, k, experts, width) in cases {
        for (has_residual, p) in [(false, 0.0), (true, 0.0), (true, 0.3)] {
            let case = Case::new(format!("combine {tokens}x{width}, {k} of {experts}, residual {has_residual}, dropout {p}"));
            outcome(case, [tokens, k, experts, width], has_residual, p).unwrap_or_else(|message| panic!("{message}"));
        }
    }
}
