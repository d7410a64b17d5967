//! Activations, gated and not, with dropout, against their twins; erf against a series in f64.

use crate::{
    dropout::mask,
    harness::{Array, Input, check, device, run, tiers},
};
use moelab::ops::Activation;

const ALL: [Activation; 4] = [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::ReluSquared];

/// By its all-positive series: no cancellation.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    let mut n = 1;
    while term.abs() > 1e-17 * sum.abs() {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
        n += 1;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

pub fn activate(f: Activation, x: f64) -> f64 {
    match f {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
        Activation::ReluSquared => x.max(0.0).powi(2),
    }
}

/// Activation of `x`, times `up` if gated, times the mask of stream 1.
pub fn twin(x: &Array, up: Option<&Array>, f: Activation, p: f32) -> Array {
    let value = |(i, m): (usize, f64)| activate(f, x.data[i]) * up.map_or(1.0, |u| u.data[i]) * m;
    Array::new(x.shape.clone(), mask(x.data.len(), p, 1).into_iter().enumerate().map(value).collect())
}

#[test]
fn follows_the_twin() {
    for ([rows, width], p) in [([1, 1], 0.0), ([1, 7], 0.0), ([67, 31], 0.3), ([5, 64], 0.0), ([37, 128], 0.3)] {
        for f in ALL {
            let x = Input::normal("x", [rows, width]).scaled(2.0);
            check(
                &format!("{f:?} {rows}x{width}, dropout {p}"),
                std::slice::from_ref(&x),
                |g, t| vec![g.activation(t[0], f, p)],
                |a| vec![twin(&a[0], None, f, p)],
            );
            check(
                &format!("gated {f:?} {rows}x{width}, dropout {p}"),
                &[x, Input::normal("up", [rows, width])],
                |g, t| vec![g.gated_activation(t[0], t[1], f, p)],
                |a| vec![twin(&a[0], Some(&a[1]), f, p)],
            );
        }
    }
}

#[test]
fn holds_at_the_ends() {
    let x: Vec<f32> = [-1e4, -90.0, -20.0, -5.0, -1e-6, 0.0, 1e-6, 5.0, 20.0, 90.0, 1e4, 3.0].into();
    let tiers = tiers(&device());
    for tier in tiers {
        for f in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
            let y = run(tier, &[Input::values("x", [12], x.clone())], |g, t| vec![g.activation(t[0], f, 0.0)]).remove(0);
            for (x, y) in x.iter().zip(y) {
                let wanted = activate(f, f64::from(*x).max(-700.0)); // Series and exp overflow in f64 beyond.
                let wanted = if x.abs() > 50.0 { f64::from(x.max(0.0)) } else { wanted };
                let error = (f64::from(y) - wanted).abs();
                assert!(error <= 2e-7 * f64::from(x.abs()).max(1e-3), "{f:?}({x}): wanted {wanted}, found {y}");
            }
        }
    }
}
