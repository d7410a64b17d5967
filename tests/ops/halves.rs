//! Operands rounded to f16: each tensor once after its last write, and to the nearest.

use moelab::{
    gpu::{Capabilities, Command},
    ops::{Form, Graph, kernels::MODULES},
};

use crate::{
    harness::{Input, device, run},
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
