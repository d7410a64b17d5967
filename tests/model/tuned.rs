//! Kernels chosen by measurement: where the table of a config holds, and what it changes.

use std::rc::Rc;

use moelab::{
    gpu::{Command, Device, GpuError},
    run::{Config, config::Kernels},
    train::{
        recording::{kernels_for, training},
        tuning::{shaders, why_not},
    },
};

use crate::{
    checkpoints::weights_sha256,
    harness::on_shared_device,
    trainer::{batches, drive, start, tiny},
};

fn config(kernels: Kernels) -> Config {
    let mut config = tiny(&["model.width=64", "model.ffn.width=64", "data.sequence_length=8"]);
    config.model.vocabulary = 64;
    Config { kernels, ..config }
}

/// The table of a device.
fn table(device: &Device, without: &[String]) -> Kernels {
    Kernels {
        adapter: device.adapter.name.clone(),
        driver: device.adapter.driver.clone(),
        shaders: shaders().into(),
        workgroups: 0,
        logit_rows: 0,
        without: without.to_vec(),
    }
}

/// The modules of an update, those first that others can replace.
fn modules(device: &Device, kernels: &Kernels) -> (Vec<String>, Vec<String>) {
    let config = config(kernels.clone());
    let program = training(&config, kernels_for(&config, device).unwrap()).program;
    let (mut replaceable, mut others) = (Vec::new(), Vec::new());
    for command in program.micro.iter().chain(&program.update) {
        if let Command::Dispatch(d) = command {
            let list = if d.kernel.module.bit.is_some() { &mut replaceable } else { &mut others };
            if !list.contains(&d.kernel.module.name.to_string()) {
                list.push(d.kernel.module.name.to_string());
            }
        }
    }
    (replaceable, others)
}

fn ran(device: &Rc<Device>, kernels: Kernels) -> (Vec<f64>, String) {
    let config = config(kernels);
    let ran = drive(&mut start(&config, device, &batches(&config, 4), &batches(&config, 1)));
    (ran.losses(), weights_sha256(&ran.snapshot(4).tensors))
}

#[test]
fn the_table_holds_for_what_was_measured_and_for_nothing_else() {
    on_shared_device(|device| {
        let (fast, _) = modules(device, &Kernels::default());
        assert!(fast.len() > 3, "{fast:?}");
        // One after the other, until only those are left that none can replace.
        let mut without: Vec<String> = Vec::new();
        while let Some(next) = modules(device, &table(device, &without)).0.first() {
            assert!(!without.contains(next), "{next} is used although it is to be done without");
            without.push(next.clone());
        }
        let tuned = table(device, &without);
        assert_eq!(why_not(&tuned, device), None);
        assert_ne!(modules(device, &tuned), modules(device, &Kernels::default()));
        for (other, what) in [
            (Kernels { adapter: "another card".into(), ..tuned.clone() }, "adapter `another card`"),
            (Kernels { driver: "1.2".into(), ..tuned.clone() }, "driver `1.2`"),
            (Kernels { shaders: "0123456789abcdef".into(), ..tuned.clone() }, "shaders `0123456789abcdef`"),
        ] {
            let said = why_not(&other, device).unwrap();
            assert!(said.contains(what) && said.contains("moelab tune"), "{said}");
            assert_eq!(modules(device, &other), modules(device, &Kernels::default()));
        }
        // A module that there is not, and one that none can replace.
        for name in ["matmul_imagined", "matmul"] {
            let refused = kernels_for(&config(table(device, &[name.into()])), device);
            assert_eq!(refused.err(), Some(GpuError::UnknownKernels { name: name.into() }));
        }
    });
}

#[test]
fn a_table_changes_results_by_rounding_and_an_empty_one_by_nothing() {
    on_shared_device(|device| {
        let (losses, weights) = ran(device, Kernels::default());
        assert_eq!(ran(device, table(device, &[])), (losses.clone(), weights.clone()));
        let (fast, _) = modules(device, &Kernels::default());
        let few_rows = Kernels { logit_rows: 3, ..table(device, &[]) };
        for (what, changed) in [("no kernel was another", table(device, &fast)), ("the logits were computed as before", few_rows)] {
            let (other_losses, other_weights) = ran(device, changed);
            let error = losses.iter().zip(&other_losses).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max);
            assert!(losses.len() == 4 && error < 1e-5, "{losses:?} and {other_losses:?}");
            assert_ne!(weights, other_weights, "{what}");
        }
    });
}
