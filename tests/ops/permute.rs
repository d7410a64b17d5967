//! The permutation against a stable sort on the host, bit for bit.

use crate::harness::{Array, Fixture, Input, catches, device, run_u32, tiers};
use moelab::{
    gpu::{Capabilities, DType, Segment, Step, Tensor},
    ops::{Graph, Routing},
    random::Stream,
};

/// Offsets, slot of each assignment, assignment of each slot.
pub fn reference(expert: &[u32], experts: u32) -> [Vec<u32>; 3] {
    let mut assignment_of: Vec<u32> = (0..expert.len() as u32).collect();
    assignment_of.sort_by_key(|a| expert[*a as usize]);
    let mut slot_of = vec![0; expert.len()];
    for (slot, a) in assignment_of.iter().enumerate() {
        slot_of[*a as usize] = slot as u32;
    }
    let offsets = (0..=experts).map(|e| expert.iter().filter(|x| **x < e).count() as u32).collect();
    [offsets, slot_of, assignment_of]
}

/// Uniformly drawn experts for `n` assignments (a token may get one twice: the ops do not mind).
pub fn experts_drawn(n: u32, experts: u32) -> Vec<u32> {
    (0..n).map(|a| Stream { seed: 3, step: experts, stream: 4 }.bits(a)[0] % experts).collect()
}

/// A routing with the given choice and gates; what it does not give is never read.
pub fn routing(g: &mut Graph, expert: Tensor, gate: Tensor, experts: u32) -> Routing {
    let tokens = expert.shape.as_slice()[0];
    let mut blank = |name: &str, shape: &[u32]| g.input(name, shape, DType::F32);
    Routing {
        expert,
        gate,
        probabilities: blank("unused probabilities", &[tokens, experts]),
        logits: blank("unused logits", &[tokens, experts]),
        logsumexp: blank("unused logsumexp", &[tokens]),
        entropy: blank("unused entropy", &[tokens]),
    }
}

fn check_exact(tier: Capabilities, tokens: u32, experts_per_token: u32, experts: u32, expert: Vec<u32>) {
    let wanted = reference(&expert, experts);
    let inputs = [Input::u32("expert", [tokens, experts_per_token], expert), Input::normal("gate", [tokens, experts_per_token])];
    let found = run_u32(tier, &inputs, |g, t| {
        let routing = routing(g, t[0], t[1], experts);
        let p = g.permute(&routing);
        vec![p.offsets, p.slot_of, p.assignment_of]
    });
    let name = format!("{tokens} tokens, {experts_per_token} of {experts} experts");
    for (i, what) in ["offsets", "slot_of", "assignment_of"].iter().enumerate() {
        assert!(found[i] == wanted[i], "{what}, {name}: wanted {:?}, found {:?}", wanted[i], found[i]);
    }
}

#[test]
fn is_the_stable_sort() {
    let tiers = tiers(&device());
    for tier in tiers {
        for (tokens, k, experts) in [(1, 1, 1), (1, 2, 2), (7, 1, 3), (31, 2, 4), (67, 8, 8), (509, 2, 5), (1031, 3, 64), (9000, 2, 8)] {
            check_exact(tier, tokens, k, experts, experts_drawn(tokens * k, experts));
        }
    }
}

#[test]
fn takes_empty_and_full_experts() {
    let tiers = tiers(&device());
    for tier in tiers {
        for only in [0, 2, 4] {
            check_exact(tier, 131, 1, 5, vec![only; 131]); // All tokens on one expert.
        }
        let without_two: Vec<u32> = experts_drawn(262, 5).iter().map(|e| if *e == 2 { 3 } else { *e }).collect();
        check_exact(tier, 131, 2, 5, without_two);
    }
}

/// Tokens that fill up stand last, whatever they chose.
#[test]
fn tokens_that_fill_up_come_last() {
    let device = device();
    for tier in tiers(&device) {
        for [tokens, real, k, experts] in [[7, 3, 1, 3], [131, 64, 2, 5], [131, 1, 8, 8], [509, 508, 2, 5], [509, 509, 2, 5]] {
            let mut expert = experts_drawn(tokens * k, experts);
            let inputs = [Input::u32("expert", [tokens, k], expert.clone()), Input::normal("gate", [tokens, k])];
            let mut g = Graph::new(tier);
            let t = inputs.each_ref().map(|input| input.declare(&mut g));
            let routing = routing(&mut g, t[0], t[1], experts);
            let p = g.permute(&routing);
            let parts = [p.offsets, p.slot_of, p.assignment_of];
            ["offsets", "slot_of", "assignment_of"].iter().zip(parts).for_each(|(name, part)| g.output(name, part));
            let mut fixture = Fixture::new(&device, g.finish(), &inputs);
            fixture.run(&Step { real_tokens: real, ..Step::default() }, &[Segment::Micro]);
            expert[(real * k) as usize..].fill(experts - 1);
            for (part, wanted) in parts.iter().zip(reference(&expert, experts)) {
                let found: Vec<u32> = bytemuck::cast_slice(&fixture.read_bytes(part.id)).to_vec();
                assert_eq!(found, wanted, "{real} of {tokens} tokens, {k} of {experts} experts ({tier:?})");
            }
        }
    }
}

#[test]
fn takes_sixty_thousand_tokens() {
    let tiers = tiers(&device());
    for tier in tiers {
        check_exact(tier, 60_013, 2, 8, experts_drawn(120_026, 8));
    }
}

#[test]
fn mutants_are_caught() {
    const EXPERTS: u32 = 5;
    let [tokens, experts_per_token] = [1031, 3];
    let expert = experts_drawn(tokens * experts_per_token, EXPERTS);
    let [_, _, assignment_of] = reference(&expert, EXPERTS);
    let inputs = [
        Input::normal("x", [tokens, 1]),
        Input::u32("expert", [tokens, experts_per_token], expert),
        Input::normal("gate", [tokens, experts_per_token]),
    ];
    let mutants = [
        ("permute", "b < first_block)", "b <= first_block)"),
        ("permute", "min(pair / experts, params.blocks)", "first_block"),
        ("permute", "e < owned; e++", "e < 0u; e++"),
        ("permute", "saved_counts[b * experts + counted]", "1u"),
    ];
    catches(&mutants, |case| {
        case.try_check(
            &inputs,
            |g, t| {
                let routing = routing(g, t[1], t[2], EXPERTS);
                let permutation = g.permute(&routing);
                vec![g.gather_rows(t[0], &permutation)]
            },
            |a| {
                let token_of = |assignment: &u32| (assignment / experts_per_token) as usize;
                vec![Array::new([assignment_of.len(), 1], assignment_of.iter().map(|s| a[0].data[token_of(s)]).collect())]
            },
        )
    });
}
