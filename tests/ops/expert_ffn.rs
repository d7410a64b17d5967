//! The experts' FFN against its twin; the whole block (router, permute, experts, combine, balance loss) against its twin,
//! against the dense FFN where both are the same function, and with mutants planted in its backward code.

use crate::{
    activation, balance, combine, gather_rows,
    harness::{Array, Case, Input, catches, check, device, run, tiers},
    permute::{experts_drawn, reference, routing},
    router,
};
use moelab::{
    gpu::Tensor,
    ops::{Activation, BalanceKind, BalanceOptions, ExpertBiases, FfnWeights, Graph, RouterBiases, RouterOptions},
};

/// `x` [A, F] plus the bias of each row's expert.
fn biased(x: &Array, b: &Array, expert_of: &[u32]) -> Array {
    let biases: Vec<&[f64]> = b.rows().collect();
    let rows = x.rows().zip(expert_of);
    let data = rows.flat_map(|(x, e)| x.iter().zip(biases[*e as usize]).map(|(x, b)| x + b).collect::<Vec<_>>());
    Array::new(x.shape.clone(), data.collect())
}

/// Each row of `x` [A, in] through the weights `w` [E, out, in] of its expert.
fn linear(x: &Array, w: &Array, expert_of: &[u32]) -> Array {
    let (out, inner) = (w.shape[1], w.shape[2]);
    let mut y = Array::zeros([expert_of.len(), out]);
    for ((row, e), y) in x.rows().zip(expert_of).zip(y.data.chunks_mut(out)) {
        for (o, y) in y.iter_mut().enumerate() {
            let weights = &w.data[(*e as usize * out + o) * inner..][..inner];
            *y = row.iter().zip(weights).map(|(x, w)| x * w).sum();
        }
    }
    y
}

/// Up, gate and down weights, each with its bias if it has one.
struct Layers<'a> {
    up: (&'a Array, Option<&'a Array>),
    gate: Option<(&'a Array, Option<&'a Array>)>,
    down: (&'a Array, Option<&'a Array>),
}

fn twin(x: &Array, layers: &Layers, expert_of: &[u32], f: Activation, p: f32) -> Array {
    let layer = |x: &Array, (w, b): (&Array, Option<&Array>)| {
        let y = linear(x, w, expert_of);
        b.map_or(y.clone(), |b| biased(&y, b, expert_of))
    };
    let up = layer(x, layers.up);
    let inner = match layers.gate {
        Some(gate) => activation::twin(&layer(x, gate), Some(&up), f, p),
        None => activation::twin(&up, None, f, p),
    };
    layer(&inner, layers.down)
}

/// Expert of each slot.
fn expert_of(expert: &[u32], experts: u32) -> Vec<u32> {
    reference(expert, experts)[2].iter().map(|a| expert[*a as usize]).collect()
}

/// Drawn experts; where there are more than two, expert 1 stays empty.
fn with_empty_expert(rows: u32, experts: u32) -> Vec<u32> {
    experts_drawn(rows, experts).iter().map(|e| if experts > 2 && *e == 1 { 2 } else { *e }).collect()
}

fn weight(name: &str, shape: [u32; 3]) -> Input {
    Input::normal(name, shape).scaled(1.0 / (shape[2] as f32).sqrt()).param()
}

#[test]
fn bias_follows_the_twin() {
    for (rows, experts, width) in [(1, 1, 1), (7, 5, 3), (131, 4, 67), (300, 64, 64), (67, 3, 128)] {
        let expert = with_empty_expert(rows, experts);
        check(
            &format!("add_expert_bias {rows}x{width}, {experts} experts"),
            &[
                Input::normal("x", [rows, width]),
                Input::normal("b", [experts, width]).param(),
                Input::u32("expert", [rows, 1], expert.clone()),
                Input::normal("gate", [rows, 1]),
            ],
            |g, t| {
                let routing = routing(g, t[2], t[3], experts);
                let permutation = g.permute(&routing);
                vec![g.add_expert_bias(t[0], t[1], permutation.offsets)]
            },
            |a| vec![biased(&a[0], &a[1], &expert_of(&expert, experts))],
        );
    }
}

/// Rows, experts, width, expert width, activation, whether it is gated and has biases, dropout.
type Variant = (u32, u32, u32, u32, Activation, bool, bool, f32);

/// The experts' FFN on an adapter that binds at most `binding_bytes`.
fn outcome(case: Case, variant: Variant, binding_bytes: u64) -> Result<(), String> {
    let (rows, experts, d, width, f, gated, with_bias, p) = variant;
    let expert = with_empty_expert(rows, experts);
    let bias = |name: &str, width| Input::normal(name, [experts, width]).scaled(0.1).param();
    case.try_check(
        &[
            Input::normal("x", [rows, d]),
            weight("up", [experts, width, d]),
            weight("gate", [experts, width, d]),
            weight("down", [experts, d, width]),
            bias("up_bias", width),
            bias("gate_bias", width),
            bias("down_bias", d),
            Input::u32("expert", [rows, 1], expert.clone()),
            Input::normal("gates", [rows, 1]),
        ],
        |g, t| {
            g.capabilities.binding_bytes = binding_bytes;
            let routing = routing(g, t[7], t[8], experts);
            let offsets = g.permute(&routing).offsets;
            let weights = FfnWeights { up: t[1], gate: gated.then_some(t[2]), down: t[3] };
            let [up, gate, down] = [t[4], t[5], t[6]].map(|b| with_bias.then_some(b));
            let biases = ExpertBiases { up, gate: gate.filter(|_| gated), down };
            vec![g.expert_ffn(t[0], offsets, &weights, &biases, f, p)]
        },
        |a| {
            let bias = |i: usize| with_bias.then_some(&a[i]);
            let layers = Layers { up: (&a[1], bias(4)), gate: gated.then_some((&a[2], bias(5))), down: (&a[3], bias(6)) };
            vec![twin(&a[0], &layers, &expert_of(&expert, experts), f, p)]
        },
    )
}

#[test]
fn follows_the_twin() {
    let cases: [Variant; 7] = [
        (1, 1, 3, 5, Activation::Silu, false, false, 0.0),
        (37, 3, 7, 11, Activation::Gelu, false, true, 0.0),
        (37, 3, 7, 11, Activation::Silu, true, true, 0.3),
        (67, 4, 64, 128, Activation::ReluSquared, false, false, 0.3),
        (67, 4, 64, 64, Activation::GeluTanh, true, false, 0.0),
        (67, 3, 20, 68, Activation::Silu, false, true, 0.0),
        (67, 3, 68, 20, Activation::Gelu, true, true, 0.3),
    ];
    // Whole, and in parts of rows that an adapter of little memory could bind: gradients are sums over the parts.
    let in_parts = [(131, 3, 7, 12, Activation::Gelu, true, true, 0.3), (150, 4, 64, 64, Activation::Silu, false, true, 0.3)];
    let whole = cases.into_iter().map(|case| (case, u64::MAX));
    for (variant, limit) in whole.chain(in_parts.map(|case| (case, 64 * 4 * u64::from(case.3)))) {
        outcome(Case::new(format!("expert_ffn {variant:?}")), variant, limit).unwrap_or_else(|message| panic!("{message}"));
    }
}

/// Products in registers have the activation of the inner layer.
#[test]
fn mutants_of_products_with_an_activation_are_caught() {
    let plain = [
        ("grouped_matmul_vec4", "y[to] = activate_slope(pre[to]) * m * sum", "y[to] = m * sum"),
        ("grouped_matmul_vec4", "activated[to] = activate(pre[to]) * m;", "activated[to] = activate(pre[to]);"),
        ("grouped_matmul_vec4", "activated[to] = activate(value) * mask(to)", "activated[to] = activate(value)"),
        ("grouped_matmul_vec4", "value + bias[", "value - bias["),
    ];
    catches(&plain, |case| outcome(case, (37, 3, 12, 20, Activation::Silu, false, true, 0.3), u64::MAX));
    let gated = [
        ("grouped_matmul_vec4", "* mask(to) * value", "* mask(to)"),
        ("grouped_matmul_vec4", "* m * up[to] * sum", "* m * sum"),
        ("grouped_matmul_vec4", "d_up[to] = value * sum", "d_up[to] = sum"),
        ("grouped_matmul_vec4", "activated[to] = value * up[to]", "activated[to] = value"),
    ];
    catches(&gated, |case| outcome(case, (37, 3, 12, 20, Activation::Silu, true, true, 0.3), u64::MAX));
    // And without such products.
    let again = [
        ("activation", "store_y_of(at, params.width, params.n, activate(a) * m)", "store_y_of(at, params.width, params.n, m)"),
        ("activation", "store_d_x_of(at, params.width, params.n, activate_slope(a) * m *", "store_d_x_of(at, params.width, params.n, m *"),
    ];
    catches(&again, |case| outcome(case, (37, 3, 7, 11, Activation::Silu, false, true, 0.3), u64::MAX));
    let again =
        [("activation", "value * other)", "value)"), ("activation", "value * d)", "d)"), ("activation", "* m * other * d", "* m * d")];
    catches(&again, |case| outcome(case, (37, 3, 7, 11, Activation::Silu, true, true, 0.3), u64::MAX));
}

/// Tokens, width, experts, experts a token, expert width.
type Sizes = [u32; 5];

/// x, router weight, up, down.
fn block_inputs([tokens, d, experts, _, width]: Sizes) -> [Input; 4] {
    [
        Input::normal("x", [tokens, d]),
        Input::normal("router.weight", [experts, d]).scaled(1.0 / (d as f32).sqrt()).param(),
        weight("up", [experts, width, d]),
        weight("down", [experts, d, width]),
    ]
}

/// x + MoE(x), and the auxiliary loss.
fn block(g: &mut Graph, t: &[Tensor], experts_per_token: u32) -> Vec<Tensor> {
    let routing = g.router(t[0], t[1], RouterBiases::default(), RouterOptions::new(experts_per_token));
    let permutation = g.permute(&routing);
    let rows = g.gather_rows(t[0], &permutation);
    let weights = FfnWeights { up: t[2], gate: None, down: t[3] };
    let out = g.expert_ffn(rows, permutation.offsets, &weights, &ExpertBiases::default(), Activation::Silu, 0.0);
    let y = g.combine(out, &routing, &permutation, Some(t[0]), 0.0);
    let options =
        BalanceOptions { kind: BalanceKind::Switch, running_load: None, sequence_length: t[0].shape.as_slice()[0], measures_gates: true };
    vec![y, g.balance_loss(&routing, options, None).loss]
}

fn block_twin(a: &[Array], experts_per_token: u32) -> Vec<Array> {
    let experts = a[1].shape[0] as u32;
    let r = router::twin(&a[0], &a[1], RouterOptions::new(experts_per_token));
    let rows = gather_rows::twin(&a[0], &r.expert, experts);
    let layers = Layers { up: (&a[2], None), gate: None, down: (&a[3], None) };
    let out = twin(&rows, &layers, &expert_of(&r.expert, experts), Activation::Silu, 0.0);
    let y = combine::twin(&out, &r.gate, &r.expert, experts, Some(&a[0]), 0.0);
    vec![y, balance::twin(&r, a[0].shape[0], balance::Trained::Switch).remove(0)]
}

fn block_outcome(case: Case, sizes: Sizes) -> Result<(), String> {
    let k = sizes[3];
    case.step(balance::STEP).try_check(&block_inputs(sizes), |g, t| block(g, t, k), |a| block_twin(a, k))
}

#[test]
fn block_follows_the_twin() {
    for sizes in [[1, 3, 2, 1, 5], [31, 7, 4, 2, 11], [67, 64, 5, 3, 64], [13, 5, 3, 3, 7]] {
        block_outcome(Case::new(format!("MoE block {sizes:?}")), sizes).unwrap();
    }
}

#[test]
fn mutants_of_backward_code_are_caught() {
    let mutants = [
        ("router", "mean_d_gate += saved_gate[choice + k] * d_gate[choice + k];", "mean_d_gate += d_gate[choice + k];"),
        ("router", "d -= share * mean_d_gate;", ""),
        ("router", "var shift = -mean_d_p;", "var shift = 0.0;"),
        ("router", "shift += d_logsumexp[id.x];", "shift -= d_logsumexp[id.x];"),
        ("router", "if (saved_expert[choice + k] == e) {", "if (k == e) {"),
        ("router", "saved_d_logits[row + e], w[", "saved_d_logits[row + e] * 1.01, w["),
        ("router", "n = local / COLUMNS; n < params.tokens", "n = local / COLUMNS; n + 1u < params.tokens"),
        ("balance", "* step.z_coefficient * 2.0 *", "* step.z_coefficient *"),
        ("balance", "saved_load[s * params.experts + e]", "saved_load[0]"),
        ("combine", "weight * d;", "d;"),
        ("combine", "d_gate[assignment] = sh_sum[0];", "d_gate[slot] = sh_sum[0];"),
        ("gather_rows", "for (var k = 0u; k < params.experts_per_token", "for (var k = 1u; k < params.experts_per_token"),
        ("activation", "s * (1.0 + x * (1.0 - s))", "s * (1.0 + x * s)"),
    ];
    let sizes = [11, 7, 4, 2, 5]; // No width has an image: both tiers run the portable kernels.
    block_outcome(Case::new("control"), sizes).unwrap();
    for (module, from, to) in mutants {
        let message = block_outcome(Case::new("mutant").mutate(module, from, to), sizes).expect_err(from);
        assert!(message.contains("gradient of"), "{module}, `{from}` -> `{to}`: {message}");
    }
}

/// x + FFN(x), with weights of one expert, [1, F, D] and [1, D, F].
fn dense(g: &mut Graph, x: Tensor, up: Tensor, down: Tensor) -> Tensor {
    let [_, width, d] = up.shape.dims("up");
    let weights = FfnWeights { up: up.reshape([width, d]), gate: None, down: down.reshape([d, width]) };
    let y = g.ffn(x, &weights, &ExpertBiases::default(), Activation::Silu, 0.0);
    g.add(y, x)
}

fn relative_difference(a: &[f32], b: &[f32]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

#[test]
fn one_expert_is_the_dense_ffn() {
    for sizes in [[31, 7, 1, 1, 11], [67, 64, 1, 1, 128]] {
        let inputs = block_inputs(sizes);
        let tiers = tiers(&device());
        for tier in tiers {
            let y = run(tier, &inputs, |g, t| vec![block(g, t, 1)[0], dense(g, t[0], t[2], t[3])]);
            assert!(relative_difference(&y[0], &y[1]) < 1e-6, "{sizes:?}: {}", relative_difference(&y[0], &y[1]));
        }
        // The dense graph has the gradients of the block's twin; `block_follows_the_twin` holds the block to it.
        check(&format!("dense {sizes:?}"), &inputs, |g, t| vec![dense(g, t[0], t[2], t[3])], |a| vec![block_twin(a, 1).remove(0)]);
    }
}

#[test]
fn dense_biases_follow_the_twin() {
    let cases = [
        (1, 3, 5, Activation::Gelu, false, 0.0),
        (37, 7, 11, Activation::Gelu, false, 0.3),
        (37, 7, 11, Activation::Silu, true, 0.0),
        (67, 64, 128, Activation::Relu, true, 0.3),
    ];
    for (rows, d, width, f, gated, p) in cases {
        let matrix = |name: &str, out: u32, inner: u32| Input::normal(name, [out, inner]).scaled(1.0 / (inner as f32).sqrt()).param();
        let bias = |name: &str, width: u32| Input::normal(name, [width]).param();
        check(
            &format!("dense {rows}x{d} of {width}, {f:?}, gated {gated}, biases, dropout {p}"),
            &[
                Input::normal("x", [rows, d]),
                matrix("up", width, d),
                matrix("gate", width, d),
                matrix("down", d, width),
                bias("up_bias", width),
                bias("gate_bias", width),
                bias("down_bias", d),
            ],
            |g, t| {
                let weights = FfnWeights { up: t[1], gate: gated.then_some(t[2]), down: t[3] };
                let biases = ExpertBiases { up: Some(t[4]), gate: gated.then_some(t[5]), down: Some(t[6]) };
                vec![g.ffn(t[0], &weights, &biases, f, p)]
            },
            |a| {
                let of_one = |a: &Array| Array::new([&[1], &a.shape[..]].concat(), a.data.clone());
                let a: Vec<Array> = a.iter().map(of_one).collect(); // one expert
                let layers = Layers { up: (&a[1], Some(&a[4])), gate: gated.then_some((&a[2], Some(&a[5]))), down: (&a[3], Some(&a[6])) };
                let x = Array::new([rows as usize, d as usize], a[0].data.clone());
                vec![twin(&x, &layers, &vec![0; rows as usize], f, p)]
            },
        );
    }
}

#[test]
fn identical_experts_are_the_dense_ffn() {
    for [tokens, d, experts, k, width] in [[31, 7, 4, 2, 11], [67, 64, 3, 3, 128], [5, 3, 8, 1, 4]] {
        let [_, router, up, down] = block_inputs([tokens, d, 1, 1, width]).map(|i| i.array());
        let x = Input::normal("x", [tokens, d]);
        let router_values = Input::normal("router.weight", [experts, d]).array();
        let repeated = |w: &Array, times: u32| -> Vec<f32> { (0..times).flat_map(|_| w.data.iter().map(|v| *v as f32)).collect() };
        // Weights are constants: with equal experts the gradient of x alone is that of the dense FFN.
        check(
            &format!("{experts} identical experts, {k} a token"),
            &[x],
            |g, t| {
                let router = g.constant("router", [experts, d], repeated(&router_values, 1));
                let up = g.constant("up", [experts, width, d], repeated(&up, experts));
                let down = g.constant("down", [experts, d, width], repeated(&down, experts));
                vec![block(g, &[t[0], router, up, down], k)[0]]
            },
            |a| vec![block_twin(&[a[0].clone(), router.clone(), up.clone(), down.clone()], 1).remove(0)],
        );
    }
}
