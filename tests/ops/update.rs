//! What the tests of optimizers share: an update program whose gradients are written by the test.

use moelab::{
    gpu::{Capabilities, Device, Segment, Step, Tensor},
    ops::Graph,
};

use crate::harness::{Fixture, Input, device, tiers};

/// Runs `body` on every tier with a fixture whose update program `record` made; `record` gets the parameters.
pub fn on_every_tier(parameters: &[Input], record: impl Fn(&mut Graph, &[Tensor]) -> Tensor, body: impl Fn(Capabilities, &mut Fixture)) {
    let device = device();
    for tier in tiers(&device) {
        body(tier, &mut fixture(&device, tier, parameters, &record));
    }
}

fn fixture<'a>(
    device: &'a Device,
    tier: Capabilities,
    parameters: &[Input],
    record: impl Fn(&mut Graph, &[Tensor]) -> Tensor,
) -> Fixture<'a> {
    let mut g = Graph::new(tier);
    let tensors: Vec<Tensor> = parameters.iter().map(|i| i.declare(&mut g)).collect();
    g.begin_update();
    let clip = record(&mut g, &tensors);
    g.output("clip", clip);
    Fixture::new(device, g.finish(), parameters)
}

/// Writes the accumulated gradient of each parameter and replays the update.
pub fn update(fixture: &mut Fixture, step: &Step, gradients: &[(&str, &[f32])]) {
    for (name, values) in gradients {
        fixture.memory.write(fixture.device, &format!("d_{name}"), bytemuck::cast_slice(values));
    }
    fixture.run(step, &[Segment::Update]);
}

/// norm, factor, whether the gradients were finite, updates skipped so far.
pub fn clip(fixture: &Fixture) -> (f32, f32, bool, u32) {
    let id = fixture.program.find("clip").expect("an output");
    let bytes = fixture.read_bytes(id);
    let words: &[u32] = bytemuck::cast_slice(&bytes);
    (f32::from_bits(words[0]), f32::from_bits(words[1]), words[2] == 1, words[3])
}

/// Panics if the relative L2 error exceeds the bound.
pub fn assert_close(what: &str, found: &[f32], wanted: &[f64], bound: f64) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    let found: Vec<f64> = found.iter().map(|v| f64::from(*v)).collect();
    assert_change_close(what, &found, wanted, &vec![0.0; wanted.len()], bound);
}

/// As [`assert_close`], of the change since `start`.
pub fn assert_change_close(what: &str, found: &[f64], wanted: &[f64], start: &[f64], bound: f64) {
    let norm = wanted.iter().zip(start).map(|(w, s)| (w - s).powi(2)).sum::<f64>().sqrt();
    let difference = found.iter().zip(wanted).map(|(f, w)| (f - w).powi(2)).sum::<f64>().sqrt();
    assert!(difference <= bound * norm, "{what}: relative L2 error {:.2e}, allowed {bound:.0e}", difference / norm);
}
