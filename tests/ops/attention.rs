//! Causal attention against its twin, which fills whole T x T matrices.

use moelab::{
    gpu::{Capabilities, DType, Segment, Step},
    ops::{Graph, Heads},
    random::Stream,
};

use crate::harness::{Array, Case, Fixture, Input, check, device, run, tiers};

/// z of every probability [B H, T, T]: 0 or 1 / (1 - dropout).
fn dropout_mask(batch: u32, heads: Heads, dropout: f32) -> Vec<f64> {
    let stream = Stream { seed: (9 << 32) + 5, step: 3, stream: 1 };
    let tokens = heads.tokens;
    let keep = |i: u32| {
        let (row, key) = (i / tokens, i % tokens);
        let bits = stream.bits(row * tokens.div_ceil(4) + key / 4)[(key % 4) as usize];
        let uniform = (bits >> 8) as f32 / 16_777_216.0;
        if uniform >= dropout { 1.0 / (1.0 - f64::from(dropout)) } else { 0.0 }
    };
    (0..batch * heads.query * tokens * tokens).map(keep).collect()
}

fn twin(q: &Array, kv: &Array, heads: Heads, scale: f64, mask: &[f64]) -> Array {
    let [t, h, g, hd] = [heads.tokens, heads.query, heads.key_value, heads.width].map(|v| v as usize);
    let mut y = Array::zeros(q.shape.clone());
    for b in 0..q.shape[0] / t {
        for head in 0..h {
            let query = |i: usize| &q.data[((b * t + i) * h + head) * hd..][..hd];
            let key = |j: usize| &kv.data[((b * t + j) * 2 * g + head * g / h) * hd..][..hd];
            let value = |j: usize| &kv.data[((b * t + j) * 2 * g + g + head * g / h) * hd..][..hd];
            for i in 0..t {
                let score = |j| scale * query(i).iter().zip(key(j)).map(|(a, b)| a * b).sum::<f64>();
                let scores: Vec<f64> = (0..=i).map(score).collect();
                let largest = scores.iter().copied().fold(f64::MIN, f64::max);
                let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
                let out = &mut y.data[((b * t + i) * h + head) * hd..][..hd];
                for (j, s) in scores.iter().enumerate() {
                    let p = (s - largest).exp() / sum * mask[((b * h + head) * t + i) * t + j];
                    out.iter_mut().zip(value(j)).for_each(|(o, v)| *o += p * v);
                }
            }
        }
    }
    y
}

fn operands(batch: u32, heads: Heads) -> [Input; 2] {
    let rows = batch * heads.tokens;
    [Input::normal("q", [rows, heads.query * heads.width]), Input::normal("kv", [rows, 2 * heads.key_value * heads.width])]
}

fn heads(tokens: u32, [query, key_value, width]: [u32; 3]) -> Heads {
    Heads { tokens, query, key_value, width }
}

fn follows(batch: u32, heads: Heads, dropout: f32) {
    let scale = 1.0 / (heads.width as f32).sqrt();
    let mask = dropout_mask(batch, heads, dropout);
    check(
        &format!("attention {batch} x {heads:?}, dropout {dropout}"),
        &operands(batch, heads),
        |g, t| vec![g.attention(t[0], t[1], heads, scale, dropout)],
        |a| vec![twin(&a[0], &a[1], heads, f64::from(scale), &mask)],
    );
}

// Widths that are no multiple of 4 leave every tier the portable kernels.

#[test]
fn follows_the_twin() {
    follows(1, heads(1, [1, 1, 4]), 0.0);
    follows(2, heads(7, [2, 1, 5]), 0.0);
    follows(3, heads(13, [4, 2, 16]), 0.0);
    follows(1, heads(67, [4, 1, 32]), 0.0);
    follows(2, heads(13, [8, 4, 24]), 0.0);
    follows(1, heads(33, [4, 4, 48]), 0.0);
    follows(1, heads(13, [2, 1, 64]), 0.0);
    follows(1, heads(67, [4, 1, 30]), 0.0);
    follows(1, heads(33, [2, 2, 47]), 0.0);
}

#[test]
fn follows_the_twin_over_several_tiles() {
    follows(1, heads(130, [2, 1, 48]), 0.0);
    follows(1, heads(66, [1, 1, 64]), 0.0);
    follows(1, heads(64, [2, 2, 20]), 0.0);
}

#[test]
fn follows_the_twin_in_wide_heads() {
    follows(1, heads(13, [2, 2, 96]), 0.0);
    follows(1, heads(66, [1, 1, 128]), 0.0);
    follows(1, heads(5, [16, 8, 100]), 0.0); // uneven slices
    follows(1, heads(34, [1, 1, 126]), 0.0);
    follows(1, heads(13, [4, 2, 98]), 0.0);
    follows(1, heads(3, [1, 1, 127]), 0.0);
}

#[test]
fn follows_the_twin_with_dropout() {
    follows(2, heads(7, [2, 1, 5]), 0.4);
    follows(1, heads(37, [4, 2, 16]), 0.1);
    follows(2, heads(13, [2, 2, 96]), 0.25);
    follows(1, heads(37, [4, 2, 18]), 0.1);
    follows(1, heads(71, [2, 1, 48]), 0.1);
}

/// Large scores: an exponential that is not shifted by the row's largest would overflow.
#[test]
fn survives_large_scores() {
    for width in [16, 18] {
        let heads = heads(70, [4, 2, width]);
        let mask = dropout_mask(1, heads, 0.0);
        let inputs = operands(1, heads).map(|i| i.scaled(8.0));
        Case::new(format!("attention, large scores, width {width}"))
            .tolerance(1e-4, "scores of some hundred have an error of 1e-5, which the exponential makes relative")
            .check(&inputs, |g, t| vec![g.attention(t[0], t[1], heads, 0.5, 0.0)], |a| vec![twin(&a[0], &a[1], heads, 0.5, &mask)]);
    }
}

#[test]
fn a_later_token_leaves_earlier_outputs_bit_equal() {
    for width in [16, 18] {
        let heads = heads(70, [4, 2, width]);
        let columns = 4 * width as usize;
        let draw = |stream| (0..70 * 4 * width).map(|i| Stream { seed: 1, step: 0, stream }.normal(i)).collect::<Vec<f32>>();
        let tiers = tiers(&device()); // not in the loop's head, which would hold the device
        for tier in tiers {
            let outputs = |q: &[f32], kv: &[f32]| {
                let inputs = [Input::values("q", [70, 4 * width], q.to_vec()), Input::values("kv", [70, 4 * width], kv.to_vec())];
                run(tier, &inputs, |g, t| vec![g.attention(t[0], t[1], heads, 0.25, 0.0)]).remove(0)
            };
            let (mut q, mut kv) = (draw(1), draw(2));
            let before = outputs(&q, &kv);
            for token in [69, 64, 33, 5, 1] {
                q[token * columns..].iter_mut().for_each(|v| *v += 1.0);
                kv[token * columns..].iter_mut().for_each(|v| *v *= -3.0);
                let after = outputs(&q, &kv);
                assert_eq!(before[..token * columns], after[..token * columns], "{tier:?}, width {width}, token {token}");
                assert_ne!(
                    before[token * columns..][..columns],
                    after[token * columns..][..columns],
                    "{tier:?}, width {width}, token {token}"
                );
            }
        }
    }
}

/// y, d_q and d_kv of two runs of one plan.
fn two_runs(tier: Capabilities, heads: Heads) -> [Vec<Vec<f32>>; 2] {
    let device = device();
    let inputs = operands(2, heads);
    let width = heads.query * heads.width;
    let mut g = Graph::new(tier);
    let q = g.leaf("q", [2 * heads.tokens, width]);
    let kv = g.leaf("kv", [2 * heads.tokens, 2 * heads.key_value * heads.width]);
    let y = g.attention(q, kv, heads, 0.25, 0.1);
    let d_y = g.input("d_y", y.shape, DType::F32);
    g.backward_from(&[(y, d_y)]);
    let wanted = [y, g.grad(q).unwrap(), g.grad(kv).unwrap()];
    for (i, t) in wanted.iter().enumerate() {
        g.output(&format!("wanted_{i}"), *t);
    }
    let inputs = [inputs[0].clone(), inputs[1].clone(), Input::normal("d_y", [2 * heads.tokens, width])];
    let mut fixture = Fixture::new(&device, g.finish(), &inputs);
    [0, 1].map(|_| {
        fixture.run(&Step { seed_low: 3, ..Step::default() }, &[Segment::Micro]);
        wanted.iter().map(|t| fixture.read(t.id)).collect()
    })
}

#[test]
fn gives_the_same_bits_twice() {
    let tiers = tiers(&device()); // not in the loop's head, which would hold the device
    for tier in tiers {
        for width in [16, 18] {
            let [first, second] = two_runs(tier, heads(67, [4, 2, width]));
            assert_eq!(first, second, "{tier:?}, width {width}");
            assert!(first.iter().all(|t| t.iter().any(|v| *v != 0.0)));
        }
    }
}

/// Each planted error, (what differs, text, its replacement) in a module, is found with these heads.
fn finds(module: &'static str, heads: Heads, errors: &[(&str, &'static str, &'static str)]) {
    let mask = dropout_mask(1, heads, 0.3);
    for &(what, from, to) in errors {
        let case = Case::new(format!("`{from}` -> `{to}`")).mutate(module, from, to);
        let outcome = case.try_check(
            &operands(1, heads),
            |g, t| vec![g.attention(t[0], t[1], heads, 0.5, 0.3)],
            |a| vec![twin(&a[0], &a[1], heads, 0.5, &mask)],
        );
        let message = outcome.expect_err(from);
        assert!(message.contains(&format!("{what}:")), "{message}");
    }
}

/// An odd head width makes every tier run the portable kernels.
#[test]
fn planted_errors_are_found() {
    let errors = [
        ("gradient of q", "visible = (key <= rows)", "visible = (key < rows)"),
        ("gradient of q", "] - row_dot);", "]);"),
        ("gradient of q", "row_dot += sh_partial[8u * ty + 1u];", ""),
        ("gradient of q", "= params.scale * p *", "= p *"),
        ("gradient of kv", "tile.weights[2u] = z[2u] * p;", "tile.weights[2u] = p;"),
        ("gradient of kv", "for (var member = 0u;", "for (var member = 1u;"),
        ("gradient of kv", "query = first; query < params.tokens;", "query = first; query + TILE < params.tokens;"),
        ("gradient of kv", "let weights = transpose(tile.weights);", "let weights = tile.weights;"),
    ];
    finds("attention", heads(37, [4, 2, 5]), &errors);
}

/// Rows of 24 cannot be images, which leaves every tier these kernels.
#[test]
fn planted_errors_are_found_in_the_kernels_for_gpus() {
    let errors = [
        ("output 0", "total[2u] *= decay;", ""),
        ("output 0", "sum *= decay;", ""),
        ("output 0", "own = max(own, sh_operands[16u + place.y]);", ""),
        ("gradient of q", "row_dot[3u] += dot(d_y[at[3u]], saved_y[at[3u]]);", ""),
        ("gradient of q", "s[5u] * params.scale - row_lse, visible", "s[5u] * params.scale - row_lse, vec4<bool>(true)"),
        ("gradient of q", "drop_out(head, query, key / 4u + place.x, &d_p);", ""),
        ("gradient of q", "s[4u] = params.scale * p *", "s[4u] = p *"),
        ("gradient of q", "(head.k + first_texel, count, key,", "(head.k + first_texel, count, 0u,"),
        ("gradient of kv", "weights[0] * z", "weights[0]"),
        ("gradient of kv", "d_p[0] * z", "d_p[0]"),
        ("gradient of kv", "(keys <= vec4<u32>(own + 2u))", "(keys < vec4<u32>(own + 2u))"),
        ("gradient of kv", "& vec4<bool>(is_inside[3u])", ""),
        ("gradient of kv", "(place.x / 4u == chunk)", "(place.x / 4u == 3u - chunk)"),
        ("gradient of kv", "for (var member = 0u;", "for (var member = 1u;"),
        ("gradient of kv", "query = first; query < params.tokens;", "query = first; query + TILE < params.tokens;"),
    ];
    finds("attention_vec4", heads(102, [2, 1, 12]), &errors);
}
