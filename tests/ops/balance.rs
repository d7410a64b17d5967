//! Balance losses and z-loss against their twins, alone and through the router, with the logged numbers.

use crate::{
    harness::{Array, Case, Fixture, Input, catches, device, run, tiers},
    permute::{self, experts_drawn},
    router::{self, Routed},
};
use moelab::{
    gpu::{Capabilities, DType, Segment, Step, Tensor},
    ops::{BalanceKind, BalanceLoss, BalanceOptions, Graph, RouterBiases, RouterOptions, Routing, Scores},
};

pub const STEP: Step = Step {
    seed_low: 5,
    seed_high: 9,
    update: 0,
    micro_step: 3,
    lr_adamw: 0.0,
    lr_muon: 0.0,
    balance_coefficient: 0.3,
    z_coefficient: 0.07,
    clip_norm: 0.0,
    inverse_targets: 1.0,
    loss_scale_exponent: 0,
    real_tokens: u32::MAX,
};

/// Which loss a twin trains on.
#[derive(Clone, Copy, Debug)]
pub enum Trained<'a> {
    Off,
    Switch,
    Sequence,
    /// With the experts chosen in earlier micro-batches of the update.
    GlobalBatch(&'a [u32]),
}

fn load(expert: &[u32], experts: usize) -> Vec<f64> {
    let share = |e| expert.iter().filter(|x| **x == e).count() as f64 / expert.len() as f64;
    (0..experts as u32).map(share).collect()
}

fn mean_rows(rows: &[f64], width: usize) -> Vec<f64> {
    let mean = |e| rows.chunks(width).map(|row| row[e]).sum::<f64>() * width as f64 / rows.len() as f64;
    (0..width).map(mean).collect()
}

/// E sum_e f_e P_e
fn product(load: &[f64], mean: &[f64]) -> f64 {
    load.len() as f64 * load.iter().zip(mean).map(|(f, p)| f * p).sum::<f64>()
}

/// Mean over tokens of the gate weight of each expert.
fn mean_gates(r: &Routed, experts: usize) -> Vec<f64> {
    let mut sums = vec![0.0; experts];
    r.expert.iter().zip(&r.gate.data).for_each(|(e, gate)| sums[*e as usize] += gate / r.gate.shape[0] as f64);
    sums
}

/// [loss] and [switch, z, mean entropy, sequence, load .., mean probability .., mean gate weight ..].
pub fn twin(r: &Routed, sequence_length: usize, trained: Trained) -> Vec<Array> {
    let [tokens, experts] = [r.probabilities.shape[0], r.probabilities.shape[1]];
    let (f, p) = (load(&r.expert, experts), mean_rows(&r.probabilities.data, experts));
    let switch = product(&f, &p);
    let by_sequence = (r.expert.chunks(r.expert.len() / tokens * sequence_length))
        .zip(r.probabilities.data.chunks(sequence_length * experts))
        .map(|(expert, rows)| product(&load(expert, experts), &mean_rows(rows, experts)));
    let sequence = by_sequence.sum::<f64>() * sequence_length as f64 / tokens as f64;
    let z = r.logsumexp.data.iter().map(|l| l * l).sum::<f64>() / tokens as f64;
    let entropy = r.entropy.data.iter().sum::<f64>() / tokens as f64;
    let balance = match trained {
        Trained::Off => 0.0,
        Trained::Switch => switch,
        Trained::Sequence => sequence,
        Trained::GlobalBatch(earlier) => product(&load(&[earlier, &r.expert].concat(), experts), &p),
    };
    let loss = f64::from(STEP.balance_coefficient) * balance + f64::from(STEP.z_coefficient) * z;
    let metrics: Vec<f64> = [switch, z, entropy, sequence].into_iter().chain(f).chain(p).chain(mean_gates(r, experts)).collect();
    vec![Array::new([1], vec![loss]), Array::new([metrics.len()], metrics)]
}

/// `load_balancing_loss_func` of Hugging Face transformers, over the concatenated tokens of all layers.
fn mixtral_twin(layers: &[Routed]) -> f64 {
    let experts = layers[0].probabilities.width();
    let k = layers[0].gate.width();
    let expert: Vec<u32> = layers.iter().flat_map(|r| r.expert.clone()).collect();
    let rows: Vec<f64> = layers.iter().flat_map(|r| r.probabilities.data.clone()).collect();
    let p = mean_rows(&rows, experts);
    let of_slot = |slot: usize| load(&expert.iter().skip(slot).step_by(k).copied().collect::<Vec<_>>(), experts);
    f64::from(STEP.balance_coefficient) * (0..k).map(|slot| product(&of_slot(slot), &p)).sum::<f64>()
}

/// B, T, experts a token, experts.
type Sizes = [u32; 4];

const SIZES: [Sizes; 7] = [[1, 1, 1, 1], [7, 1, 2, 3], [1, 131, 1, 4], [3, 67, 2, 8], [2, 33, 8, 64], [4, 300, 2, 3], [300, 5, 2, 5]];

fn inputs([b, t, k, experts]: Sizes) -> [Input; 6] {
    let n = b * t;
    [
        Input::uniform("probabilities", [n, experts], 0.0, 1.0),
        Input::normal("logsumexp", [n]),
        Input::uniform("entropy", [n], 0.0, 2.0),
        Input::u32("expert", [n, k], experts_drawn(n * k, experts)),
        Input::normal("gate", [n, k]),
        Input::u32("earlier", [n * 3, k], experts_drawn(n * 3 * k, experts.div_ceil(2))),
    ]
}

fn routing(t: &[Tensor]) -> Routing {
    Routing { expert: t[3], gate: t[4], probabilities: t[0], logits: t[0], logsumexp: t[1], entropy: t[2] }
}

/// The routing of the first `tokens`.
fn routed(a: &[Array], expert: &[u32], tokens: usize) -> Routed {
    let first = |i: usize| {
        let rest = &a[i].shape[1..];
        Array::new([&[tokens], rest].concat(), a[i].data[..tokens * rest.iter().product::<usize>()].to_vec())
    };
    let [probabilities, logsumexp, entropy, gate] = [0, 1, 2, 4].map(first);
    let expert = expert[..tokens * gate.width()].to_vec();
    Routed { expert, gate, logits: probabilities.clone(), probabilities, logsumexp, entropy }
}

/// The load over two micro-batches; the gates of the earlier one are never read.
fn running_load(g: &mut Graph, t: &[Tensor], experts: u32) -> Tensor {
    let counts = g.state_u32("counts", [experts]);
    let blank = g.input("blank", t[5].shape, DType::F32);
    let earlier = permute::routing(g, t[5], blank, experts);
    let loads = [earlier, routing(t)].map(|routing| {
        let permutation = g.permute(&routing);
        g.count_assignments(counts, &permutation)
    });
    loads[1]
}

/// The first `real` sequences count, the others only fill up.
fn outcome(case: Case, sizes: Sizes, real: u32, trained: Trained) -> Result<(), String> {
    let [b, sequence_length, k, experts] = sizes;
    let expert = experts_drawn(b * sequence_length * k, experts);
    let tokens = (real * sequence_length) as usize;
    let trained = match trained {
        Trained::GlobalBatch(earlier) => Trained::GlobalBatch(&earlier[..earlier.len().min(tokens * k as usize)]),
        other => other,
    };
    case.step(Step { real_tokens: tokens as u32, ..STEP }).seeded_loss().try_check(
        &inputs(sizes),
        |g, t| {
            let (kind, running_load) = match trained {
                Trained::Off => (BalanceKind::Off, None),
                Trained::Switch => (BalanceKind::Switch, None),
                Trained::Sequence => (BalanceKind::Sequence, None),
                Trained::GlobalBatch(_) => (BalanceKind::GlobalBatch, Some(running_load(g, t, experts))),
            };
            let balance = g.balance_loss(&routing(t), BalanceOptions { kind, running_load, sequence_length, measures_gates: true }, None);
            vec![balance.loss, balance.metrics]
        },
        |a| twin(&routed(a, &expert, tokens), sequence_length as usize, trained),
    )
}

#[test]
fn follows_the_twin() {
    for sizes in SIZES {
        let [b, t, k, experts] = sizes;
        let earlier = experts_drawn(b * t * 3 * k, experts.div_ceil(2));
        for trained in [Trained::Off, Trained::Switch, Trained::Sequence, Trained::GlobalBatch(&earlier)] {
            // All of them, some, one.
            let mut reals = vec![b, b.div_ceil(2), 1];
            reals.dedup();
            for real in reals {
                let name = format!("balance_loss {real} of {b} x {t} tokens, {k} of {experts}, {trained:?}");
                outcome(Case::new(name), sizes, real, trained).unwrap_or_else(|message| panic!("{message}"));
            }
        }
    }
}

/// Rows that fill up change no bit of the numbers, whatever stands in them, and their gradient is zero to the bit.
#[test]
fn rows_that_fill_up_have_no_part_in_it() {
    const REAL: u32 = 2;
    let device = device();
    let [t, k, experts] = [33, 2, 8];
    let run = |tier: Capabilities, kind: BalanceKind, b: u32, real_tokens: u32, filler: f32| {
        let drawn = inputs([REAL, t, k, experts]);
        let filled = |index: usize, name: &str, width: u32| {
            let mut values: Vec<f32> = drawn[index].array().data.iter().map(|v| *v as f32).collect();
            values.resize((b * t * width) as usize, filler);
            Input::values(name, [b * t, width], values)
        };
        let mut expert = experts_drawn(REAL * t * k, experts);
        expert.resize((b * t * k) as usize, 0);
        let inputs = [
            filled(0, "probabilities", experts),
            filled(1, "logsumexp", 1),
            filled(2, "entropy", 1),
            Input::u32("expert", [b * t, k], expert),
            filled(4, "gate", k),
        ];
        let mut g = Graph::new(tier);
        let tensors: Vec<Tensor> = inputs.iter().map(|i| i.declare(&mut g)).collect();
        let balance =
            g.balance_loss(&routing(&tensors), BalanceOptions { kind, running_load: None, sequence_length: t, measures_gates: true }, None);
        g.backward(balance.loss);
        g.output("metrics", balance.metrics);
        for (name, of) in [("d_probabilities", 0), ("d_logsumexp", 1)] {
            let gradient = g.grad(tensors[of]).unwrap();
            g.output(name, gradient);
        }
        let seed = Input::values("loss_seed", [1], vec![0.5]);
        let mut fixture = Fixture::new(&device, g.finish(), &[inputs.to_vec(), vec![seed]].concat());
        fixture.run(&Step { real_tokens, ..STEP }, &[Segment::ClearGradients, Segment::Micro]);
        ["metrics", "d_probabilities", "d_logsumexp"].map(|name| fixture.read_named(name))
    };
    for tier in tiers(&device) {
        for kind in [BalanceKind::Switch, BalanceKind::Sequence] {
            let alone = run(tier, kind, REAL, u32::MAX, 0.0);
            for filler in [0.25, 3e38] {
                let filled = run(tier, kind, 5, REAL * t, filler);
                assert_eq!(filled[0], alone[0], "{tier:?} {kind:?}");
                for (found, wanted) in filled[1..].iter().zip(&alone[1..]) {
                    assert_eq!(&found[..wanted.len()], wanted);
                    assert!(found.len() > wanted.len() && found[wanted.len()..].iter().all(|d| *d == 0.0));
                }
            }
        }
    }
}

#[test]
fn mutants_are_caught() {
    let sizes = [3, 67, 2, 8];
    let earlier = experts_drawn(3 * 67 * 3 * 2, 4);
    let none = ("balance", "return scale * step.balance_coefficient * f32(params.experts) *", "return 0.0 *");
    catches(&[none], |case| outcome(case, sizes, 3, Trained::Switch));
    let by_sequence = [none, ("balance", "token / params.sequence_length", "0u")];
    catches(&by_sequence, |case| outcome(case, sizes, 3, Trained::Sequence));
    let running = [none, ("balance", "load[e] = running_load[e];", "load[e] = sh_load[e];")];
    catches(&running, |case| outcome(case, sizes, 3, Trained::GlobalBatch(&earlier)));
    catches(&[("balance", "step.z_coefficient * 2.0 *", "step.z_coefficient *")], |case| outcome(case, sizes, 3, Trained::Off));
    // What the rows that fill up would do in each of the numbers.
    let all = "real_of(params.tokens)";
    let gates = [
        ("balance", "select(0.0, gate[a], expert[a] == owned)", "gate[a]"),
        (
            "balance",
            "gates += saved_sums[b * columns + 2u * params.experts + 2u + e];",
            "gates = saved_sums[b * columns + 2u * params.experts + 2u + e];",
        ),
    ];
    catches(&gates, |case| outcome(case, sizes, 3, Trained::Off));
    let mutants = [("balance", all, "params.tokens"), ("selection_bias", all, "params.tokens")];
    catches(&mutants, |case| outcome(case, sizes, 2, Trained::GlobalBatch(&earlier)));
    catches(&mutants[..1], |case| outcome(case, sizes, 2, Trained::Sequence));
}

#[test]
fn balanced_routing_costs_one_and_k_over_layers() {
    let (tokens, k, experts) = (120_u32, 2_u32, 6_u32);
    let even: Vec<u32> = (0..tokens * k).map(|a| a % experts).collect();
    let inputs = [
        Input::values("probabilities", [tokens, experts], vec![1.0 / experts as f32; (tokens * experts) as usize]),
        Input::normal("logsumexp", [tokens]),
        Input::values("entropy", [tokens], vec![(experts as f32).ln(); tokens as usize]),
        Input::u32("expert", [tokens, k], even),
        Input::normal("gate", [tokens, k]),
    ];
    let tiers = tiers(&device());
    for tier in tiers {
        let found = run(tier, &inputs, |g, t| {
            vec![
                g.balance_loss(
                    &routing(t),
                    BalanceOptions { kind: BalanceKind::Off, running_load: None, sequence_length: 12, measures_gates: true },
                    None,
                )
                .metrics,
            ]
        });
        let metrics = &found[0];
        let is = |found: f32, wanted: f32| assert!((found - wanted).abs() < 1e-6, "wanted {wanted}, found {found}");
        is(BalanceLoss::values(metrics, "switch")[0], 1.0);
        is(BalanceLoss::values(metrics, "sequence")[0], 1.0);
        is(BalanceLoss::values(metrics, "entropy")[0], 6.0_f32.ln());
        for shares in [BalanceLoss::values(metrics, "load"), BalanceLoss::values(metrics, "mean_probability")] {
            assert_eq!(shares.len(), 6);
            shares.iter().for_each(|share| is(*share, 1.0 / 6.0));
        }
    }
    let arrays: Vec<Array> = inputs.iter().map(Input::array).collect();
    let expert: Vec<u32> = arrays[3].data.iter().map(|e| *e as u32).collect();
    let layers = [0, 1].map(|_| routed(&arrays, &expert, tokens as usize));
    let over_layers = mixtral_twin(&layers) / f64::from(STEP.balance_coefficient);
    assert!((over_layers - 2.0).abs() < 1e-6, "{over_layers}");
}

/// Two routers, their kinds of scores and their losses.
fn two_layers(case: Case, width: u32, scores: [Scores; 2], over_layers: bool) -> Result<(), String> {
    let noisy = RouterOptions { noise_std: 0.1, scores: scores[0], ..RouterOptions::new(2) };
    let options = [noisy, RouterOptions { scores: scores[1], ..RouterOptions::new(2) }];
    let w = |name| Input::normal(name, [4, width]).scaled(1.0 / (width as f32).sqrt()).param();
    case.step(STEP).seeded_loss().try_check(
        &[Input::normal("x", [66, width]), w("w"), w("v")],
        |g, t| {
            let (mut layers, mut loss) = (Vec::new(), None);
            for (w, options) in [t[1], t[2]].into_iter().zip(options) {
                let routing = g.router(t[0], w, RouterBiases::default(), options);
                let kind = if over_layers { BalanceKind::Off } else { BalanceKind::Sequence };
                let options = BalanceOptions { kind, running_load: None, sequence_length: 22, measures_gates: true };
                let balance = g.balance_loss(&routing, options, loss);
                loss = Some(balance.loss);
                layers.push((routing, balance));
            }
            let mut loss = loss.expect("two layers");
            if over_layers {
                let over_layers = g.balance_loss_over_layers(&layers);
                loss = g.add(loss, over_layers);
            }
            vec![loss]
        },
        |a| {
            let layers = [0, 1].map(|l| router::twin(&a[0], &a[l + 1], options[l]));
            let trained = if over_layers { Trained::Off } else { Trained::Sequence };
            let own: f64 = layers.iter().map(|r| twin(r, 22, trained)[0].data[0]).sum();
            vec![Array::new([1], vec![own + if over_layers { mixtral_twin(&layers) } else { 0.0 }])]
        },
    )
}

#[test]
fn two_layers_reach_their_routers() {
    let [selected, sigmoid] = [RouterOptions::new(2).scores, Scores::sigmoid(true)];
    for width in [13, 64] {
        for scores in [[selected, selected], [sigmoid, sigmoid], [selected, sigmoid]] {
            for over_layers in [false, true] {
                let name = format!("balance_loss of two routers, width {width}, {scores:?}, over layers {over_layers}");
                two_layers(Case::new(name), width, scores, over_layers).unwrap_or_else(|message| panic!("{message}"));
            }
        }
    }
    let mutants = [
        ("balance", "load[local] = sh_load[local] / f32(params.layers);", "load[local] = sh_load[local];"),
        ("balance", "f32(params.experts_per_token) * f /", "f /"),
        ("balance", "loss[0] = before[0] + own", "loss[0] = own"),
    ];
    catches(&mutants, |case| two_layers(case, 13, [selected, selected], true));
}

/// One expert a token, weighted 1: only the auxiliary losses reach the router.
#[test]
fn the_router_learns_from_the_auxiliary_losses_alone() {
    let device = device();
    for tier in tiers(&device) {
        for kind in [BalanceKind::Switch, BalanceKind::Sequence] {
            let inputs = [Input::normal("x", [30, 7]), Input::normal("w", [4, 7]).param()];
            let mut g = Graph::new(tier);
            let t: Vec<Tensor> = inputs.iter().map(|i| i.declare(&mut g)).collect();
            let routing = g.router(t[0], t[1], RouterBiases::default(), RouterOptions::new(1));
            let balance =
                g.balance_loss(&routing, BalanceOptions { kind, running_load: None, sequence_length: 10, measures_gates: true }, None);
            let d_gate = g.input("d_gate", routing.gate.shape, DType::F32);
            let seed = g.loss_seed();
            g.backward_from(&[(routing.gate, d_gate), (balance.loss, seed)]);
            let extra = [Input::normal("d_gate", [30, 1]), Input::values("loss_seed", [1], vec![1.0])];
            let mut fixture = Fixture::new(&device, g.finish(), &[inputs.to_vec(), extra.to_vec()].concat());
            let mut gradient = |balance_coefficient, z_coefficient| {
                let step = Step { balance_coefficient, z_coefficient, ..STEP };
                fixture.run(&step, &[Segment::ClearGradients, Segment::Micro]);
                fixture.read_named("d_w")
            };
            assert!(gradient(0.0, 0.0).iter().all(|d| *d == 0.0));
            assert!(gradient(0.1, 0.0).iter().any(|d| *d != 0.0));
            assert!(gradient(0.0, 0.1).iter().any(|d| *d != 0.0));
        }
    }
}
