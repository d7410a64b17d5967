//! The router against its twin (the choice of experts does not move under central differences), and its choice exactly.
//!
//! Long because scores, groups and biases meet in one op, and the balance losses are tested through the same twin.

use crate::harness::{Array, Case, Input, catches, device, run, run_bytes, run_u32, tiers};
use moelab::{
    gpu::Tensor,
    ops::{Graph, RouterBiases, RouterOptions, RouterScores, Routing, Scores, SoftmaxOver},
    random::Stream,
};

/// A router's output in f64.
pub struct Routed {
    pub expert: Vec<u32>,
    pub gate: Array,
    pub probabilities: Array,
    pub logits: Array,
    pub logsumexp: Array,
    pub entropy: Array,
}

/// What is added to logits and choice scores [E].
#[derive(Clone, Copy, Default)]
pub struct Biases<'a> {
    pub logits: Option<&'a Array>,
    pub selection: Option<&'a Array>,
}

/// Indices of the `k` largest, largest first, ties to the lowest index.
pub fn top_k(scores: &[f64], k: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..scores.len() as u32).collect();
    order.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]));
    order.truncate(k);
    order
}

/// The scores, with `masked` for experts whose group is not among the `kept` best of `groups`.
fn limited(scores: &[f64], groups: usize, kept: usize, masked: f64) -> Vec<f64> {
    let members = scores.len() / groups;
    let group_scores: Vec<f64> = (scores.chunks(members)).map(|group| top_k(group, 2).iter().map(|e| group[*e as usize]).sum()).collect();
    let kept = top_k(&group_scores, kept);
    (0..scores.len()).map(|e| if kept.contains(&((e / members) as u32)) { scores[e] } else { masked }).collect()
}

/// The router of `x` [N, D] and `w` [E, D] without biases.
pub fn twin(x: &Array, w: &Array, options: RouterOptions) -> Routed {
    twin_with(x, w, Biases::default(), options)
}

/// The router; noise is that of stream 1 in the harness's step.
pub fn twin_with(x: &Array, w: &Array, biases: Biases, options: RouterOptions) -> Routed {
    let (tokens, experts, k) = (x.rows().count(), w.rows().count(), options.experts_per_token as usize);
    let noise = Stream { seed: 5 | 9 << 32, step: 3, stream: 1 };
    let mut routed = Routed {
        expert: Vec::new(),
        gate: Array::zeros([tokens, k]),
        probabilities: Array::zeros([tokens, experts]),
        logits: Array::zeros([tokens, experts]),
        logsumexp: Array::zeros([tokens]),
        entropy: Array::zeros([tokens]),
    };
    let bias_of = |bias: Option<&Array>, e: usize| bias.map_or(0.0, |b| b.data[e]);
    for (n, x) in x.rows().enumerate() {
        let logits: Vec<f64> = (w.rows().enumerate())
            .map(|(e, w)| {
                let z = f64::from(options.noise_std) * f64::from(noise.normal((n * experts + e) as u32));
                let logit = x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + bias_of(biases.logits, e);
                logit + if options.noise_std > 0.0 { z } else { 0.0 }
            })
            .collect();
        let logsumexp = logits.iter().map(|l| l.exp()).sum::<f64>().ln();
        let scores: Vec<f64> = match options.scores.kind {
            RouterScores::Softmax => logits.iter().map(|l| (l - logsumexp).exp()).collect(),
            RouterScores::Sigmoid => logits.iter().map(|l| 1.0 / (1.0 + (-l).exp())).collect(),
        };
        let total: f64 = scores.iter().sum();
        let p: Vec<f64> = scores.iter().map(|s| s / total).collect();
        let choice: Vec<f64> = scores.iter().enumerate().map(|(e, s)| s + bias_of(biases.selection, e)).collect();
        let chosen = match options.force_balance {
            true => (n * k..(n + 1) * k).map(|assignment| (assignment % experts) as u32).collect(),
            false => top_k(&limited(&choice, options.groups as usize, options.kept_groups as usize, f64::NEG_INFINITY), k),
        };
        let chosen_total: f64 = chosen.iter().map(|e| scores[*e as usize]).sum();
        let over = match options.scores {
            scores if scores == SELECTED || scores == NORMALIZED => chosen_total,
            _ => 1.0,
        };
        for (slot, e) in chosen.iter().enumerate() {
            routed.gate.data[n * k + slot] = f64::from(options.scale) * scores[*e as usize] / over;
        }
        routed.expert.extend(chosen);
        routed.logsumexp.data[n] = logsumexp;
        routed.entropy.data[n] = -p.iter().map(|p| p * p.ln()).sum::<f64>();
        routed.probabilities.data[n * experts..][..experts].copy_from_slice(&p);
        routed.logits.data[n * experts..][..experts].copy_from_slice(&logits);
    }
    routed
}

fn weight(name: &str, width: u32, experts: u32) -> Input {
    Input::normal(name, [experts, width]).scaled(1.0 / (width as f32).sqrt())
}

fn inputs(tokens: u32, width: u32, experts: u32) -> [Input; 2] {
    [Input::normal("x", [tokens, width]), weight("w", width, experts).param()]
}

/// Tokens, width, experts, experts a token; the widths of 64 and its multiples have images.
type Sizes = [u32; 4];

const SHAPES: [Sizes; 10] = [
    [1, 1, 1, 1],
    [1, 7, 3, 2],
    [5, 16, 4, 2],
    [9, 5, 4, 4],
    [67, 13, 8, 2],
    [300, 3, 5, 1],
    [131, 64, 4, 2],
    [33, 128, 10, 3],
    [3, 64, 7, 7],
    [65, 192, 64, 8],
];

#[test]
fn follows_the_twin() {
    for [tokens, width, experts, experts_per_token] in SHAPES {
        for (softmax_over, noise_std) in [(SoftmaxOver::Selected, 0.0), (SoftmaxOver::All, 0.0), (SoftmaxOver::Selected, 0.1)] {
            let scores = Scores::softmax(softmax_over);
            let options = RouterOptions { noise_std, scores, ..RouterOptions::new(experts_per_token) };
            let name = format!("router {tokens}x{width}, {experts_per_token} of {experts}, {softmax_over:?}, noise {noise_std}");
            Case::new(name).check(
                &inputs(tokens, width, experts),
                |g, t| {
                    let r = g.router(t[0], t[1], RouterBiases::default(), options);
                    vec![r.gate, r.probabilities, r.logsumexp]
                },
                |a| {
                    let r = twin(&a[0], &a[1], options);
                    vec![r.gate, r.probabilities, r.logsumexp]
                },
            );
        }
    }
}

/// A router that differs from the plain one.
#[derive(Clone, Copy, Debug)]
struct Variant {
    sizes: Sizes,
    options: RouterOptions,
    has_bias: bool,
    has_selection_bias: bool,
}

impl Variant {
    /// Sizes, scores, scale, groups, kept groups, noise, whether it has a bias on the logits and one on the choice.
    fn new(sizes: Sizes, scores: Scores, scale: f32, groups: [u32; 2], noise_std: f32, biases: [bool; 2]) -> Variant {
        let [groups, kept_groups] = groups;
        let options = RouterOptions { noise_std, scores, scale, groups, kept_groups, ..RouterOptions::new(sizes[3]) };
        Variant { sizes, options, has_bias: biases[0], has_selection_bias: biases[1] }
    }

    fn in_turn(mut self) -> Variant {
        self.options.force_balance = true;
        self
    }

    /// x, w, bias on the logits, bias on the choice.
    fn inputs(self) -> [Input; 4] {
        let [tokens, width, experts, _] = self.sizes;
        let [x, w] = inputs(tokens, width, experts);
        [x, w, Input::normal("bias", [experts]).scaled(0.5).param(), Input::normal("selection_bias", [experts]).scaled(0.2)]
    }

    fn record(self, g: &mut Graph, t: &[Tensor]) -> Routing {
        let [logits, selection] = [self.has_bias.then_some(t[2]), self.has_selection_bias.then_some(t[3])];
        g.router(t[0], t[1], RouterBiases { logits, selection }, self.options)
    }

    fn twin(self, a: &[Array]) -> Routed {
        let [logits, selection] = [self.has_bias.then_some(&a[2]), self.has_selection_bias.then_some(&a[3])];
        twin_with(&a[0], &a[1], Biases { logits, selection }, self.options)
    }

    fn outcome(self, case: Case) -> Result<(), String> {
        case.try_check(
            &self.inputs(),
            |g, t| {
                let r = self.record(g, t);
                vec![r.gate, r.probabilities, r.logsumexp]
            },
            |a| {
                let r = self.twin(a);
                vec![r.gate, r.probabilities, r.logsumexp]
            },
        )
    }
}

const SELECTED: Scores = Scores::softmax(SoftmaxOver::Selected);
const ALL: Scores = Scores::softmax(SoftmaxOver::All);
const SIGMOID: Scores = Scores::sigmoid(false);
const NORMALIZED: Scores = Scores::sigmoid(true);

fn variants() -> Vec<Variant> {
    let v = Variant::new;
    vec![
        v([1, 1, 1, 1], SIGMOID, 1.0, [1, 1], 0.0, [true, false]),
        v([1, 1, 1, 1], NORMALIZED, 2.5, [1, 1], 0.0, [true, true]),
        v([37, 13, 5, 2], SIGMOID, 1.0, [1, 1], 0.0, [false, false]),
        v([37, 13, 5, 2], NORMALIZED, 1.0, [1, 1], 0.1, [false, false]),
        v([67, 64, 6, 3], NORMALIZED, 2.5, [1, 1], 0.0, [false, true]),
        v([67, 64, 6, 3], SIGMOID, 0.5, [3, 2], 0.0, [true, true]),
        v([131, 7, 8, 2], NORMALIZED, 2.5, [4, 2], 0.0, [true, true]),
        v([300, 3, 16, 4], SIGMOID, 1.5, [4, 1], 0.1, [false, true]),
        v([33, 128, 64, 16], NORMALIZED, 1.0, [8, 4], 0.0, [true, true]),
        v([33, 128, 10, 5], NORMALIZED, 1.0, [10, 5], 0.0, [true, true]),
        v([65, 13, 7, 3], SELECTED, 1.0, [1, 1], 0.0, [true, false]),
        v([65, 64, 7, 3], SELECTED, 2.5, [1, 1], 0.1, [true, true]),
        v([65, 13, 8, 3], SELECTED, 0.5, [2, 1], 0.0, [false, true]),
        v([31, 64, 12, 3], ALL, 2.5, [4, 2], 0.0, [true, false]),
        v([67, 13, 9, 2], ALL, 2.5, [3, 2], 0.0, [true, true]),
        v([1030, 20, 7, 2], ALL, 1.0, [1, 1], 0.0, [true, true]), // the weights' gradient in three parts
        v([521, 5, 4, 1], ALL, 1.0, [1, 1], 0.0, [true, true]),
        v([67, 13, 5, 2], SELECTED, 1.0, [1, 1], 0.1, [false, false]).in_turn(),
        v([37, 64, 8, 3], ALL, 2.5, [1, 1], 0.0, [true, true]).in_turn(),
        v([33, 7, 64, 16], NORMALIZED, 1.0, [1, 1], 0.0, [false, true]).in_turn(),
        v([9, 5, 4, 4], SIGMOID, 1.0, [1, 1], 0.0, [false, false]).in_turn(),
    ]
}

#[test]
fn every_variant_follows_the_twin() {
    for variant in variants() {
        variant.outcome(Case::new(format!("router {variant:?}"))).unwrap_or_else(|message| panic!("{message}"));
    }
}

#[test]
fn takes_any_subset_of_gradients() {
    for scores in [SELECTED, NORMALIZED] {
        let options = RouterOptions { scores, scale: 1.5, ..RouterOptions::new(2) };
        for only in 0..3 {
            Case::new(format!("router, {scores:?}, gradient of output {only} alone")).check(
                &inputs(37, 64, 5),
                |g, t| {
                    let r = g.router(t[0], t[1], RouterBiases::default(), options);
                    vec![[r.gate, r.probabilities, r.logsumexp][only]]
                },
                |a| {
                    let r = twin(&a[0], &a[1], options);
                    vec![[r.gate, r.probabilities, r.logsumexp][only].clone()]
                },
            );
        }
    }
}

/// No width has an image: every tier runs the portable kernels.
#[test]
fn mutants_of_choice_and_backward_are_caught() {
    let sigmoid = [
        ("router", "selected[k] = raw_score(saved_logits[row + best], peak);", "selected[k] = best_score;"),
        ("router", "return score + selection_bias[e];", "return score;"),
        ("router", "has_bit(kept, e / members) && ", ""),
        ("router", "select(first + second, first, members == 1u)", "first"),
        ("router", "mean_d_gate /= select(1.0, params.scale, renormalizes);", ""),
        ("router", "params.scale * (selected[k]", "(selected[k]"),
        ("router", "d *= sigmoid(-saved_logits[row + e]);", ""),
        ("router", "d += exp(saved_logits[row + e] - log_total) *", "d += p *"),
        ("router", "sum += saved_d_logits[n * STRIDE + workgroup.x];", "sum = saved_d_logits[n * STRIDE + workgroup.x];"),
        ("router", "sum += bias[i % params.experts];", ""),
    ];
    let variant = |scores| Variant::new([262, 5, 8, 2], scores, 2.5, [4, 2], 0.0, [true, true]);
    catches(&sigmoid, |case| variant(NORMALIZED).outcome(case));
    let coupled = [("router", "select(select(p, 0.0, is_sigmoid), weight, renormalizes)", "select(p, weight, renormalizes)")];
    catches(&coupled, |case| variant(SIGMOID).outcome(case));
    let over_all = [("router", "select(select(p, 0.0, is_sigmoid), weight, renormalizes)", "weight / params.scale")];
    catches(&over_all, |case| variant(ALL).outcome(case));
}

#[test]
fn mutants_of_the_gradient_in_parts_are_caught() {
    let mutants = [
        ("router", "n < min(first + TOKENS_OF_PART, params.tokens)", "n < min(TOKENS_OF_PART, params.tokens)"),
        ("router", "let row = expert + local / COLUMNS;", "let row = local / COLUMNS;"),
        ("router", "sh_sum4[local] += sh_sum4[local + half * COLUMNS]", "sh_sum4[local] += sh_sum4[local]"),
        ("matmul", "at += params.m * params.n", "at += arrayLength(&parts)"),
    ];
    catches(&mutants, |case| Variant::new([600, 20, 7, 2], ALL, 1.0, [1, 1], 0.0, [true, false]).outcome(case));
}

/// Weights and bias of one router that is called twice.
#[test]
fn gradients_of_a_shared_router_add_up() {
    let variant = Variant::new([37, 13, 5, 2], NORMALIZED, 1.0, [1, 1], 0.0, [true, false]);
    let outcome = |case: Case| {
        let [x, w, bias, selection] = variant.inputs();
        case.try_check(
            &[x, w, bias, selection, Input::normal("y", [37, 13])],
            |g, t| vec![variant.record(g, t).gate, variant.record(g, &[t[4], t[1], t[2], t[3]]).gate],
            |a| {
                let second = [a[4].clone(), a[1].clone(), a[2].clone(), a[3].clone()];
                vec![variant.twin(a).gate, variant.twin(&second).gate]
            },
        )
    };
    catches(&[("router", "d_bias[workgroup.x] += sh_sum[0];", "d_bias[workgroup.x] = sh_sum[0];")], outcome);
}

#[test]
fn chooses_as_the_twin_and_reports_logits_and_entropy() {
    let plain = |sizes: Sizes| Variant::new(sizes, SELECTED, 1.0, [1, 1], 0.1, [false, false]);
    let tiers = tiers(&device());
    for tier in tiers {
        for variant in SHAPES.into_iter().map(plain).chain(variants()) {
            let inputs = variant.inputs();
            let arrays: Vec<Array> = inputs.iter().map(Input::array).collect();
            let wanted = variant.twin(&arrays);
            let found = run_bytes(tier, &inputs, |g, t| {
                let r = variant.record(g, t);
                vec![r.expert, r.logits, r.entropy]
            });
            assert_eq!(bytemuck::cast_slice::<u8, u32>(&found[0]), wanted.expert, "{variant:?}");
            for (found, wanted) in [(&found[1], &wanted.logits), (&found[2], &wanted.entropy)] {
                for (f, w) in bytemuck::cast_slice::<u8, f32>(found).iter().zip(&wanted.data) {
                    assert!((f64::from(*f) - w).abs() < 1e-5, "{variant:?}: wanted {w}, found {f}");
                }
            }
        }
    }
}

#[test]
fn each_token_gets_different_experts_of_its_kept_groups() {
    let tiers = tiers(&device());
    for tier in tiers {
        for variant in variants() {
            let [tokens, _, experts, k] = variant.sizes;
            let found = run_u32(tier, &variant.inputs(), |g, t| {
                let routing = variant.record(g, t);
                let permutation = g.permute(&routing);
                vec![routing.expert, permutation.offsets]
            });
            assert_eq!(found[1][experts as usize], tokens * k, "assignments of {variant:?}");
            for token in found[0].chunks(k as usize) {
                let mut chosen = token.to_vec();
                chosen.sort_unstable();
                chosen.dedup();
                assert_eq!(chosen.len(), k as usize, "{variant:?}: {token:?}");
                let mut groups: Vec<u32> = chosen.iter().map(|e| e / (experts / variant.options.groups)).collect();
                groups.dedup();
                assert!(groups.len() <= variant.options.kept_groups as usize, "{variant:?}: {token:?}");
            }
        }
    }
}

/// However many tokens there are, and whatever their scores: loads differ by at most one assignment.
#[test]
fn forced_balance_gives_every_expert_its_share() {
    let tiers = tiers(&device());
    for [tokens, experts, k] in [[1_u32, 5, 2], [7, 5, 2], [66, 8, 3], [130, 4, 4], [3, 64, 1]] {
        let variant = Variant::new([tokens, 6, experts, k], SELECTED, 1.0, [1, 1], 0.0, [false, true]).in_turn();
        for &tier in &tiers {
            let found = run_u32(tier, &variant.inputs(), |g, t| {
                let routing = variant.record(g, t);
                vec![g.permute(&routing).offsets]
            });
            let loads: Vec<u32> = found[0].windows(2).map(|pair| pair[1] - pair[0]).collect();
            let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            assert!(most - least <= 1 && loads.iter().sum::<u32>() == tokens * k, "{tokens} tokens, {k} of {experts}: {loads:?}");
        }
    }
}

/// Inputs whose logits are these rows: one-hot tokens against their transpose.
fn with_logits<const E: usize>(logits: &[[f32; E]]) -> [Input; 2] {
    let tokens = logits.len();
    let mut w = vec![0.0; E * tokens];
    for (n, row) in logits.iter().enumerate() {
        for (e, l) in row.iter().enumerate() {
            w[e * tokens + n] = *l;
        }
    }
    let x: Vec<f32> = (0..tokens * tokens).map(|i| if i % (tokens + 1) == 0 { 1.0 } else { 0.0 }).collect();
    let [rows, experts] = [tokens as u32, E as u32];
    [Input::values("x", [rows, rows], x), Input::values("w", [experts, rows], w)]
}

#[test]
fn ties_go_to_the_lowest_index() {
    let logits = [[1.0; 6], [0.0, 2.0, 2.0, 1.0, 2.0, 1.0], [-3.0, -3.0, -5.0, -3.0, -3.0, -2.0], [0.0, -0.0, 0.0, 1.0, 1.0, 1.0]];
    let tiers = tiers(&device());
    for tier in tiers {
        let chosen = |scores, groups, kept_groups| {
            let options = RouterOptions { scores, groups, kept_groups, ..RouterOptions::new(3) };
            let router = |g: &mut Graph, t: &[Tensor]| vec![g.router(t[0], t[1], RouterBiases::default(), options).expert];
            run_u32(tier, &with_logits(&logits), router).remove(0)
        };
        for scores in [SELECTED, NORMALIZED] {
            assert_eq!(chosen(scores, 1, 1), [0, 1, 2, 1, 2, 4, 5, 0, 1, 3, 4, 5]);
            // Of the groups 01, 23, 45 these are kept: 01 and 23, 23 and 45, 45 and 01, 45 and 23.
            assert_eq!(chosen(scores, 3, 2), [0, 1, 2, 2, 4, 3, 5, 0, 1, 3, 4, 5]);
        }
    }
}

/// The choice by hand: a group counts with its two best, a bias moves the choice and no gate weight, and experts of other
/// groups are out of reach even where all that is left is negative.
#[test]
fn bias_and_groups_move_the_choice_alone() {
    let logits = [[2.0, -3.0, 1.0, 0.5, 0.0, 0.0]]; // Sigmoid: 0.881 0.047 | 0.731 0.622 | 0.5 0.5
    let sigmoid = |l: f32| 1.0 / (1.0 + (-l).exp());
    let tiers = tiers(&device());
    for tier in tiers {
        let routed = |groups, kept_groups, bias: [f32; 6]| {
            let options = RouterOptions { scores: SIGMOID, groups, kept_groups, ..RouterOptions::new(2) };
            let [x, w] = with_logits(&logits);
            let found = run_bytes(tier, &[x, w, Input::values("bias", [6], bias.to_vec())], |g, t| {
                let r = g.router(t[0], t[1], RouterBiases { logits: None, selection: Some(t[2]) }, options);
                vec![r.expert, r.gate]
            });
            let expert: Vec<u32> = bytemuck::cast_slice(&found[0]).to_vec();
            for (e, gate) in expert.iter().zip(bytemuck::cast_slice::<u8, f32>(&found[1])) {
                assert!((gate - sigmoid(logits[0][*e as usize])).abs() < 1e-6, "gate {gate} of expert {e}");
            }
            expert
        };
        assert_eq!(routed(1, 1, [0.0; 6]), [0, 2]);
        assert_eq!(routed(3, 1, [0.0; 6]), [2, 3], "0.731 + 0.622 beats 0.881 + 0.047");
        assert_eq!(routed(3, 2, [0.0; 6]), [2, 3], "0.731 + 0.622 and 0.5 + 0.5");
        assert_eq!(routed(2, 1, [0.0; 6]), [0, 2], "0.881 + 0.731 of three beats 0.622 + 0.5");
        assert_eq!(routed(1, 1, [0.0, 0.0, 0.0, 0.0, 0.3, 0.0]), [0, 4]);
        assert_eq!(routed(3, 1, [0.0, 0.0, 0.0, 0.0, 0.3, 0.1]), [4, 5]);
        assert_eq!(routed(3, 1, [-2.0, -2.0, -2.0, -2.0, -1.9, -1.2]), [5, 4], "-1.4 - 0.7 is the best of negative sums");
    }
}

/// Hugging Face masks dropped groups with 0, DeepSeek with -inf: the same choice while scores are positive.
#[test]
fn masking_with_zero_differs_for_negative_scores_alone() {
    let scores = |bias: f64| -> Vec<f64> {
        let normal = Input::normal("scores", [8 * 509]).array().data;
        normal.iter().map(|l| 1.0 / (1.0 + (-l).exp()) + bias).collect()
    };
    let choices = |bias: f64, masked: f64| -> Vec<Vec<u32>> {
        scores(bias).chunks(8).map(|scores| top_k(&limited(scores, 4, 2, masked), 3)).collect()
    };
    assert_eq!(choices(0.0, 0.0), choices(0.0, f64::NEG_INFINITY));
    assert_ne!(choices(-0.9, 0.0), choices(-0.9, f64::NEG_INFINITY));
}

#[test]
fn large_logits_stay_finite() {
    let logits = [[100.0, -100.0, 90.0, -90.0], [-100.0, -100.0, -101.0, -120.0], [1e4, -1e4, 0.0, 1e4]];
    let tiers = tiers(&device());
    for tier in tiers {
        for scores in [SELECTED, ALL, SIGMOID, NORMALIZED] {
            let options = RouterOptions { scores, ..RouterOptions::new(2) };
            let found = run(tier, &with_logits(&logits), |g, t| {
                let r = g.router(t[0], t[1], RouterBiases::default(), options);
                vec![r.gate, r.probabilities, r.logsumexp, r.entropy]
            });
            assert!(found.iter().flatten().all(|v| v.is_finite()), "{scores:?}: {found:?}");
        }
    }
}

#[test]
fn nan_still_yields_different_experts() {
    let inputs = [Input::values("x", [2, 1], vec![f32::NAN, 1.0]), Input::normal("w", [6, 1])];
    let tiers = tiers(&device());
    for tier in tiers {
        for (groups, wanted) in [(1, 6), (3, 4)] {
            let options = RouterOptions { groups, kept_groups: 2.min(groups), ..RouterOptions::new(wanted) };
            let router = |g: &mut Graph, t: &[Tensor]| vec![g.router(t[0], t[1], RouterBiases::default(), options).expert];
            let expert = run_u32(tier, &inputs, router).remove(0);
            for token in expert.chunks(wanted as usize) {
                let mut sorted = token.to_vec();
                sorted.sort_unstable();
                sorted.dedup();
                assert!(sorted.len() == wanted as usize && sorted.iter().all(|e| *e < 6), "{token:?}");
            }
        }
    }
}

#[test]
fn noise_is_a_function_of_the_stream() {
    let tiers = tiers(&device());
    for tier in tiers {
        let options = RouterOptions { noise_std: 0.5, ..RouterOptions::new(1) };
        let draw = || {
            run(tier, &[Input::normal("x", [9, 4]), Input::normal("w", [3, 4])], |g, t| {
                let router = |g: &mut Graph| g.router(t[0], t[1], RouterBiases::default(), options);
                vec![router(g).logits, router(g).logits]
            })
        };
        let (a, b) = (draw(), draw());
        assert_eq!(a, b, "the same step draws the same noise");
        assert_ne!(a[0], a[1], "two routers draw from different streams");
    }
}
