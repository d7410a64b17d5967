//! AdamW against an f64 twin of `torch.optim.AdamW` over several updates.

use moelab::{gpu::Step, ops::AdamW};

use crate::{
    harness::Input,
    update::{assert_change_close, assert_close, on_every_tier, update},
};

const CONSTANTS: AdamW = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

fn step(update: u32) -> Step {
    let t = update as i32 + 1;
    Step {
        update,
        lr_adamw: 0.01 * (1.0 + 0.3 * update as f32),
        adamw_correction1: 1.0 - CONSTANTS.beta1.powi(t),
        adamw_correction2: 1.0 - CONSTANTS.beta2.powi(t),
        clip_norm: 1.0,
        ..Step::default()
    }
}

struct Twin {
    w: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
}

impl Twin {
    fn update(&mut self, g: &[f64], factor: f64, step: &Step) {
        let (beta1, beta2) = (f64::from(CONSTANTS.beta1), f64::from(CONSTANTS.beta2));
        let lr = f64::from(step.lr_adamw);
        for (i, g) in g.iter().enumerate() {
            let g = g * factor;
            self.w[i] *= 1.0 - lr * f64::from(CONSTANTS.weight_decay);
            self.m[i] += (1.0 - beta1) * (g - self.m[i]);
            self.v[i] = beta2 * self.v[i] + (1.0 - beta2) * g * g;
            let denominator = (self.v[i] / f64::from(step.adamw_correction2)).sqrt() + f64::from(CONSTANTS.eps);
            self.w[i] -= lr / f64::from(step.adamw_correction1) * self.m[i] / denominator;
        }
    }
}

/// A gradient, sparse as an embedding's: every third element is zero.
fn gradient(length: u32, update: u32) -> Vec<f32> {
    let g = Input::normal(&format!("g{update}"), [length]).array();
    g.data.iter().enumerate().map(|(i, v)| if i % 3 == 1 { 0.0 } else { *v as f32 }).collect()
}

#[test]
fn follows_the_twin() {
    for length in [1, 4, 7, 64, 257, 1024, 8256, 20_011, 20_032] {
        let w = Input::normal("w", [length]).param();
        on_every_tier(
            std::slice::from_ref(&w),
            |g, t| {
                let clip = g.grad_norm(t);
                g.adamw(t[0], clip, CONSTANTS);
                clip
            },
            |tier, fixture| {
                let start = w.array().data;
                let mut twin = Twin { w: start.clone(), m: vec![0.0; start.len()], v: vec![0.0; start.len()] };
                for i in 0..5 {
                    let d_w = gradient(length, i);
                    update(fixture, &step(i), &[("w", &d_w)]);
                    let d_w: Vec<f64> = d_w.iter().map(|v| f64::from(*v)).collect();
                    let norm = d_w.iter().map(|g| g * g).sum::<f64>().sqrt();
                    twin.update(&d_w, (1.0 / (norm + 1e-6)).min(1.0), &step(i));
                }
                let what = format!("adamw {length} ({tier:?})");
                let found: Vec<f64> = fixture.read_named("w").iter().map(|v| f64::from(*v)).collect();
                assert_change_close(&what, &found, &twin.w, &start, 1e-5);
                assert_close(&what, &fixture.read_named("adamw.m.w"), &twin.m, 1e-5);
                assert_close(&what, &fixture.read_named("adamw.v.w"), &twin.v, 1e-5);
            },
        );
    }
}

/// A gradient that is not finite leaves the other parameter, too, untouched bit for bit.
#[test]
fn a_bad_gradient_changes_nothing() {
    let parameters = [Input::normal("a", [129, 64]).param(), Input::normal("b", [13]).param()];
    let states = ["a", "b", "adamw.m.a", "adamw.v.a", "adamw.m.b", "adamw.v.b"];
    on_every_tier(
        &parameters,
        |g, t| {
            let clip = g.grad_norm(t);
            t.iter().for_each(|w| g.adamw(*w, clip, CONSTANTS));
            clip
        },
        |_, fixture| {
            let bits = |f: &crate::harness::Fixture| -> Vec<Vec<u32>> {
                states.iter().map(|n| f.read_named(n).iter().map(|v| v.to_bits()).collect()).collect()
            };
            update(fixture, &step(0), &[("a", &gradient(8256, 0)), ("b", &gradient(13, 0))]);
            let before = bits(fixture);
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut d_b = gradient(13, 1);
                d_b[12] = bad;
                update(fixture, &step(1), &[("a", &gradient(8256, 1)), ("b", &d_b)]);
                assert_eq!(bits(fixture), before, "{bad}");
            }
            update(fixture, &step(1), &[("a", &gradient(8256, 1)), ("b", &gradient(13, 1))]);
            let after = bits(fixture);
            assert!(after.iter().zip(&before).all(|(a, b)| a != b), "a good gradient must change everything again");
        },
    );
}
