//! Operands of f16: what a run with them has to do with one of f32.

use std::rc::Rc;

use moelab::{gpu::Device, ops::kernels::MODULES, run::Config};

use crate::{
    checkpoints::weights_sha256,
    harness::on_shared_device,
    skipped::skipped,
    trainer::{batches, drive, start, tiny},
};

/// Widths that kernels with f16 operands take.
const WIDE: [&str; 3] = ["model.width=16", "model.ffn.width=32", "data.sequence_length=8"];

fn config(precision: &str) -> Config {
    let precision = format!("train.precision={precision}");
    let mut config = tiny(&[&WIDE[..], &[&precision]].concat());
    config.model.vocabulary = 16;
    config
}

/// The losses of a run, and the digest of its weights.
fn ran(device: &Rc<Device>, precision: &str) -> (Vec<f64>, String) {
    let config = config(precision);
    let ran = drive(&mut start(&config, device, &batches(&config, 4), &batches(&config, 1)));
    (ran.losses(), weights_sha256(&ran.snapshot(4).tensors))
}

#[test]
fn split_operands_train_as_f32_and_rounded_ones_nearly() {
    on_shared_device(|device| {
        if device.with_matrices(MODULES).is_none() {
            return skipped("the adapter has no cooperative matrices");
        }
        let [(f32, f32_weights), (f16, f16_weights), (split, split_weights)] = ["f32", "f16", "split"].map(|p| ran(device, p));
        let error = |found: &[f64]| found.iter().zip(&f32).map(|(found, wanted)| (found / wanted - 1.0).abs()).fold(0.0, f64::max);
        assert_eq!(f32.len(), 4);
        assert!(error(&split) < 1e-5, "{split:?} against {f32:?}");
        assert!(error(&f16) < 3e-3, "{f16:?} against {f32:?}");
        assert!(f16 != f32 && error(&split) < error(&f16), "{f16:?} and {split:?} against {f32:?}: no product had other operands");
        assert!(f32_weights != f16_weights && f32_weights != split_weights);
        // The same run twice, the same bits.
        assert_eq!(ran(device, "f16"), (f16, f16_weights));
        assert_eq!(ran(device, "split"), (split, split_weights));
    });
}
