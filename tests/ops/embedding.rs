//! Embedding against its twin: repeated, equal and distinct tokens, with and without images.

use moelab::{
    gpu::{Capabilities, DType, Segment, Step},
    ops::Graph,
};

use crate::harness::{Array, Case, Fixture, Input, catches, device, run, tiers};

const SCALE: f32 = 1.75;

fn twin(tokens: &[u32], w: &Array) -> Array {
    let rows = tokens.iter().flat_map(|t| w.data[*t as usize * w.width()..][..w.width()].iter().map(|v| v * f64::from(SCALE)));
    Array::new([tokens.len(), w.width()], rows.collect())
}

fn outcome(case: Case, tokens: &[u32], [vocabulary, width]: [u32; 2]) -> Result<(), String> {
    case.try_check(
        &[Input::u32("tokens", [tokens.len() as u32], tokens.to_vec()), Input::normal("w", [vocabulary, width]).param()],
        |g, t| vec![g.embedding(t[0], t[1], SCALE)],
        |a| vec![twin(tokens, &a[1])],
    )
}

fn check(name: &str, tokens: Vec<u32>, [vocabulary, width]: [u32; 2]) {
    let rows = tokens.len();
    outcome(Case::new(format!("embedding {name} {rows} of {vocabulary}x{width}")), &tokens, [vocabulary, width]).unwrap();
}

/// Tokens in no order, with repetitions.
fn mixed(rows: u32, vocabulary: u32) -> Vec<u32> {
    (0..rows).map(|n| n.wrapping_mul(2_654_435_761) >> 7).map(|v| v % vocabulary).collect()
}

#[test]
fn follows_the_twin() {
    for (rows, vocabulary, width) in [(1, 1, 1), (7, 5, 3), (67, 31, 65), (257, 19, 7), (33, 257, 64), (521, 1009, 128)] {
        check("mixed", mixed(rows, vocabulary), [vocabulary, width]);
    }
}

#[test]
fn sums_equal_tokens_and_keeps_distinct_ones_apart() {
    for width in [5, 64] {
        check("equal", vec![2; 300], [3, width]);
        check("distinct", (0..300).rev().collect(), [300, width]);
        check("first and last token", vec![0, 96, 0, 96, 96], [97, width]);
    }
}

#[test]
fn reads_a_table_too_tall_for_an_image() {
    check("tall", vec![50_256, 0, 50_256, 12_345], [50_257, 64]);
}

#[test]
fn reads_rows_of_an_activation() {
    for tier in [Capabilities::PORTABLE, Capabilities::CPU] {
        let x: Vec<f32> = (0..256).map(|v| v as f32).collect();
        let inputs = [Input::u32("position", [1], vec![2]), Input::values("x", [4, 64], x.clone())];
        assert_eq!(run(tier, &inputs, |g, t| vec![g.embedding(t[0], t[1], 1.0)])[0], x[128..192]);
    }
}

#[test]
fn catches_mutants_of_backward() {
    let portable = [
        ("embedding", "sh_tokens[i] == token && start + i < n", "sh_tokens[i] == token && start + i > n + 300u"),
        ("embedding", "start < params.rows; start += TILE", "start < 1u; start += TILE"),
        ("embedding", "sorted[place] == token", "place < first + 1u"),
        ("embedding", "order[place] * params.width", "place * params.width"),
        ("embedding", "+= params.scale * sum", "+= sum"),
    ];
    catches(&portable, |case| outcome(case, &mixed(300, 19), [19, 7]));
    let cpu = [
        ("embedding_cpu", "id.x] += params.scale", "id.x] = params.scale"),
        ("embedding_cpu", "row < params.rows; row++", "row < params.rows - 1u; row++"),
    ];
    catches(&cpu, |case| outcome(case, &mixed(30, 19), [19, 64]));
}

#[test]
fn gives_the_same_gradient_bits_twice() {
    let device = device();
    for tier in tiers(&device) {
        let mut g = Graph::new(tier);
        let (rows, shape) = (1500, [37, 64]);
        let inputs = [
            Input::u32("tokens", [rows], mixed(rows, shape[0])),
            Input::normal("w", shape).param(),
            Input::normal("d_y", [rows, shape[1]]),
        ];
        let tokens = g.input("tokens", [rows], DType::U32);
        let w = g.param("w", shape);
        let y = g.embedding(tokens, w, SCALE);
        let d_y = g.input("d_y", y.shape, DType::F32);
        g.backward_from(&[(y, d_y)]);
        let mut fixture = Fixture::new(&device, g.finish(), &inputs);
        let mut gradient = || {
            fixture.plan.poison(&device);
            fixture.run(&Step::default(), &[Segment::ClearGradients, Segment::Micro]);
            fixture.read_named("d_w").iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        };
        assert_eq!(gradient(), gradient());
    }
}
