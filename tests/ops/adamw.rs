//! AdamW against an f64 twin of `torch.optim.AdamW` over several updates.

use moelab::{
    gpu::Step,
    ops::{AdamW, Trained},
};

use crate::{
    harness::{Fixture, Input},
    update::{assert_change_close, assert_close, on_every_tier, update},
};

const CONSTANTS: AdamW = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

fn step(update: u32) -> Step {
    Step { update, lr_adamw: 0.01 * (1.0 + 0.3 * update as f32), clip_norm: 1.0, ..Step::default() }
}

struct Twin {
    w: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
    updates: i32,
}

impl Twin {
    fn new(w: &[f64]) -> Twin {
        Twin { w: w.to_vec(), m: vec![0.0; w.len()], v: vec![0.0; w.len()], updates: 0 }
    }

    fn update(&mut self, g: &[f64], factor: f64, step: &Step) {
        let (beta1, beta2) = (f64::from(CONSTANTS.beta1), f64::from(CONSTANTS.beta2));
        let lr = f64::from(step.lr_adamw);
        self.updates += 1;
        let correction = |beta: f64| 1.0 - beta.powi(self.updates);
        for (i, g) in g.iter().enumerate() {
            let g = g * factor;
            self.w[i] *= 1.0 - lr * f64::from(CONSTANTS.weight_decay);
            self.m[i] += (1.0 - beta1) * (g - self.m[i]);
            self.v[i] = beta2 * self.v[i] + (1.0 - beta2) * g * g;
            let denominator = (self.v[i] / correction(beta2)).sqrt() + f64::from(CONSTANTS.eps);
            self.w[i] -= lr / correction(beta1) * self.m[i] / denominator;
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
                let mut twin = Twin::new(&start);
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

/// A gradient that is not finite leaves the other parameter, too, untouched bit for bit, and is no update that counts.
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
            let bits =
                |f: &Fixture| -> Vec<Vec<u32>> { states.iter().map(|n| f.read_named(n).iter().map(|v| v.to_bits()).collect()).collect() };
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
            let start = parameters[0].array().data;
            let mut twin = Twin::new(&start);
            for i in 0..2 {
                let [d_a, d_b] = [8256, 13].map(|length| gradient(length, i).into_iter().map(f64::from).collect::<Vec<f64>>());
                let norm = d_a.iter().chain(&d_b).map(|g| g * g).sum::<f64>().sqrt();
                twin.update(&d_a, (1.0 / (norm + 1e-6)).min(1.0), &step(i));
            }
            let found: Vec<f64> = fixture.read_named("a").iter().map(|v| f64::from(*v)).collect();
            assert_change_close("a skipped update", &found, &twin.w, &start, 1e-5);
        },
    );
}

/// Assignments of the experts in an update: each is idle in every third.
fn assignments(experts: u32, update: u32) -> Vec<u32> {
    (0..experts).map(|e| (update + e) % 3 * (e + 1)).collect()
}

fn counts(experts: u32, values: Vec<u32>) -> Input {
    Input::u32("counts", [experts], values)
}

/// Shapes of experts: with images, by fours, and by ones as fours do not end where an expert does.
const EXPERTS: [&[u32]; 5] = [&[3, 64, 64], &[5, 4], &[3, 4, 20], &[4, 6], &[3, 5, 7]];

/// Weight, mean and mean square of each expert, as bits.
fn expert_bits(fixture: &Fixture, experts: u32) -> Vec<[Vec<u32>; 3]> {
    let bits = |name: &str, e: u32| {
        let all = fixture.read_named(name);
        let size = all.len() / experts as usize;
        all[e as usize * size..][..size].iter().map(|v| v.to_bits()).collect()
    };
    (0..experts).map(|e| ["w", "adamw.m.w", "adamw.v.w"].map(|name| bits(name, e))).collect()
}

/// What is skipped stays to the bit, whatever its gradient; the rest is as if each expert were trained on its own.
#[test]
fn experts_without_assignments_are_left_as_they_are() {
    for shape in EXPERTS {
        let (experts, length) = (shape[0], shape.iter().product::<u32>());
        let size = (length / experts) as usize;
        let w = Input::normal("w", shape).param();
        on_every_tier(
            &[w.clone(), counts(experts, vec![0; experts as usize])],
            |g, t| {
                let clip = g.grad_norm(&t[..1]);
                g.adamw(Trained { w: t[0], assignments: Some(t[1]) }, clip, CONSTANTS);
                clip
            },
            |tier, fixture| {
                let start = w.array().data;
                let mut twins: Vec<Twin> = start.chunks(size).map(Twin::new).collect();
                for i in 0..7 {
                    let (d_w, before) = (gradient(length, i), expert_bits(fixture, experts));
                    fixture.write(&counts(experts, assignments(experts, i)));
                    update(fixture, &step(i), &[("w", &d_w)]);
                    let after = expert_bits(fixture, experts);
                    let d_w: Vec<f64> = d_w.iter().map(|v| f64::from(*v)).collect();
                    let factor = (1.0 / (d_w.iter().map(|g| g * g).sum::<f64>().sqrt() + 1e-6)).min(1.0);
                    for (e, count) in assignments(experts, i).into_iter().enumerate() {
                        assert_eq!(before[e] == after[e], count == 0, "{shape:?}, expert {e} in update {i} ({tier:?})");
                        if count > 0 {
                            twins[e].update(&d_w[e * size..][..size], factor, &step(i));
                        }
                    }
                }
                let what = format!("adamw {shape:?} with idle experts ({tier:?})");
                let all = |part: fn(&Twin) -> &Vec<f64>| twins.iter().flat_map(part).copied().collect::<Vec<f64>>();
                let found: Vec<f64> = fixture.read_named("w").iter().map(|v| f64::from(*v)).collect();
                assert_change_close(&what, &found, &all(|t| &t.w), &start, 1e-5);
                assert_close(&what, &fixture.read_named("adamw.m.w"), &all(|t| &t.m), 1e-5);
                assert_close(&what, &fixture.read_named("adamw.v.w"), &all(|t| &t.v), 1e-5);
            },
        );
    }
}

/// A gradient that is not finite is no update of any expert: its corrections stay as well.
#[test]
fn a_bad_gradient_is_no_update_of_an_expert() {
    on_every_tier(
        &[Input::normal("w", [3, 4, 20]).param(), counts(3, vec![1, 0, 7])],
        |g, t| {
            let clip = g.grad_norm(&t[..1]);
            g.adamw(Trained { w: t[0], assignments: Some(t[1]) }, clip, CONSTANTS);
            clip
        },
        |_, fixture| {
            let good = gradient(240, 0);
            update(fixture, &step(0), &[("w", &good)]);
            let (before, corrections) = (expert_bits(fixture, 3), fixture.read_named("adamw.corrections.w"));
            let bad: Vec<f32> = good.iter().map(|g| g / 0.0).collect();
            update(fixture, &step(1), &[("w", &bad)]);
            assert_eq!(expert_bits(fixture, 3), before);
            assert_eq!(fixture.read_named("adamw.corrections.w"), corrections);
            assert!(corrections[0] > 0.0 && corrections[2..4] == [0.0, 0.0], "{corrections:?}");
        },
    );
}

/// Without counts an expert without gradient is still updated: its moments decay, and weight decay and mean move it.
#[test]
fn a_zero_gradient_is_an_update() {
    for shape in EXPERTS {
        let (experts, length) = (shape[0], shape.iter().product::<u32>());
        let w = Input::normal("w", shape).param();
        on_every_tier(
            std::slice::from_ref(&w),
            |g, t| {
                let clip = g.grad_norm(t);
                g.adamw(t[0], clip, CONSTANTS);
                clip
            },
            |_, fixture| {
                update(fixture, &step(0), &[("w", &gradient(length, 0))]);
                let before = expert_bits(fixture, experts);
                update(fixture, &step(1), &[("w", &vec![0.0; length as usize])]);
                let after = expert_bits(fixture, experts);
                assert!(before.iter().zip(&after).all(|(b, a)| (0..3).all(|part| b[part] != a[part])), "{shape:?}");
            },
        );
    }
}
