//! Balance loss and z-loss against their twins, alone and through the router, with the logged numbers.

use crate::{
    harness::{Array, Case, Input},
    permute::experts_drawn,
    router,
};
use moelab::{
    gpu::Step,
    ops::{RouterOptions, Routing, SoftmaxOver},
};

pub const STEP: Step = Step {
    seed_low: 5,
    seed_high: 9,
    update: 0,
    micro_step: 3,
    lr_adamw: 0.0,
    lr_muon: 0.0,
    adamw_correction1: 1.0,
    adamw_correction2: 1.0,
    balance_coefficient: 0.3,
    z_coefficient: 0.07,
    clip_norm: 0.0,
    inverse_targets: 1.0,
    inverse_accumulation: 1.0,
};

/// [loss] and [aux, z, mean entropy, load ..].
pub fn twin(expert: &[u32], probabilities: &Array, logsumexp: &Array, entropy: &Array) -> Vec<Array> {
    let (tokens, experts) = (probabilities.shape[0], probabilities.shape[1]);
    let load: Vec<f64> =
        (0..experts as u32).map(|e| expert.iter().filter(|x| **x == e).count() as f64 / expert.len() as f64).collect();
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / tokens as f64;
    let aux = experts as f64 * (0..experts).map(|e| load[e] * mean(&mut probabilities.rows().map(|row| row[e]))).sum::<f64>();
    let z = mean(&mut logsumexp.data.iter().map(|l| l * l));
    let entropy = mean(&mut entropy.data.iter().copied());
    let metrics = [aux, z, entropy].into_iter().chain(load).collect();
    let loss = f64::from(STEP.balance_coefficient) * aux + f64::from(STEP.z_coefficient) * z;
    vec![Array::new([1], vec![loss]), Array::new([3 + experts], metrics)]
}

#[test]
fn follows_the_twin() {
    for (tokens, k, experts) in [(1, 1, 1), (7, 2, 3), (131, 1, 4), (509, 2, 8), (67, 8, 64), (9001, 2, 3)] {
        let expert = experts_drawn(tokens * k, experts);
        Case::new(format!("balance_loss {tokens} tokens, {k} of {experts}")).step(STEP).seeded_loss().check(
            &[
                Input::uniform("probabilities", [tokens, experts], 0.0, 1.0),
                Input::normal("logsumexp", [tokens]),
                Input::uniform("entropy", [tokens], 0.0, 2.0),
                Input::u32("expert", [tokens, k], expert.clone()),
                Input::normal("gate", [tokens, k]),
            ],
            |g, t| {
                let routing =
                    Routing { expert: t[3], gate: t[4], probabilities: t[0], logits: t[0], logsumexp: t[1], entropy: t[2] };
                let permutation = g.permute(&routing);
                let balance = g.balance_loss(&routing, &permutation);
                vec![balance.loss, balance.metrics]
            },
            |a| twin(&expert, &a[0], &a[1], &a[2]),
        );
    }
}

#[test]
fn two_layers_reach_their_routers() {
    let options = RouterOptions { experts_per_token: 2, noise_std: 0.1, softmax_over: SoftmaxOver::Selected };
    for width in [13, 64] {
        let w = |name| Input::normal(name, [4, width]).scaled(1.0 / (width as f32).sqrt()).param();
        Case::new(format!("balance_loss of two routers, width {width}")).step(STEP).seeded_loss().check(
            &[Input::normal("x", [67, width]), w("w"), w("v")],
            |g, t| {
                let mut losses = Vec::new();
                for (w, options) in [(t[1], options), (t[2], RouterOptions { noise_std: 0.0, ..options })] {
                    let routing = g.router(t[0], w, options);
                    let permutation = g.permute(&routing);
                    losses.push(g.balance_loss(&routing, &permutation).loss);
                }
                vec![g.add_losses(&losses)]
            },
            |a| {
                let loss = |w, options| {
                    let r = router::twin(&a[0], w, options);
                    twin(&r.expert, &r.probabilities, &r.logsumexp, &r.entropy)[0].data[0]
                };
                vec![Array::new([1], vec![loss(&a[1], options) + loss(&a[2], RouterOptions { noise_std: 0.0, ..options })])]
            },
        );
    }
}
