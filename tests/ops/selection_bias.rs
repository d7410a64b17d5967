//! The counts over micro-batches and the bias that follows them, exactly.

use moelab::{
    gpu::{Capabilities, DType, Device, Segment, Step, Tensor},
    ops::Graph,
};

use crate::{
    harness::{Fixture, Input, device, tiers},
    permute::{experts_drawn, routing},
};

const RATE: f32 = 0.001;

/// Counts, and the bias that they move.
struct Twin {
    counts: Vec<u32>,
    bias: Vec<f32>,
}

impl Twin {
    fn count(&mut self, expert: &[u32]) -> Vec<f32> {
        expert.iter().for_each(|e| self.counts[*e as usize] += 1);
        let total: u32 = self.counts.iter().sum();
        self.counts.iter().map(|c| *c as f32 / total as f32).collect()
    }

    fn update(&mut self, is_finite: bool) {
        let mean = f64::from(self.counts.iter().sum::<u32>()) / self.counts.len() as f64;
        for (b, c) in self.bias.iter_mut().zip(&mut self.counts) {
            let offset = mean - f64::from(*c);
            if is_finite && offset != 0.0 {
                *b += RATE * offset.signum() as f32;
            }
            *c = 0;
        }
    }
}

/// A program that counts an input's experts [N, K]; `update` gets counts and clip and records what happens once an update.
/// Its one gradient is written by the test.
fn fixture(
    device: &Device,
    tier: Capabilities,
    [tokens, k, experts]: [u32; 3],
    update: impl Fn(&mut Graph, Tensor, Tensor),
) -> Fixture<'_> {
    let mut g = Graph::new(tier);
    let expert = g.input("expert", [tokens, k], DType::U32);
    let gate = g.input("gate", [tokens, k], DType::F32);
    let w = g.param("w", [3]);
    let routing = routing(&mut g, expert, gate, experts);
    let permutation = g.permute(&routing);
    let counts = g.state_u32("counts", [experts]);
    let load = g.count_assignments(counts, &permutation);
    g.output("load", load);
    g.begin_update();
    let clip = g.grad_norm(&[w]);
    update(&mut g, counts, clip);
    Fixture::new(device, g.finish(), &[Input::values("w", [3], vec![0.0; 3]).param()])
}

fn counts(fixture: &Fixture) -> Vec<u32> {
    let id = fixture.program.find("counts").unwrap();
    bytemuck::cast_slice(&fixture.read_bytes(id)).to_vec()
}

/// Experts of a micro-batch: drawn, all the same, or one after the other.
fn micro_batch(assignments: u32, experts: u32, number: u32) -> Vec<u32> {
    match number {
        0 | 1 | 4 => experts_drawn(assignments * (number + 1), experts)[(assignments * number) as usize..].to_vec(),
        2 => vec![experts - 1; assignments as usize],
        _ => (0..assignments).map(|a| a % experts).collect(),
    }
}

#[test]
fn follows_the_counts_of_the_whole_update() {
    let device = device();
    for tier in tiers(&device) {
        // Tokens, how many of them are real, experts of a token, experts.
        for [tokens, real, k, experts] in
            [[1, 1, 1, 1], [5, 5, 1, 3], [5, 2, 1, 3], [32, 32, 2, 8], [509, 509, 2, 7], [509, 300, 2, 7], [67, 67, 8, 64], [67, 1, 8, 64]]
        {
            let step = Step { real_tokens: real, ..Step::default() };
            let mut fixture = fixture(&device, tier, [tokens, k, experts], |g, counts, clip| {
                let bias = g.state("bias", [experts]);
                g.selection_bias_update(bias, counts, clip, RATE);
            });
            let mut twin = Twin { counts: vec![0; experts as usize], bias: vec![0.0; experts as usize] };
            // The third update is skipped: its gradient is not finite. The fourth has even counts where they divide.
            for (first, second, gradient) in [(0, 1, 1.0), (2, 4, 0.5), (0, 2, f32::NAN), (3, 3, 1.0), (4, 1, -2.0)] {
                for (index, number) in [first, second].into_iter().enumerate() {
                    let expert = micro_batch(tokens * k, experts, number);
                    fixture.write(&Input::u32("expert", [tokens, k], expert.clone()));
                    let clear: &[Segment] = if index == 0 { &[Segment::ClearGradients] } else { &[] };
                    fixture.run(&step, &[clear, &[Segment::Micro]].concat());
                    let load = twin.count(&expert[..(real * k) as usize]);
                    for (found, wanted) in fixture.read_named("load").iter().zip(load) {
                        assert!((found - wanted).abs() <= 1e-6 * wanted, "load: wanted {wanted}, found {found}");
                    }
                    assert_eq!(counts(&fixture), twin.counts);
                }
                fixture.memory.write(&device, "d_w", bytemuck::cast_slice(&[gradient, 0.0, 0.1]));
                fixture.run(&Step::default(), &[Segment::Update]);
                twin.update(gradient.is_finite());
                assert_eq!(fixture.read_named("bias"), twin.bias, "{real} of {tokens} tokens, {k} of {experts}");
                assert_eq!(counts(&fixture), twin.counts, "cleared even where the update is skipped");
            }
            assert!(experts == 1 || twin.bias.iter().any(|b| *b != 0.0));
        }
    }
}

/// What a loss over the global batch needs where no bias is moved.
#[test]
fn counts_start_anew_where_the_update_clears_them() {
    let device = device();
    for tier in tiers(&device) {
        let mut fixture = fixture(&device, tier, [5, 1, 3], |g, counts, _| g.clear(counts));
        for _ in 0..2 {
            for (expert, wanted) in [([0, 1, 1, 2, 2], [1, 2, 2]), ([0; 5], [6, 2, 2])] {
                fixture.write(&Input::u32("expert", [5, 1], expert.to_vec()));
                fixture.run(&Step::default(), &[Segment::Micro]);
                assert_eq!(counts(&fixture), wanted);
            }
            fixture.run(&Step::default(), &[Segment::Update]);
            assert_eq!(counts(&fixture), [0; 3]);
        }
    }
}
