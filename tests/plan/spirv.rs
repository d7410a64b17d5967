//! spirv-val accepts the SPIR-V of every kernel.

use std::{fs, path::Path, process::Command};

use moelab::{gpu::spirv, ops::kernels::KERNELS};

use crate::skipped::skipped;

#[test]
fn every_kernel_is_valid_spirv() {
    let mesa = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/xtask/mesa");
    let validator = mesa.join("root/usr/bin/spirv-val");
    if !validator.exists() {
        return skipped("no spirv-val that knows cooperative matrices: `cargo xtask setup test` fetches one");
    }
    let folder = tempfile::tempdir().unwrap();
    let mut invalid = Vec::new();
    for kernel in KERNELS {
        // What calls and the graph set; constants without a default take any value here.
        for split in [0.0, 1.0] {
            let mut constants: Vec<(&'static str, f64)> = kernel.overrides.iter().map(|name| (*name, 1.0)).collect();
            if kernel.module.source.contains("override SPLIT") {
                constants.push(("SPLIT", split));
            } else if split > 0.0 {
                continue;
            }
            let file = folder.path().join("kernel.spv");
            fs::write(&file, spirv(kernel, &constants).words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
            let output = Command::new(mesa.join("run")).arg(&validator).args(["--target-env", "spv1.6"]).arg(&file).output().unwrap();
            if !output.status.success() {
                invalid.push(format!("{} {constants:?}: {}", kernel.name(), String::from_utf8_lossy(&output.stderr)));
            }
        }
    }
    assert!(invalid.is_empty(), "{}", invalid.join("\n"));
    assert!(KERNELS.len() > 200, "{} kernels", KERNELS.len());
    // It refuses what is wrong: a module whose bound is too small.
    let mut words = spirv(KERNELS[0], &[]).words;
    words[3] = 1;
    let file = folder.path().join("kernel.spv");
    fs::write(&file, words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    let status = Command::new(mesa.join("run")).arg(&validator).arg(&file).output().unwrap().status;
    assert!(!status.success(), "spirv-val accepts anything");
}
