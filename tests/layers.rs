//! The structure holds: no file imports from a layer above its own, an op's three files share a stem, every file says what
//! it is.

#[path = "helpers/skipped.rs"]
mod skipped;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use skipped::skipped;

/// From the lowest up. Each may import those before it.
const LAYERS: [&str; 13] =
    ["random", "config_file", "choices", "limits", "run", "gpu", "ops", "model", "data", "train", "interop", "lab", "ui"];
/// What a layer does not use although it is not above it.
const FORBIDDEN: [(&str, &[&str]); 10] = [
    ("run", &["wgpu", "tokenizers", "safetensors::", "std::fs", "std::time"]),
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
fn only_the_device_and_compilation_ask_for_the_target() {
    let asks = files("src", "rs").into_iter().filter(|p| fs::read_to_string(p).unwrap().contains("target_arch"));
    let asks: Vec<String> = asks.map(|p| relative(&p)).collect();
    let allowed = ["src/gpu/compilation/mod.rs", "src/gpu/device.rs", "src/gpu/mod.rs"];
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
fn every_script_parses() {
    let scripts = [".ci/run", "web/pictures/take.sh"];
    let check = |script: &str| Command::new("bash").args(["-n", script]).current_dir(env!("CARGO_MANIFEST_DIR")).status();
    if check(scripts[0]).is_err() {
        return skipped("no bash");
    }
    scripts.iter().for_each(|script| assert!(check(script).unwrap().success(), "{script}"));
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

/// The modules of `src/lab` that compile without the feature `engine`, and those that need it, as `lab/mod.rs` declares them.
fn modules_of_lab() -> (Vec<String>, Vec<String>) {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lab/mod.rs")).unwrap();
    let (mut pure, mut gated, mut is_gated) = (Vec::new(), Vec::new(), false);
    for line in text.lines() {
        let declared = line.strip_prefix("pub mod ").or(line.strip_prefix("mod ")).and_then(|rest| rest.strip_suffix(';'));
        match declared {
            Some(name) if is_gated => gated.push(name.to_string()),
            Some(name) => pure.push(name.to_string()),
            None => {}
        }
        is_gated = line == "#[cfg(feature = \"engine\")]";
    }
    (pure, gated)
}

/// The paths that a file names, `use` trees expanded, as far as they start with `crate`, `super` or `self`.
fn paths(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
    let is_of_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let (mut found, mut prefixes, mut word) = (Vec::new(), vec![String::new()], String::new());
    // Outside of a tree there is one prefix, the empty one; each brace after `::` adds one.
    for c in code.chars() {
        if is_of_word(c) {
            word.push(c);
            continue;
        }
        if !word.is_empty() {
            let path = format!("{}{word}", prefixes.last().unwrap());
            if c == '{' && word.ends_with("::") {
                prefixes.push(path);
                word.clear();
                continue;
            }
            found.push(path);
            word.clear();
        }
        match c {
            '{' if prefixes.len() > 1 => prefixes.push(prefixes.last().unwrap().clone()),
            '}' if prefixes.len() > 1 => drop(prefixes.pop()),
            _ => {}
        }
    }
    found.retain(|path| ["crate::", "super::", "self::"].iter().any(|start| path.starts_with(start)));
    found
}

/// The modules of `lab` that a module of `lab` uses, with the file.
fn uses_within_lab(module: &str) -> Vec<(String, String)> {
    let mut used = Vec::new();
    let own = |path: &PathBuf| relative(path).strip_prefix("src/lab/").unwrap().split(['/', '.']).next() == Some(module);
    for path in files("src/lab", "rs").into_iter().filter(own) {
        let depth = relative(&path).matches('/').count() - 1;
        let inside = format!("{}lab::", "super::".repeat(depth + 1));
        for named in paths(&fs::read_to_string(&path).unwrap()) {
            let up = "super::".repeat(depth);
            let sibling = named.strip_prefix("crate::lab::").or(named.strip_prefix(&inside)).or(named.strip_prefix(&up));
            if let Some(first) = sibling.and_then(|path| path.split("::").next()).filter(|first| *first != module && *first != "super") {
                used.push((first.to_string(), relative(&path)));
            }
        }
    }
    used.sort();
    used.dedup();
    used
}

/// The compiler holds this too, where `cargo check --no-default-features` runs; here the message names the import.
#[test]
fn what_shows_runs_needs_no_engine() {
    let (pure, gated) = modules_of_lab();
    for module in ["figure", "files", "gates", "log", "overview", "plot", "rate", "reader", "report", "store"] {
        assert!(pure.contains(&module.to_string()), "lab::{module} needs the engine");
    }
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let layers: Vec<&str> =
        LAYERS.into_iter().filter(|layer| lib.contains(&format!("#[cfg(feature = \"engine\")]\npub mod {layer};"))).collect();
    assert_eq!(layers, ["gpu", "ops", "model", "data", "train", "interop"]);
    let mut wrong = Vec::new();
    for module in &pure {
        wrong.extend(
            uses_within_lab(module)
                .into_iter()
                .filter(|(used, _)| gated.contains(used))
                .map(|(used, path)| format!("{path} uses lab::{used}")),
        );
    }
    let is_pure = |path: &PathBuf| {
        let inside = relative(path);
        inside.starts_with("src/run/")
            || pure.iter().any(|module| inside.strip_prefix("src/lab/").and_then(|rest| rest.split(['/', '.']).next()) == Some(module))
    };
    for path in files("src", "rs").into_iter().filter(is_pure) {
        let named = paths(&fs::read_to_string(&path).unwrap());
        let layer = |path: &String| layers.iter().find(|layer| path.starts_with(&format!("crate::{layer}::"))).copied();
        wrong.extend(named.iter().filter_map(layer).map(|layer| format!("{} uses {layer}", relative(&path))));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn modules_of_the_lab_have_no_circle() {
    let (pure, gated) = modules_of_lab();
    let mut remaining: Vec<(String, Vec<(String, String)>)> = pure
        .into_iter()
        .chain(gated)
        .map(|module| {
            let used = uses_within_lab(&module);
            (module, used)
        })
        .collect();
    assert!(
        remaining.iter().any(|(module, used)| module == "run_folder" && used.iter().any(|(used, _)| used == "reader")),
        "{remaining:?}"
    );
    // What is left uses, and is used by, what is left: circles, and what lies between two.
    loop {
        let before = remaining.len();
        let names: Vec<String> = remaining.iter().map(|(module, _)| module.clone()).collect();
        let used: Vec<String> = remaining.iter().flat_map(|(_, used)| used.iter().map(|(used, _)| used.clone())).collect();
        remaining.iter_mut().for_each(|(_, used)| used.retain(|(used, _)| names.contains(used)));
        remaining.retain(|(module, uses)| !uses.is_empty() && used.contains(module));
        if remaining.len() == before {
            break;
        }
    }
    let edges = |(module, used): &(String, Vec<(String, String)>)| -> Vec<String> {
        used.iter().map(|(used, path)| format!("{module} uses {used} in {path}")).collect()
    };
    let circle: Vec<String> = remaining.iter().flat_map(edges).collect();
    assert!(circle.is_empty(), "{}", circle.join("\n"));
}

/// What only tests call, by the start of its path and name, and why it is there. `src/ops` is left out: its ops are what a model of one's own is recorded from, whether or not
/// those of the configs need them.
const UNUSED: [(&str, &str); 4] = [
    ("src/lab/reader.rs: audit", "an audit of a run sees the lines of rewound updates and the damaged ones"),
    ("web/src/lib.rs: is_idle", "the worker calls it"),
    ("web/src/study.rs: is_idle", "the worker calls it"),
    ("web/src/workspace.rs: is_idle", "the worker calls it"),
];

/// A name in a source, with the word before it, the character before it and the one after it.
struct Word<'a> {
    name: &'a str,
    before: &'a str,
    left: char,
    right: &'a str,
}

fn words(code: &str) -> Vec<Word<'_>> {
    let (mut found, mut before, mut at) = (Vec::new(), "", 0);
    while let Some(start) = code[at..].find(|c: char| c.is_alphanumeric() || c == '_').map(|start| at + start) {
        let end = code[start..].find(|c: char| !c.is_alphanumeric() && c != '_').map_or(code.len(), |end| start + end);
        let left = code[..start].trim_end().chars().next_back().unwrap_or(' ');
        let name = &code[start..end];
        found.push(Word { name, before, left, right: code[end..].trim_start() });
        (before, at) = (name, end);
    }
    found
}

/// The public functions, methods and constants of the libraries that nothing but tests refers to: found by name, so that one whose name something
/// else has too is overlooked.
#[test]
fn what_only_tests_call_goes() {
    let mut sources = Vec::new();
    for folder in ["src", "native/src", "web/src", "web/page/src", "examples"] {
        for path in files(folder, "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).map(|line| format!("{line}\n")).collect();
            sources.push((relative(&path), code));
        }
    }
    let mut scripts = BTreeSet::new();
    let (mut methods, mut others) = (BTreeSet::new(), BTreeSet::new());
    for (_, code) in &sources {
        for word in words(code).into_iter().filter(|word| !["fn", "const", "static", "let", "mut"].contains(&word.before)) {
            let is_field = word.right.starts_with(':') && !word.right.starts_with("::");
            match word.left {
                '.' => drop(methods.insert(word.name)),
                ':' => drop((methods.insert(word.name), others.insert(word.name))),
                _ if !is_field => drop(others.insert(word.name)),
                _ => {}
            }
        }
    }
    // The page's JavaScript calls methods of its modules.
    for path in files("web", "js") {
        let code = fs::read_to_string(&path).unwrap();
        let called = words(&code).into_iter().filter(|word| word.left == '.').map(|word| word.name.to_string());
        scripts.extend(called);
    }
    methods.extend(scripts.iter().map(String::as_str));
    let mut unused = Vec::new();
    for (path, code) in sources.iter().filter(|(path, _)| !path.starts_with("src/ops/") && !path.starts_with("examples/")) {
        let mut is_public = false;
        for word in words(code) {
            let is_declared = is_public && ["fn", "const"].contains(&word.before) && word.name != "fn";
            // Generics come before the parameters; a bound in them may have parentheses, but never `self`.
            let parameters = word.right.split_once('(').map_or("", |(_, rest)| rest);
            let first = parameters.split([',', ')']).next().unwrap_or_default().trim();
            let is_method = word.before == "fn" && first.ends_with("self") && !first.contains(':');
            let used = if is_method { &methods } else { &others };
            if is_declared && !used.contains(word.name) {
                unused.push(format!("{path}: {}", word.name));
            }
            // `pub(crate)` is the compiler's to judge.
            is_public = word.name == "pub" && !word.right.starts_with('(') || is_public && ["fn", "const", "async"].contains(&word.name);
        }
    }
    for (known, reason) in UNUSED {
        let (path, name) = known.split_once(": ").unwrap_or((known, ""));
        assert!(
            sources.iter().any(|(found, code)| found.starts_with(path) && code.contains(name)),
            "{known} is gone, and with it: {reason}"
        );
    }
    unused.retain(|found| !UNUSED.iter().any(|(known, _)| found.starts_with(known)));
    assert!(unused.is_empty(), "only tests use these: delete them or move them to the tests:\n{}", unused.join("\n"));
}
