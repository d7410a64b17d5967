//! What the optimizers tell about their own results: a finite gradient does not vouch for a finite weight.

use moelab::{
    gpu::{Step, Tensor},
    ops::{AdamW, Graph, Muon, MuonScale, Trained},
};

use crate::{
    harness::{Fixture, Input},
    update::{clip, on_every_tier, update},
};

const ADAMW: AdamW = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
const MUON: Muon = Muon { momentum: 0.95, scale: MuonScale::MatchRmsAdamW, weight_decay: 0.1 };

/// With images, by fours, by ones; for Muon with images, without, and short enough for the kernel that does all in one.
const SHAPES: [&[u32]; 4] = [&[128, 64], &[20, 30], &[7, 3], &[17, 19]];

fn damage(fixture: &Fixture) -> u32 {
    let bytes = fixture.read_bytes(fixture.program.find("update_damage").expect("a state"));
    bytemuck::cast_slice(&bytes)[0]
}

fn is_finite(fixture: &Fixture) -> bool {
    fixture.read_named("w").iter().all(|w| w.is_finite())
}

/// Runs `body` for both optimizers, all shapes and all tiers.
fn on_every_kernel(body: impl Fn(&str, &mut Fixture, &[f32])) {
    let adamw: fn(&mut Graph, Tensor, Tensor) = |g, w, clip| g.adamw(w, clip, ADAMW);
    let muon: fn(&mut Graph, Tensor, Tensor) = |g, w, clip| g.muon(&[Trained::from(w)], clip, MUON);
    for (name, optimizer) in [("adamw", adamw), ("muon", muon)] {
        for shape in SHAPES {
            let w = Input::normal("w", shape).param();
            let gradient: Vec<f32> = Input::normal("g", shape).array().data.iter().map(|v| *v as f32).collect();
            on_every_tier(
                std::slice::from_ref(&w),
                |g, t| {
                    let clip = g.grad_norm(t);
                    optimizer(g, t[0], clip);
                    clip
                },
                |tier, fixture| body(&format!("{name} {shape:?} ({tier:?})"), fixture, &gradient),
            );
        }
    }
}

#[test]
fn a_weight_that_is_not_finite_is_told_with_its_update() {
    let usual = Step { lr_adamw: 0.01, lr_muon: 0.01, clip_norm: 1.0, ..Step::default() };
    on_every_kernel(|what, fixture, gradient| {
        let start = fixture.read_named("w");
        update(fixture, &usual, &[("w", gradient)]);
        assert!(is_finite(fixture) && damage(fixture) == 0, "{what}");
        update(fixture, &Step { lr_adamw: f32::INFINITY, lr_muon: f32::INFINITY, ..usual }, &[("w", gradient)]);
        assert!(clip(fixture).2, "{what}: the gradient is finite");
        assert!(!is_finite(fixture) && damage(fixture) == 1, "{what}");
        // What is told is of the last update: this one is skipped.
        update(fixture, &usual, &[("w", &vec![f32::NAN; gradient.len()])]);
        assert_eq!(damage(fixture), 0, "{what}");
        fixture.memory.write(fixture.device, "w", bytemuck::cast_slice(&start));
        update(fixture, &usual, &[("w", gradient)]);
        assert!(is_finite(fixture) && damage(fixture) == 0, "{what}");
    });
}

#[test]
fn one_value_is_enough() {
    let usual = Step { lr_adamw: 0.01, lr_muon: 0.01, clip_norm: 1.0, ..Step::default() };
    on_every_kernel(|what, fixture, gradient| {
        let last = gradient.len() - 1;
        for (state, value) in [("w", f32::INFINITY), ("adamw.v.w", -1.0), ("adamw.v.w", f32::INFINITY), ("adamw.m.w", f32::NAN)] {
            if fixture.program.find(state).is_none() {
                continue; // Muon has no such moment.
            }
            let good = fixture.read_named(state);
            let mut bad = good.clone();
            bad[last] = value;
            let weights = fixture.read_named("w");
            fixture.memory.write(fixture.device, state, bytemuck::cast_slice(&bad));
            update(fixture, &usual, &[("w", gradient)]);
            assert_eq!(damage(fixture), 1, "{what}: {value} in {state}");
            fixture.memory.write(fixture.device, "w", bytemuck::cast_slice(&weights));
            fixture.memory.write(fixture.device, state, bytemuck::cast_slice(&good));
        }
    });
}
