//! Activations, gated and not, with dropout, against their twins; erf against a series in f64.

use crate::{
    dropout::mask,
    elementwise::sum,
    harness::{Array, Case, Input, catches, check, device, run, tiers},
};
use moelab::ops::Activation;

const ALL: [Activation; 5] = [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::ReluSquared, Activation::Relu];

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
        Activation::Relu => x.max(0.0),
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

/// x sigmoid(gate), each of 67 rows.
fn sigmoid_gate(case: Case, width: u32) -> Result<(), String> {
    case.try_check(
        &[Input::normal("x", [67, width]), Input::normal("gate", [67, width]).scaled(3.0)],
        |g, t| vec![g.sigmoid_gate(t[0], t[1])],
        |a| {
            let value = |(x, gate): (&f64, &f64)| x / (1.0 + (-gate).exp());
            vec![Array::new(a[0].shape.clone(), a[0].data.iter().zip(&a[1].data).map(value).collect())]
        },
    )
}

#[test]
fn sigmoid_gate_follows_the_twin() {
    for width in [1, 31, 64, 192] {
        sigmoid_gate(Case::new(format!("sigmoid_gate of {width}")), width).unwrap();
    }
}

/// relu(x) + relu(gate) up.
fn relu(case: Case, width: u32) -> Result<(), String> {
    case.try_check(
        &["x", "gate", "up"].map(|name| Input::normal(name, [11, width])),
        |g, t| {
            let plain = g.activation(t[0], Activation::Relu, 0.0);
            let gated = g.gated_activation(t[1], t[2], Activation::Relu, 0.0);
            vec![g.add(plain, gated)]
        },
        |a| {
            let gated = twin(&a[1], Some(&a[2]), Activation::Relu, 0.0);
            vec![sum(&twin(&a[0], None, Activation::Relu, 0.0), &gated)]
        },
    )
}

#[test]
fn catches_mutants_of_the_backward() {
    for (module, width) in [("activation", 7), ("activation_texels", 64), ("activation_vec4", 64)] {
        catches(&[(module, "s * (1.0 - s)", "s")], |case| sigmoid_gate(case, width));
        catches(&[(module, "vec4<f32>(1.0), x > vec4<f32>(0.0)", "vec4<f32>(1.0), x < vec4<f32>(0.0)")], |case| relu(case, width));
    }
}

#[test]
fn holds_at_the_ends() {
    let x: Vec<f32> = [-1e4, -90.0, -20.0, -5.0, -1e-6, 0.0, 1e-6, 5.0, 20.0, 90.0, 1e4, 3.0].into();
    let tiers = tiers(&device());
    for tier in tiers {
        for f in [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::Relu] {
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
