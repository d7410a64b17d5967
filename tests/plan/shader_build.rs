//! What the build script makes of `shaders/`: the same bytes in every build, and nothing that is true of one folder only.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use moelab::ops::kernels::MODULES;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const OUT_DIR: &str = env!("OUT_DIR");

/// Every file of a folder, without the folders in it.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())).collect()
}

/// The build script that made this build: the newest that stands beside what it made.
fn build_script() -> PathBuf {
    let builds = Path::new(OUT_DIR).ancestors().nth(2).unwrap();
    let scripts = fs::read_dir(builds).unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let script = entry.path().join("build-script-build");
        let is_ours = entry.file_name().to_string_lossy().rsplit_once('-').is_some_and(|(package, _)| package == "moelab");
        let modified = fs::metadata(&script).and_then(|data| data.modified()).ok()?;
        is_ours.then_some((modified, script))
    });
    scripts.max().unwrap_or_else(|| panic!("no build script of this package in {}", builds.display())).1
}

/// Hash maps of the script's libraries have another order in every process.
#[test]
fn the_same_sources_give_the_same_bytes() {
    let made = files(Path::new(OUT_DIR));
    for _ in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let status = Command::new(build_script()).current_dir(ROOT).env("OUT_DIR", folder.path()).status().unwrap();
        assert!(status.success());
        let again = files(folder.path());
        assert!(again.len() > MODULES.len());
        for (name, text) in &again {
            assert!(made.get(name) == Some(text), "{name} differs");
        }
    }
}

#[test]
fn generated_code_names_no_folder() {
    let kernels = &files(Path::new(OUT_DIR))["kernels.rs"];
    assert!(kernels.contains("include_str!(\"matmul.wgsl\")"));
    assert!(!kernels.contains(ROOT) && !kernels.contains(OUT_DIR));
}

/// A library variant makes one more source of each that imports it.
#[test]
fn modules_have_a_source_for_subgroups_where_they_import_one() {
    let sources = files(&Path::new(ROOT).join("shaders")).into_iter().filter_map(|(name, text)| {
        let stem = name.strip_suffix(".wgsl")?.replace('.', "_");
        Some((stem, text.contains("lib::image_tile::")))
    });
    let imports: BTreeMap<String, bool> = sources.collect();
    assert!(imports.values().any(|imports| *imports));
    for (name, imports) in &imports {
        let with_subgroups = MODULES.iter().find(|m| m.name == format!("{name}_subgroups"));
        assert_eq!(with_subgroups.is_some(), *imports, "{name}");
        assert!(with_subgroups.is_none_or(|m| m.source.contains("subgroup") && m.requires.subgroup == 8), "{name}");
    }
    for module in MODULES {
        assert_eq!(module.source.contains("subgroupShuffle"), module.requires.subgroup > 0, "{}", module.name);
    }
}
