//! Operands rounded to f16: each tensor once after its last write, and to the nearest.

use moelab::{
    gpu::{Capabilities, Command, Program, Segment, Step},
    ops::{Activation, ExpertBiases, FfnWeights, Form, Graph, Heads, RopePairing, Rotation, RouterBiases, RouterOptions, kernels::MODULES},
};

use crate::{
    harness::{Fixture, Input, device, run},
    skipped::skipped,
};

/// Capabilities with cooperative matrices, whether the adapter has them or not.
fn with_matrices() -> Capabilities {
    Capabilities { f16: true, subgroup_sizes: [8; 2], matrices: [[8; 3]; 4], ..Capabilities::PORTABLE }
}

fn kernels(g: &Graph) -> Vec<String> {
    let name = |command: &Command| if let Command::Dispatch(d) = command { Some(d.kernel.name()) } else { None };
    g.program().micro.iter().filter_map(name).collect()
}

#[test]
fn a_tensor_is_rounded_once_until_it_is_written_again() {
    let mut g = Graph::new(with_matrices());
    let (x, w) = (g.leaf("x", [32, 64]), g.param("w", [32, 64]));
    let y = g.matmul(x, w, Form::Nt);
    let product = "matmul_coop_raster.nt";
    assert_eq!(kernels(&g), ["halves.round", "halves.round", product]);
    g.matmul(x, w, Form::Nt);
    assert_eq!(kernels(&g)[3..], [product]);
    g.matmul(y, y, Form::Nt);
    assert_eq!(kernels(&g)[4..], ["halves.round", product]);
    // What an update does has f32 operands.
    let mut g = Graph::new(with_matrices());
    let x = g.leaf("x", [32, 64]);
    g.begin_update();
    g.matmul(x, x, Form::Nt);
    let update = &g.program().update;
    assert!(matches!(&update[..], [Command::Dispatch(d)] if d.kernel.name() == "matmul_vec4.nt"), "{update:?}");
}

#[test]
fn a_tensor_is_split_once() {
    let mut g = Graph::new(Capabilities { splits_operands: true, ..with_matrices() });
    let (x, w) = (g.leaf("x", [32, 64]), g.param("w", [32, 64]));
    g.matmul(x, w, Form::Nt);
    g.matmul(x, w, Form::Nt);
    assert_eq!(kernels(&g), ["halves.split", "halves.split", "matmul_coop_raster.nt", "matmul_coop_raster.nt"]);
    let halves = g.find("x.f16").map(|t| t.shape.as_slice().to_vec());
    assert_eq!(halves, Some(vec![2, 32 * 64]));
    let is_split = |command: &Command| matches!(command, Command::Dispatch(d) if d.constants == [("SPLIT", 1.0)]);
    assert_eq!(g.program().micro.iter().map(is_split).collect::<Vec<_>>(), [false, false, true, true]);
}

/// Halves hold 22 bits, over the whole range of gradients that are scaled: the product with the identity is the operand.
#[test]
fn split_elements_keep_their_bits() {
    let Some(tier) = device().with_matrices(MODULES) else {
        skipped("the adapter has no cooperative matrices");
        return;
    };
    let tier = Capabilities { splits_operands: true, ..tier };
    let mut values = Input::normal("x", [64, 64]).array().data;
    values.iter_mut().enumerate().for_each(|(i, v)| *v *= 2.0_f64.powi(i as i32 % 28 - 14));
    let x: Vec<f32> = values.iter().map(|v| *v as f32).collect();
    let identity = (0..64 * 64).map(|i| if i % 65 == 0 { 1.0 } else { 0.0 }).collect();
    let inputs = [Input::values("x", [64, 64], x.clone()), Input::values("identity", [64, 64], identity)];
    let found = run(tier, &inputs, |g, t| vec![g.matmul(t[0], t[1], Form::Nn)]).remove(0);
    for (found, wanted) in found.iter().zip(&x) {
        // Below 2^-14 there is a low half alone.
        let bits = if wanted.abs() < 2.0_f32.powi(-14) { 11 } else { 22 };
        assert!((found - wanted).abs() <= wanted.abs() * 2.0_f32.powi(-bits), "{wanted:e}: {found:e}");
    }
}

/// An operand that is not representable is rounded: the product with the identity shows to what.
#[test]
fn elements_are_rounded_to_the_nearest() {
    let Some(tier) = device().with_matrices(MODULES) else {
        skipped("the adapter has no cooperative matrices");
        return;
    };
    let x = Input::normal("x", [64, 64]);
    let identity = (0..64 * 64).map(|i| if i % 65 == 0 { 1.0 } else { 0.0 }).collect();
    let inputs = [x.clone(), Input::values("identity", [64, 64], identity)];
    let found = run(tier, &inputs, |g, t| vec![g.matmul(t[0], t[1], Form::Nn)]).remove(0);
    let wanted: Vec<f64> = x.clone().halves().array().data;
    assert!(found.iter().zip(&wanted).all(|(found, wanted)| f64::from(*found) == *wanted));
    assert_ne!(x.array().data, wanted);
}

/// Rotated queries through a layer of experts to the loss, with norms and weights of whole tiles; its inputs, and the names of its gradients.
pub fn layer(capabilities: Capabilities) -> (Graph, Vec<Input>, [&'static str; 7]) {
    let mut g = Graph::new(capabilities);
    let scaled = |name: &str, shape: &[u32]| Input::normal(name, shape).scaled(0.125).param();
    let parameters = [
        Input::normal("first", [64]).param(),
        scaled("projection", &[192, 64]),
        Input::normal("second", [64]).param(),
        scaled("router", &[4, 64]),
        scaled("up", &[4, 128, 64]),
        scaled("down", &[4, 64, 128]),
        scaled("head", &[256, 64]),
    ];
    let inputs = [Input::normal("x", [128, 64]), Input::u32("targets", [128], (0..128).map(|n| 7 * n % 256).collect())];
    let [x, targets] = inputs.each_ref().map(|input| input.declare(&mut g));
    let [first, projection, second, router, up, down, head] = parameters.each_ref().map(|input| input.declare(&mut g));
    let heads = Heads { tokens: 64, query: 4, key_value: 4, width: 16 };
    let normed = g.rms_norm(x, first, 1e-5);
    let projected = g.linear(normed, projection);
    let (q, _) = g.rope(projected, heads, Rotation { rotated: 16, base: 1e4, pairs: RopePairing::HalfSplit });
    let (residual, normed) = g.add_rms_norm(x, q, second, 1e-5);
    let routing = g.router(normed, router, RouterBiases::default(), RouterOptions::new(2));
    let permutation = g.permute(&routing);
    let rows = g.gather_rows(normed, &permutation);
    let weights = FfnWeights { up, gate: None, down };
    let out = g.expert_ffn(rows, permutation.offsets, &weights, &ExpertBiases::default(), Activation::Silu, 0.0);
    let y = g.combine(out, &routing, &permutation, Some(residual), 0.0);
    let loss = g.loss_head(y, head, targets, true).loss;
    g.backward(loss);
    let seed = Input::values("loss_seed", [1], vec![1.0]);
    let gradients = ["d_first", "d_projection", "d_second", "d_router", "d_up", "d_down", "d_head"];
    (g, inputs.into_iter().chain(parameters).chain([seed]).collect(), gradients)
}

/// The gradients of [`layer`] with a program of its.
pub fn gradients_of_layer(program: Program, inputs: &[Input], names: &[&str]) -> Vec<Vec<f32>> {
    let device = device();
    let mut fixture = Fixture::new(&device, program, inputs);
    fixture.run(&Step { inverse_targets: 1.0 / 128.0, ..Step::default() }, &[Segment::ClearGradients, Segment::Micro]);
    let found: Vec<Vec<f32>> = names.iter().map(|name| fixture.read_named(name)).collect();
    assert!(found.iter().all(|gradient| gradient.iter().any(|d| *d != 0.0) && gradient.iter().all(|d| d.is_finite())));
    found
}

#[test]
fn kernels_write_f16_where_only_products_read() {
    let (g, inputs, gradients) = layer(with_matrices());
    let apart = g.program().clone();
    let together = g.finish();
    let names = |program: &Program| -> Vec<String> {
        let name = |command: &Command| if let Command::Dispatch(d) = command { Some(d.kernel.name()) } else { None };
        program.micro.iter().filter_map(name).collect()
    };
    let (before, after) = (names(&apart), names(&together));
    let writers = [
        "gather_rows_halves.forward",
        "activation_halves.forward",
        "activation_halves.backward_again",
        "combine_gpu_halves.backward",
        "rope_vec4_halves.backward",
    ];
    for writer in writers {
        assert!(after.iter().any(|name| name == writer), "{writer} in {after:?}");
        assert!(!before.iter().any(|name| name == writer));
    }
    // The logits' gradient is of f16 from the start. Six results are no longer rounded: the second of the activation's backward among them.
    assert!(before.iter().any(|name| name == "loss_head_halves.gradient_halves"), "{before:?}");
    assert_eq!(before.len() - after.len(), writers.len() + 1);
    let Some(_) = device().with_matrices(MODULES) else {
        skipped("the adapter has no cooperative matrices");
        return;
    };
    let [wanted, found] = [apart, together].map(|program| gradients_of_layer(program, &inputs, &gradients));
    assert_eq!(found, wanted);
}

/// What the host or another kernel reads, and what is written twice, stays f32.
#[test]
fn what_others_read_stays_f32() {
    let (mut g, ..) = layer(with_matrices());
    let rows = g.find("gather_rows").expect("a tensor");
    g.output("rows", rows);
    let inner = g.find("activation").expect("a tensor");
    g.scale(inner, 2.0);
    let program = g.finish();
    let is_there = |wanted: &str| program.micro.iter().any(|command| matches!(command, Command::Dispatch(d) if d.kernel.name() == wanted));
    assert!(is_there("gather_rows_vec4.forward") && !is_there("gather_rows_halves.forward"));
    assert!(is_there("activation_vec4.forward") && !is_there("activation_halves.forward"));
    assert!(is_there("activation_halves.backward_again"));
}
