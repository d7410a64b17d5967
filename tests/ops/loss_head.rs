//! The loss head against its twin: loss, statistics and both gradients, in one chunk and several, small and large V.

use moelab::{
    gpu::{Capabilities, Segment, Step},
    ops::Graph,
};

use crate::harness::{Array, Case, Fixture, Input, catches, device, run, tiers};

const IGNORED: u32 = u32::MAX;

/// Loss [1] and (cross-entropy, targets, correct, 0) of x w^T.
fn twin(x: &Array, w: &Array, targets: &[u32], inverse_targets: f64) -> [Array; 2] {
    let mut sums = [0.0; 4];
    for (row, target) in x.rows().zip(targets).filter(|(_, t)| **t != IGNORED) {
        let logits: Vec<f64> = w.rows().map(|w| row.iter().zip(w).map(|(x, w)| x * w).sum()).collect();
        let peak = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = logits.iter().map(|l| (l - peak).exp()).sum();
        sums[0] += sum.ln() + peak - logits[*target as usize];
        sums[1] += 1.0;
        sums[2] += f64::from(u8::from(logits.iter().position(|l| *l == peak) == Some(*target as usize)));
    }
    [Array::new([1], vec![sums[0] * inverse_targets]), Array::new([4], sums.to_vec())]
}

fn targets_of(rows: u32, vocabulary: u32) -> Vec<u32> {
    (0..rows).map(|n| if n % 5 == 3 { IGNORED } else { n.wrapping_mul(2_654_435_761) % vocabulary }).collect()
}

/// Logits spread over a few nats, so that neither loss nor gradient vanishes.
fn operands(rows: u32, vocabulary: u32, width: u32) -> [Input; 3] {
    let w = Input::normal("w", [vocabulary, width]).scaled(2.0 / (width as f32).sqrt()).param();
    [Input::normal("x", [rows, width]), w, Input::u32("targets", [rows], targets_of(rows, vocabulary))]
}

fn inverse_targets(rows: u32) -> f32 {
    1.0 / (rows - rows / 5) as f32
}

fn outcome(case: Case, [rows, vocabulary, width]: [u32; 3], rows_per_chunk: Option<u32>) -> Result<(), String> {
    let targets = targets_of(rows, vocabulary);
    let step = Step { inverse_targets: inverse_targets(rows), ..Step::default() };
    case.seeded_loss().step(step).try_check(
        &operands(rows, vocabulary, width),
        |g, t| {
            let head = match rows_per_chunk {
                Some(limit) => g.loss_head_in_chunks(t[0], t[1], t[2], true, limit),
                None => g.loss_head(t[0], t[1], t[2], true),
            };
            vec![head.loss, head.statistics]
        },
        |a| twin(&a[0], &a[1], &targets, f64::from(inverse_targets(rows))).into(),
    )
}

fn check(shape: [u32; 3], rows_per_chunk: Option<u32>) {
    let mut case = Case::new(format!("loss_head {shape:?}, chunks of {rows_per_chunk:?}"));
    if shape[1] > 10_000 {
        case = case.tolerance(4e-5, "d_x is an f32 sum of one product of size 1 and tens of thousands of size 1 / V");
    }
    outcome(case, shape, rows_per_chunk).unwrap();
}

#[test]
fn follows_the_twin() {
    for shape in [[1, 1, 1], [1, 2, 3], [3, 7, 5], [13, 257, 17], [67, 64, 64], [33, 320, 64]] {
        check(shape, None);
    }
}

#[test]
fn chunks_change_nothing() {
    for limit in [1, 4, 7, 12, 64] {
        check([13, 257, 17], Some(limit));
        check([13, 128, 64], Some(limit));
    }
}

#[test]
fn takes_large_vocabularies() {
    check([3, 50_257, 5], None);
    check([2, 49_152, 4], Some(1));
    check([9, 4096, 64], None);
}

#[test]
fn evaluates_as_it_trains() {
    let device = device();
    for tier in tiers(&device) {
        for (rows, vocabulary, width) in [(29, 257, 17), (29, 128, 64)] {
            let statistics = [true, false].map(|train| {
                let mut g = Graph::new(tier);
                let inputs = operands(rows, vocabulary, width);
                let (x, w) = (g.leaf("x", [rows, width]), g.param("w", [vocabulary, width]));
                let targets = g.input("targets", [rows], moelab::gpu::DType::U32);
                let head = g.loss_head_in_chunks(x, w, targets, train, 8);
                g.output("statistics", head.statistics);
                assert_eq!(g.find("d_w").is_some(), train);
                let mut fixture = Fixture::new(&device, g.finish(), &inputs);
                fixture.run(&Step::default(), &[Segment::Micro]);
                fixture.read_named("statistics")
            });
            assert!(statistics[0][0] > 1.0);
            assert_eq!(statistics[0], statistics[1]);
        }
    }
}

fn identity(n: u32) -> Vec<f32> {
    (0..n * n).map(|i| f32::from(u8::from(i / n == i % n))).collect()
}

/// Statistics of given logits: w is the identity.
fn statistics(tier: Capabilities, logits: &[f32], vocabulary: u32, targets: &[u32]) -> Vec<f32> {
    let rows = targets.len() as u32;
    let inputs = [
        Input::values("x", [rows, vocabulary], logits.to_vec()),
        Input::values("w", [vocabulary, vocabulary], identity(vocabulary)).param(),
        Input::u32("targets", [rows], targets.to_vec()),
    ];
    run(tier, &inputs, |g, t| vec![g.loss_head(t[0], t[1], t[2], false).statistics]).remove(0)
}

#[test]
fn ties_go_to_the_lowest_index() {
    for tier in [Capabilities::PORTABLE, Capabilities::CPU] {
        for vocabulary in [5_u32, 64] {
            let logits: Vec<f32> = (0..4 * vocabulary).map(|i| if [1, 4].contains(&(i % vocabulary)) { 2.0 } else { -1.0 }).collect();
            assert_eq!(statistics(tier, &logits, vocabulary, &[4, 1, 0, IGNORED])[1..], [3.0, 1.0, 0.0]);
            assert_eq!(statistics(tier, &vec![0.0; vocabulary as usize], vocabulary, &[0])[1..], [1.0, 1.0, 0.0]);
        }
    }
}

#[test]
fn counts_rows_with_a_non_finite_logit() {
    for tier in [Capabilities::PORTABLE, Capabilities::CPU] {
        for value in [3e38, -3e38] {
            // Overflow to infinity inside the product: the largest finite numbers, twice.
            let mut x = vec![0.0; 3 * 64];
            x[64..66].fill(value);
            let mut w = vec![0.0; 64 * 64];
            w[9 * 64..9 * 64 + 2].fill(3.0);
            let inputs =
                [Input::values("x", [3, 64], x), Input::values("w", [64, 64], w).param(), Input::u32("targets", [3], vec![1, 2, 3])];
            let found = run(tier, &inputs, |g, t| vec![g.loss_head(t[0], t[1], t[2], false).statistics]).remove(0);
            assert!(found[0].is_nan(), "{found:?}");
            assert_eq!((found[1], found[3]), (3.0, 1.0));
        }
    }
}

#[test]
fn sums_many_rows_within_a_millionth() {
    // Losses of one size, which an ordinary running sum would round by 1e-5.
    let (rows, vocabulary) = (16_411, 64);
    let logits = Input::uniform("x", [rows, vocabulary], -1.0, 1.0);
    let targets = targets_of(rows, vocabulary);
    let identity = Input::values("w", [vocabulary, vocabulary], identity(vocabulary)).param();
    let inputs = [logits, identity, Input::u32("targets", [rows], targets.clone())];
    let wanted = twin(&inputs[0].array(), &inputs[1].array(), &targets, 1.0)[1].data[0];
    for tier in [Capabilities::PORTABLE, Capabilities::CPU] {
        let found = run(tier, &inputs, |g, t| vec![g.loss_head(t[0], t[1], t[2], false).statistics])[0][0];
        assert!((f64::from(found) / wanted - 1.0).abs() < 1e-6, "{tier:?}: wanted {wanted}, found {found}");
    }
}

#[test]
fn counts_every_row_of_a_long_batch() {
    // lavapipe leaves a loop after 65,535 iterations: no invocation may walk all these rows.
    let rows = 70_001;
    for tier in [Capabilities::PORTABLE, Capabilities::CPU] {
        let found = statistics(tier, &vec![0.0; rows as usize * 64], 64, &targets_of(rows, 64));
        assert_eq!(found[1], (rows - rows / 5) as f32);
    }
}

#[test]
fn follows_the_twin_with_the_embedding_tied() {
    for (rows, vocabulary, width) in [(13, 29, 17), (13, 128, 64)] {
        let tokens: Vec<u32> = (0..rows).map(|n| (n * n) % vocabulary).collect();
        let targets = targets_of(rows, vocabulary);
        let inputs = [
            Input::u32("tokens", [rows], tokens.clone()),
            Input::normal("w", [vocabulary, width]).scaled(0.3).param(),
            Input::u32("targets", [rows], targets.clone()),
        ];
        let step = Step { inverse_targets: 1.0, ..Step::default() };
        Case::new(format!("tied {rows}x{vocabulary}x{width}")).seeded_loss().step(step).check(
            &inputs,
            |g, t| {
                let x = g.embedding(t[0], t[1], 1.5);
                vec![g.loss_head(x, t[1], t[2], true).loss]
            },
            |a| {
                let width = a[1].width();
                let rows = tokens.iter().flat_map(|t| a[1].data[*t as usize * width..][..width].iter().map(|v| 1.5 * v));
                let x = Array::new([tokens.len(), width], rows.collect());
                vec![twin(&x, &a[1], &targets, 1.0)[0].clone()]
            },
        );
    }
}

#[test]
fn catches_mutants() {
    let portable = [
        ("loss_head", "(probability - select(0.0, 1.0, i == target_index)) * weight", "probability * weight"),
        ("loss_head", "step.inverse_targets * d_loss[0], 0.0", "step.inverse_targets, 0.0"),
        ("loss_head", "* d_loss[0], 0.0, target_index == IGNORED", "* d_loss[0], 0.0, false"),
        ("loss_head", "/ summary.sum + shift", "+ shift"),
        ("loss_head", "targets[params.first_row + row]", "targets[row]"),
        ("row_ranges", "= whole[params.first_row * params.width + i]", "= whole[i]"),
        ("loss_head", "a.sum * exp(a.peak - peak) + b.sum", "a.sum + b.sum"),
    ];
    catches(&portable, |case| outcome(case, [13, 257, 7], Some(5)));
    let cpu = [
        ("loss_head_cpu", "* factor - onehot + shift", "* factor + shift"),
        ("loss_head_cpu", "step.inverse_targets * d_loss[0], 0.0", "d_loss[0], 0.0"),
        ("loss_head_cpu", "sum = sum * exp(peak - block) + block_sum", "sum += block_sum"),
        ("loss_head_cpu", "targets[params.first_row + id.x]", "targets[id.x]"),
        ("loss_head_cpu", "logit == summary.peak && ", ""),
    ];
    catches(&cpu, |case| outcome(case, [13, 128, 64], Some(5)));
    let gpu = [
        ("loss_head_vec4", "* factor - onehot + shift", "* factor + shift"),
        ("loss_head_vec4", "step.inverse_targets * d_loss[0], 0.0", "d_loss[0], 0.0"),
        ("loss_head_vec4", "sum = sum * exp(peak - top) + exp(values - top)", "sum += exp(values - top)"),
        ("loss_head_vec4", "targets[params.first_row + row]", "targets[row]"),
        ("loss_head_vec4", "logit == summary.peak && ", ""),
        ("loss_head_vec4", "[index % 4u]", "[0]"),
    ];
    catches(&gpu, |case| outcome(case, [13, 1100, 64], Some(5)));
}

#[test]
fn gives_the_same_bits_twice() {
    let device = device();
    for tier in tiers(&device) {
        let (rows, vocabulary, width) = (300, 128, 64);
        let mut g = Graph::new(tier);
        let (x, w) = (g.leaf("x", [rows, width]), g.param("w", [vocabulary, width]));
        let targets = g.input("targets", [rows], moelab::gpu::DType::U32);
        let head = g.loss_head_in_chunks(x, w, targets, true, 128);
        g.backward(head.loss);
        g.output("loss", head.loss);
        let d_x = g.grad(x).expect("a gradient");
        g.output("d_x", d_x);
        let inputs: Vec<Input> =
            operands(rows, vocabulary, width).into_iter().chain([Input::values("loss_seed", [1], vec![0.5])]).collect();
        let mut fixture = Fixture::new(&device, g.finish(), &inputs);
        let mut bits = || {
            fixture.plan.poison(&device);
            fixture.run(&Step { inverse_targets: 1.0 / 240.0, ..Step::default() }, &[Segment::ClearGradients, Segment::Micro]);
            ["loss", "d_x", "d_w"].map(|name| fixture.read_named(name).iter().map(|v| v.to_bits()).collect::<Vec<_>>())
        };
        assert_eq!(bits(), bits());
    }
}
