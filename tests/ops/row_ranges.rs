//! A tensor cut into ranges of rows and joined again, and the FFNs of rows that an adapter cannot bind whole.

use moelab::{
    gpu::Tensor,
    ops::{Activation, ExpertBiases, FfnWeights, Graph},
};

use crate::harness::{Array, Case, Input, catches, device, run, tiers};

/// Part i times i + 1.
fn scaled_parts(g: &mut Graph, t: &[Tensor], rows: u32) -> Vec<Tensor> {
    let parts = g.cut_rows(t[0], rows);
    let parts: Vec<Tensor> = parts.into_iter().enumerate().map(|(i, part)| g.scale(part, i as f32 + 1.0)).collect();
    vec![g.join_rows(&parts)]
}

fn twin(x: &Array, rows: u32) -> Array {
    let scaled = x.rows().enumerate().flat_map(|(i, row)| row.iter().map(move |v| v * (i / rows as usize + 1) as f64)).collect();
    Array::new(x.shape.clone(), scaled)
}

fn outcome(case: Case, [all, width]: [u32; 2], rows: u32) -> Result<(), String> {
    case.try_check(&[Input::normal("x", [all, width])], |g, t| scaled_parts(g, t, rows), |a| vec![twin(&a[0], rows)])
}

#[test]
fn follow_the_twin() {
    for (shape, rows) in [([1, 1], 1), ([5, 3], 2), ([64, 64], 64), ([131, 7], 64), ([200, 64], 1000)] {
        outcome(Case::new(format!("row_ranges {shape:?} by {rows}")), shape, rows).unwrap();
    }
}

#[test]
fn catch_mutants() {
    let mutants = [
        ("row_ranges", "= whole[params.first_row * params.width + i]", "= whole[i]"),
        ("row_ranges", "whole[params.first_row * params.width + i] = part[i]", "whole[params.first_row * params.width + i] = -part[i]"),
    ];
    catches(&mutants, |case| outcome(case, [19, 5], 7));
}

/// Bytes of an inner layer of 64 rows of 64.
const SMALL: u64 = 4 * 64 * 64;

/// Experts, and a dense FFN, over 150 rows with dropout, at once and in three parts.
#[test]
fn parts_have_the_bits_of_the_whole() {
    let (rows, d, width, experts) = (150, 16, 64, 3);
    let offsets = [0_u32, 70, 70, 150];
    let inputs = [
        Input::normal("x", [rows, d]),
        Input::normal("up", [experts, width, d]),
        Input::normal("gate", [experts, width, d]),
        Input::normal("down", [experts, d, width]),
        Input::normal("up_bias", [experts, width]),
        Input::u32("offsets", [experts + 1], offsets.to_vec()),
        Input::normal("dense_up", [width, d]),
        Input::normal("dense_down", [d, width]),
    ];
    let all = tiers(&device());
    for tier in all {
        let outputs = [u64::MAX, SMALL].map(|limit| {
            run(tier, &inputs, |g, t| {
                g.capabilities.binding_bytes = limit;
                let weights = FfnWeights { up: t[1], gate: Some(t[2]), down: t[3] };
                let biases = ExpertBiases { up: Some(t[4]), ..ExpertBiases::default() };
                let of_experts = g.expert_ffn(t[0], t[5], &weights, &biases, Activation::Silu, 0.3);
                let weights = FfnWeights { up: t[6], gate: None, down: t[7] };
                let dense = g.ffn(t[0], &weights, &ExpertBiases::default(), Activation::Gelu, 0.3);
                let largest = g.program().tensors.iter().filter(|t| t.shape.last() == width).map(|t| t.bytes()).max().unwrap();
                assert_eq!(largest, if limit == SMALL { SMALL } else { 4 * u64::from(rows * width) });
                vec![of_experts, dense]
            })
        });
        assert!(outputs[0] == outputs[1], "{tier:?}");
    }
}
