//! The router against its twin (the choice of experts does not move under central differences), and its choice exactly.

use crate::harness::{Array, Case, Input, device, run, run_bytes, run_u32, tiers};
use moelab::{
    ops::{RouterOptions, SoftmaxOver},
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

/// Indices of the `k` largest, largest first, ties to the lowest index.
pub fn top_k(logits: &[f64], k: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
    order.truncate(k);
    order
}

/// The router of `x` [N, D] and `w` [E, D]; noise is that of stream 1 in the harness's step.
pub fn twin(x: &Array, w: &Array, options: RouterOptions) -> Routed {
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
    for (n, x) in x.rows().enumerate() {
        let logits: Vec<f64> = (w.rows().enumerate())
            .map(|(e, w)| {
                let z = f64::from(options.noise_std) * f64::from(noise.normal((n * experts + e) as u32));
                x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + if options.noise_std > 0.0 { z } else { 0.0 }
            })
            .collect();
        let logsumexp = logits.iter().map(|l| l.exp()).sum::<f64>().ln();
        let p: Vec<f64> = logits.iter().map(|l| (l - logsumexp).exp()).collect();
        let chosen = top_k(&logits, k);
        let total: f64 = chosen.iter().map(|e| p[*e as usize]).sum();
        for (slot, e) in chosen.iter().enumerate() {
            let over = if options.softmax_over == SoftmaxOver::Selected { total } else { 1.0 };
            routed.gate.data[n * k + slot] = p[*e as usize] / over;
        }
        routed.expert.extend(chosen);
        routed.logsumexp.data[n] = logsumexp;
        routed.entropy.data[n] = -p.iter().map(|p| p * p.ln()).sum::<f64>();
        routed.probabilities.data[n * experts..][..experts].copy_from_slice(&p);
        routed.logits.data[n * experts..][..experts].copy_from_slice(&logits);
    }
    routed
}

fn inputs(tokens: u32, width: u32, experts: u32) -> [Input; 2] {
    let w = Input::normal("w", [experts, width]).scaled(1.0 / (width as f32).sqrt());
    [Input::normal("x", [tokens, width]), w.param()]
}

/// Tokens, width, experts, experts a token; the widths of 64 and its multiples have images.
const SHAPES: [[u32; 4]; 10] = [
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
            let options = RouterOptions { experts_per_token, noise_std, softmax_over };
            let name = format!("router {tokens}x{width}, {experts_per_token} of {experts}, {softmax_over:?}, noise {noise_std}");
            Case::new(name).check(
                &inputs(tokens, width, experts),
                |g, t| {
                    let r = g.router(t[0], t[1], options);
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

#[test]
fn takes_any_subset_of_gradients() {
    let options = RouterOptions { experts_per_token: 2, noise_std: 0.0, softmax_over: SoftmaxOver::Selected };
    for only in 0..3 {
        Case::new(format!("router, gradient of output {only} alone")).check(
            &inputs(37, 64, 5),
            |g, t| {
                let r = g.router(t[0], t[1], options);
                vec![[r.gate, r.probabilities, r.logsumexp][only]]
            },
            |a| {
                let r = twin(&a[0], &a[1], options);
                vec![[r.gate, r.probabilities, r.logsumexp][only].clone()]
            },
        );
    }
}

#[test]
fn chooses_as_the_twin_and_reports_logits_and_entropy() {
    let tiers = tiers(&device());
    for tier in tiers {
        for [tokens, width, experts, experts_per_token] in SHAPES {
            let options = RouterOptions { experts_per_token, noise_std: 0.1, softmax_over: SoftmaxOver::Selected };
            let w = Input::normal("w", [experts, width]).scaled(1.0 / (width as f32).sqrt());
            let inputs = [Input::normal("x", [tokens, width]), w];
            let arrays: Vec<Array> = inputs.iter().map(Input::array).collect();
            let wanted = twin(&arrays[0], &arrays[1], options);
            let found = run_bytes(tier, &inputs, |g, t| {
                let r = g.router(t[0], t[1], options);
                vec![r.expert, r.logits, r.entropy]
            });
            assert_eq!(bytemuck::cast_slice::<u8, u32>(&found[0]), wanted.expert);
            for (found, wanted) in [(&found[1], &wanted.logits), (&found[2], &wanted.entropy)] {
                for (f, w) in bytemuck::cast_slice::<u8, f32>(found).iter().zip(&wanted.data) {
                    assert!((f64::from(*f) - w).abs() < 1e-5, "{tokens}x{width} of {experts}: wanted {w}, found {f}");
                }
            }
        }
    }
}

#[test]
fn ties_go_to_the_lowest_index() {
    // One-hot rows: the logits are the columns of w.
    let logits: [[f32; 6]; 4] =
        [[1.0; 6], [0.0, 2.0, 2.0, 1.0, 2.0, 1.0], [-3.0, -3.0, -5.0, -3.0, -3.0, -2.0], [0.0, -0.0, 0.0, 1.0, 1.0, 1.0]];
    let mut w = vec![0.0; 6 * 4];
    for (n, row) in logits.iter().enumerate() {
        for (e, l) in row.iter().enumerate() {
            w[e * 4 + n] = *l;
        }
    }
    let x: Vec<f32> = (0..16).map(|i| if i % 5 == 0 { 1.0 } else { 0.0 }).collect();
    let inputs = [Input::values("x", [4, 4], x), Input::values("w", [6, 4], w)];
    let options = RouterOptions { experts_per_token: 3, noise_std: 0.0, softmax_over: SoftmaxOver::Selected };
    let tiers = tiers(&device());
    for tier in tiers {
        let expert = run_u32(tier, &inputs, |g, t| vec![g.router(t[0], t[1], options).expert]).remove(0);
        assert_eq!(expert, [0, 1, 2, 1, 2, 4, 5, 0, 1, 3, 4, 5]);
    }
}

#[test]
fn nan_still_yields_different_experts() {
    let inputs = [Input::values("x", [2, 1], vec![f32::NAN, 1.0]), Input::normal("w", [5, 1])];
    let options = RouterOptions { experts_per_token: 5, noise_std: 0.0, softmax_over: SoftmaxOver::Selected };
    let tiers = tiers(&device());
    for tier in tiers {
        let expert = run_u32(tier, &inputs, |g, t| vec![g.router(t[0], t[1], options).expert]).remove(0);
        for token in expert.chunks(5) {
            let mut sorted = token.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
    }
}

#[test]
fn noise_is_a_function_of_the_stream() {
    let tiers = tiers(&device());
    for tier in tiers {
        let options = RouterOptions { experts_per_token: 1, noise_std: 0.5, softmax_over: SoftmaxOver::Selected };
        let draw = || {
            run(tier, &[Input::normal("x", [9, 4]), Input::normal("w", [3, 4])], |g, t| {
                let (first, second) = (g.router(t[0], t[1], options), g.router(t[0], t[1], options));
                vec![first.logits, second.logits]
            })
        };
        let (a, b) = (draw(), draw());
        assert_eq!(a, b, "the same step draws the same noise");
        assert_ne!(a[0], a[1], "two routers draw from different streams");
    }
}
