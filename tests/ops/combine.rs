//! Combining expert outputs against its twin.

use crate::{
    dropout::mask,
    harness::{Array, Input, check},
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

#[test]
fn follows_the_twin() {
    let cases = [(1, 1, 1, 1), (3, 2, 2, 7), (31, 2, 5, 13), (131, 1, 4, 64), (67, 3, 8, 192), (5, 8, 8, 64), (17, 2, 3, 131)];
    for (tokens, k, experts, width) in cases {
        for (has_residual, p) in [(false, 0.0), (true, 0.0), (true, 0.3)] {
            let expert = experts_drawn(tokens * k, experts);
            check(
                &format!("combine {tokens}x{width}, {k} of {experts}, residual {has_residual}, dropout {p}"),
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
            );
        }
    }
}
