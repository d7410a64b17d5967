//! Optimizers and rotary positions against PyTorch (`tests/fixtures/optimizers.py` made the golden file).

use moelab::{
    gpu::Step,
    ops::{AdamW, Heads, Muon, MuonScale, RopePairing, Rotation},
};
use safetensors::SafeTensors;

use crate::{
    harness::{Fixture, Input, device, run, tiers},
    update::{assert_change_close, assert_close, on_every_tier, update},
};

const STEPS: usize = 10;
/// The two experts are one parameter here, two in PyTorch.
const MATRICES: [(&str, [u32; 2]); 4] = [("wide", [24, 40]), ("tall", [40, 24]), ("square", [20, 20]), ("short", [8, 30])];

/// A tensor of the golden file; of `experts`, both of them.
fn golden(matrix: &str, what: &str) -> Vec<f32> {
    let file = SafeTensors::deserialize(include_bytes!("../fixtures/optimizers.safetensors")).unwrap();
    let read = |name: &str| -> Vec<f32> {
        let view = file.tensor(&format!("{name}.{what}")).unwrap();
        view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    match matrix {
        "experts" => [read("expert_0"), read("expert_1")].concat(),
        matrix => read(matrix),
    }
}

fn gradient(matrix: &str, step: usize) -> Vec<f32> {
    let of = |matrix: &str| {
        let all = golden(matrix, "gradients");
        let length = all.len() / STEPS;
        all[step * length..][..length].to_vec()
    };
    match matrix {
        "experts" => [of("expert_0"), of("expert_1")].concat(),
        matrix => of(matrix),
    }
}

fn parameters() -> Vec<Input> {
    let matrices = MATRICES.iter().map(|(name, shape)| Input::values(name, *shape, golden(name, "start")).param());
    matrices.chain([Input::values("experts", [2, 20, 28], golden("experts", "start")).param()]).collect()
}

/// Ten steps, then every matrix within 1e-4 of its change.
fn follow(what: &str, fixture: &mut Fixture, step: impl Fn(u32) -> Step) {
    let names = MATRICES.iter().map(|(name, _)| *name).chain(["experts"]);
    for i in 0..STEPS {
        let gradients: Vec<(&str, Vec<f32>)> = names.clone().map(|name| (name, gradient(name, i))).collect();
        let gradients: Vec<(&str, &[f32])> = gradients.iter().map(|(name, g)| (*name, g.as_slice())).collect();
        update(fixture, &step(i as u32), &gradients);
    }
    let wide = |values: Vec<f32>| -> Vec<f64> { values.into_iter().map(f64::from).collect() };
    for name in names {
        let (found, wanted, start) = (wide(fixture.read_named(name)), wide(golden(name, what)), wide(golden(name, "start")));
        assert_change_close(&format!("{what} {name}"), &found, &wanted, &start, 1e-4);
    }
}

#[test]
fn muon_follows_torch() {
    for (what, scale) in [("muon_original", MuonScale::MaxOneRowsOverCols), ("muon_match_rms_adamw", MuonScale::MatchRmsAdamW)] {
        let constants = Muon { momentum: 0.95, scale, weight_decay: 0.1 };
        let step = |update: u32| Step { update, lr_muon: 0.02 * (1.0 + 0.25 * update as f32), ..Step::default() };
        on_every_tier(
            &parameters(),
            |g, t| {
                let clip = g.grad_norm(t);
                g.muon(&t.iter().map(|w| (*w).into()).collect::<Vec<_>>(), clip, constants);
                clip
            },
            |_, fixture| follow(what, fixture, step),
        );
    }
}

#[test]
fn adamw_follows_torch() {
    let constants = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
    let step = |update: u32| {
        let lr_adamw = 0.004 * (1.0 + 0.25 * update as f32);
        Step { update, lr_adamw, ..Step::default() }
    };
    on_every_tier(
        &parameters(),
        |g, t| {
            let clip = g.grad_norm(t);
            t.iter().for_each(|w| g.adamw(*w, clip, constants));
            clip
        },
        |_, fixture| follow("adamw", fixture, step),
    );
}

#[test]
fn interleaved_rope_follows_torchtune() {
    const WIDTH: usize = 3 * 8;
    let (heads, wanted) = (golden("rope", "heads"), golden("rope", "turned"));
    // The keys are the queries; the values, which do not turn, too.
    let rows: Vec<f32> = heads.chunks(WIDTH).flat_map(|row| [row, row, row].concat()).collect();
    let input = Input::values("qkv", [2 * 24, 3 * WIDTH as u32], rows);
    let shape = Heads { tokens: 24, query: 3, key_value: 3, width: 8 };
    let rotation = Rotation { rotated: 8, base: 10_000.0, pairs: RopePairing::Interleaved };
    let all = tiers(&device());
    for tier in all {
        let found = run(tier, std::slice::from_ref(&input), |g, t| {
            let (q, kv) = g.rope(t[0], shape, rotation);
            vec![q, kv]
        });
        let turned: Vec<f64> = wanted.iter().map(|v| f64::from(*v)).collect();
        assert_close("queries", &found[0], &turned, 1e-6);
        for (kv, (k, v)) in found[1].chunks(2 * WIDTH).zip(wanted.chunks(WIDTH).zip(heads.chunks(WIDTH))) {
            let k: Vec<f64> = k.iter().map(|v| f64::from(*v)).collect();
            assert_close("keys", &kv[..WIDTH], &k, 1e-6);
            assert_eq!(&kv[WIDTH..], v);
        }
    }
}
