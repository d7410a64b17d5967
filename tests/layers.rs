//! The structure holds: no file imports from a layer above its own, an op's three files share a stem, every file says what
//! it is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// From the lowest up. Each may import those before it.
const LAYERS: [&str; 13] =
    ["random", "config_file", "choices", "limits", "run", "gpu", "ops", "model", "data", "train", "interop", "lab", "ui"];
/// What a layer does not use although it is not above it.
const FORBIDDEN: [(&str, &[&str]); 10] = [
    ("run", &["wgpu", "tokenizers", "safetensors", "std::fs", "std::time"]),
    ("gpu", &["crate::run", "crate::config_file", "serde_json", "toml", "std::fs"]),
    ("ops", &["crate::run", "crate::config_file", "wgpu::", "std::fs"]),
    ("model", &["crate::config_file", "wgpu::", "std::fs"]),
    ("data", &["crate::gpu", "crate::ops", "crate::model", "std::fs", "std::time"]),
    ("train", &["wgpu::", "std::fs", "std::time"]),
    ("interop", &["wgpu::", "std::fs", "std::time"]),
    ("lab", &["wgpu::", "egui", "std::fs", "std::time"]),
    ("ui", &["crate::gpu", "crate::ops", "crate::train", "crate::data", "std::fs"]),
    ("config_file", &["std::fs"]),
];

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string()
}

fn layer_of(path: &Path) -> Option<usize> {
    let inside = relative(path);
    let first = inside.strip_prefix("src/")?.split(['/', '.']).next()?.to_string();
    LAYERS.iter().position(|f| *f == first)
}

#[test]
fn no_file_imports_from_above() {
    let mut wrong = Vec::new();
    for path in files("src", "rs") {
        let Some(own) = layer_of(&path) else { continue };
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code: Vec<&str> = text.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
        let code = code.join("\n");
        for (layer, name) in LAYERS.iter().enumerate() {
            if layer > own && (code.contains(&format!("crate::{name}::")) || code.contains(&format!("    {name}::"))) {
                wrong.push(format!("{} imports {name}", relative(&path)));
            }
        }
        for (layer, forbidden) in FORBIDDEN {
            if LAYERS[own] == layer {
                wrong.extend(forbidden.iter().filter(|f| code.contains(**f)).map(|f| format!("{} uses {f}", relative(&path))));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The compiler holds this: `cargo check --no-default-features` has nothing else to link, and is a step of `cargo xtask test`.
#[test]
fn without_the_engine_nothing_of_it_is_linked() {
    let tree = |features: &[&str]| {
        let arguments = ["tree", "--offline", "--package", "moelab", "--edges", "normal", "--prefix", "none"];
        let output = Command::new(env!("CARGO")).current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).args(features).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let (with, without) = (tree(&[]), tree(&["--no-default-features"]));
    for package in ["wgpu", "tokenizers", "safetensors"] {
        assert!(with.lines().any(|line| line.starts_with(&format!("{package} "))), "the test looks for {package} by another name");
        assert!(!without.lines().any(|line| line.starts_with(package)), "{package} without the engine");
    }
}

#[test]
fn only_the_device_asks_for_the_target() {
    let asks = files("src", "rs").into_iter().filter(|p| fs::read_to_string(p).unwrap().contains("target_arch"));
    let asks: Vec<String> = asks.map(|p| relative(&p)).collect();
    let allowed = ["src/gpu/device.rs", "src/gpu/mod.rs"];
    assert!(asks.iter().all(|p| allowed.contains(&p.as_str())), "{asks:?}");
}

#[test]
fn an_op_is_three_files_of_one_stem() {
    let stem = |p: &PathBuf| p.file_name().unwrap().to_string_lossy().split('.').next().unwrap().to_string();
    let ops: Vec<String> = files("src/ops", "rs").iter().map(stem).collect();
    let tests: Vec<String> = files("tests/ops", "rs").iter().map(stem).collect();
    let shaders = fs::read_dir("shaders").unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "wgsl"));
    for shader in shaders.map(|p| stem(&p)) {
        assert!(ops.contains(&shader), "shaders/{shader}.wgsl has no src/ops/{shader}.rs");
        assert!(tests.contains(&shader), "shaders/{shader}.wgsl has no tests/ops/{shader}.rs");
    }
}

#[test]
fn every_file_says_what_it_is() {
    let mut silent = Vec::new();
    for folder in ["src", "native", "web", "xtask", "tests", "shaders/build"] {
        for path in files(folder, "rs") {
            if !fs::read_to_string(&path).unwrap().starts_with("//!") {
                silent.push(relative(&path));
            }
        }
    }
    for path in files("shaders", "wgsl") {
        if !fs::read_to_string(&path).unwrap().starts_with("// ") {
            silent.push(relative(&path));
        }
    }
    assert!(silent.is_empty(), "no header: {}", silent.join(", "));
}
