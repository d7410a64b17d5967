//! Dropout against its twin: the same masks from the host's generator.

use crate::harness::{Array, Input, check};
use moelab::random::Stream;

/// What dropout multiplies each of `n` elements by, in the harness's step: one draw decides four elements.
pub fn mask(n: usize, p: f32, stream: u32) -> Vec<f64> {
    let draws = Stream { seed: 5 | 9 << 32, step: 3, stream };
    let scale = |i: usize| {
        let uniform = (draws.bits(i as u32 / 4)[i % 4] >> 8) as f32 / 16_777_216.0;
        if uniform < p { 0.0 } else { 1.0 / (1.0 - f64::from(p)) }
    };
    if p == 0.0 { vec![1.0; n] } else { (0..n).map(scale).collect() }
}

/// `x` times the mask of `stream`.
pub fn twin(x: &Array, p: f32, stream: u32) -> Array {
    let data = x.data.iter().zip(mask(x.data.len(), p, stream)).map(|(x, m)| x * m).collect();
    Array::new(x.shape.clone(), data)
}

#[test]
fn follows_the_twin() {
    for [rows, width] in [[1, 1], [1, 7], [3, 5], [67, 31], [5, 64], [129, 128]] {
        let name = format!("dropout {rows}x{width}");
        // Two uses: each draws from a stream of its own.
        let graph = |g: &mut moelab::ops::Graph, t: &[moelab::gpu::Tensor]| vec![g.dropout(t[0], 0.3), g.dropout(t[0], 0.6)];
        check(&name, &[Input::normal("x", [rows, width])], graph, |a| vec![twin(&a[0], 0.3, 1), twin(&a[0], 0.6, 2)]);
    }
}

#[test]
fn drops_the_stated_share() {
    let n = 40_000;
    let dropped = mask(n, 0.3, 1).iter().filter(|m| **m == 0.0).count() as f64 / n as f64;
    assert!((dropped - 0.3).abs() < 0.01, "{dropped}");
}

#[test]
fn zero_probability_records_nothing() {
    let mut g = moelab::ops::Graph::new(moelab::gpu::Capabilities::PORTABLE);
    let x = g.leaf("x", [3, 5]);
    assert_eq!(g.dropout(x, 0.0), x);
    assert_eq!(g.program().dispatches(), (0, 0));
}
