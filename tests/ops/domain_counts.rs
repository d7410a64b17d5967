//! Assignments by domain and expert, exactly.

use moelab::{
    gpu::{DType, Segment, Step},
    ops::Graph,
};

use crate::{
    harness::{Fixture, Input, device, tiers},
    permute::{experts_drawn, routing},
};

#[test]
fn counts_are_those_of_the_real_tokens_of_each_domain() {
    let device = device();
    for tier in tiers(&device) {
        // Tokens, how many of them are real, experts of a token, experts, domains.
        for [tokens, real, k, experts, domains] in
            [[1, 1, 1, 1, 1], [5, 3, 2, 3, 2], [64, 64, 1, 4, 5], [65, 65, 2, 8, 3], [509, 300, 2, 7, 16], [131, 1, 8, 64, 4]]
        {
            let expert = experts_drawn(tokens * k, experts);
            // One more domain than is counted: the tokens of no domain.
            let domain = experts_drawn(tokens * 3, domains + 1)[tokens as usize..2 * tokens as usize].to_vec();
            let inputs = [
                Input::u32("expert", [tokens, k], expert.clone()),
                Input::values("gate", [tokens, k], vec![f32::NAN; (tokens * k) as usize]),
                Input::u32("domain", [tokens], domain.clone()),
            ];
            let mut g = Graph::new(tier);
            let t = [0, 1, 2].map(|i: usize| inputs[i].declare(&mut g));
            assert_eq!(t[2].dtype, DType::U32);
            let routing = routing(&mut g, t[0], t[1], experts);
            let counts = g.domain_counts(&routing, t[2], domains);
            g.output("counts", counts);
            let mut fixture = Fixture::new(&device, g.finish(), &inputs);
            fixture.run(&Step { real_tokens: real, ..Step::default() }, &[Segment::Micro]);
            let mut wanted = vec![0.0_f32; (domains * experts) as usize];
            for (token, chosen) in expert.chunks(k as usize).take(real as usize).enumerate().filter(|(token, _)| domain[*token] < domains) {
                chosen.iter().for_each(|e| wanted[(domain[token] * experts + e) as usize] += 1.0);
            }
            assert_eq!(fixture.read_named("counts"), wanted, "{real} of {tokens} tokens, {k} of {experts}, {domains} domains");
        }
    }
}
