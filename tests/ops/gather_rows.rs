//! Gathering rows into the experts' order against its twin.

use crate::{
    harness::{Array, Input, check},
    permute::{experts_drawn, reference, routing},
};

/// Rows of `x` in the experts' order.
pub fn twin(x: &Array, expert: &[u32], experts: u32) -> Array {
    let [_, _, assignment_of] = reference(expert, experts);
    let experts_per_token = expert.len() * x.width() / x.data.len();
    let rows: Vec<&[f64]> = x.rows().collect();
    let data = assignment_of.iter().flat_map(|a| rows[*a as usize / experts_per_token].to_vec()).collect();
    Array::new([expert.len(), x.width()], data)
}

#[test]
fn follows_the_twin() {
    for (tokens, k, experts, width) in [(1, 1, 1, 1), (3, 2, 2, 7), (31, 2, 5, 13), (131, 1, 4, 64), (67, 3, 8, 192)] {
        let expert = experts_drawn(tokens * k, experts);
        check(
            &format!("gather_rows {tokens}x{width}, {k} of {experts}"),
            &[Input::normal("x", [tokens, width]), Input::u32("expert", [tokens, k], expert.clone()), Input::normal("gate", [tokens, k])],
            |g, t| {
                let routing = routing(g, t[1], t[2], experts);
                let permutation = g.permute(&routing);
                vec![g.gather_rows(t[0], &permutation)]
            },
            |a| vec![twin(&a[0], &expert, experts)],
        );
    }
}
