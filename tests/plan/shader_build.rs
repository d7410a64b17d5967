//! What the build script makes of `shaders/`: the same bytes in every build, and nothing that is true of one folder only.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use moelab::{
    gpu::{BindingKind, KernelInfo, with_storage_images},
    ops::kernels::{KERNELS, MODULES},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const OUT_DIR: &str = env!("OUT_DIR");

/// Every file of a folder, without the folders in it.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_file());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap())).collect()
}

/// The build script that made this build: the newest that stands beside what it made. That of a build without the engine makes nothing, and
/// is small: it lacks the compilers.
fn build_script() -> PathBuf {
    let builds = Path::new(OUT_DIR).ancestors().nth(2).unwrap();
    let scripts = fs::read_dir(builds).unwrap().filter_map(|entry| {
        let entry = entry.unwrap();
        let script = entry.path().join("build-script-build");
        let is_ours = entry.file_name().to_string_lossy().rsplit_once('-').is_some_and(|(package, _)| package == "moelab");
        let data = fs::metadata(&script).ok()?;
        is_ours.then_some((data.modified().ok()?, data.len(), script))
    });
    let scripts: Vec<_> = scripts.collect();
    let largest = scripts.iter().map(|(_, bytes, _)| *bytes).max().unwrap_or_default();
    scripts
        .into_iter()
        .filter(|(_, bytes, _)| 2 * bytes > largest)
        .max()
        .unwrap_or_else(|| panic!("no build script of this package in {}", builds.display()))
        .2
}

/// The build script over the shaders of `folder`.
fn run_in(folder: &Path, out: &Path) -> Command {
    let mut command = Command::new(build_script());
    command.current_dir(folder).env("OUT_DIR", out).env("CARGO_FEATURE_ENGINE", "1");
    command
}

/// Hash maps of the script's libraries have another order in every process.
#[test]
fn the_same_sources_give_the_same_bytes() {
    let made = files(Path::new(OUT_DIR));
    for _ in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let status = run_in(Path::new(ROOT), folder.path()).status().unwrap();
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
        let uses_subgroups = ["subgroupShuffle", "coopMultiplyAdd"].iter().any(|function| module.source.contains(function));
        assert_eq!(uses_subgroups, module.requires.subgroup > 0, "{}", module.name);
    }
}

/// Every module with images has a form for storage textures, of which an adapter that takes it has enough for every kernel.
#[test]
fn images_may_be_storage_textures() {
    let mut converted = 0;
    for module in MODULES.iter().filter(|m| m.source.contains("texture_2d")) {
        let source = with_storage_images(module.source);
        assert!(!source.contains("texture_2d<"), "{}", module.name);
        let loads = |text: &str| text.matches("textureLoad(").count();
        assert!(loads(&source) == loads(module.source) && loads(&source) > 0, "{}", module.name);
        let parsed = naga::front::wgsl::parse_str(&source).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&source)));
        let mut validator = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all());
        validator.validate(&parsed).unwrap_or_else(|e| panic!("{}: {e:?}", module.name));
        converted += 1;
    }
    assert!(converted > 20, "{converted}");
    let images = |kernel: &KernelInfo| kernel.bindings.iter().filter(|b| matches!(b.kind, BindingKind::Texels(_))).count();
    let most = KERNELS.iter().map(|kernel| images(kernel)).max();
    assert!(most <= Some(8), "gpu/device.rs knows of 8 images, a kernel has {most:?}");
    assert_eq!(with_storage_images("textureLoad(a, vec2<u32>(f(1), 2), 0) + b"), "textureLoad(a, vec2<u32>(f(1), 2)) + b");
}

/// Runs the build script over a folder of its own: the library, and some files. Gives what it complains of, or nothing.
fn complaint(files: &[(&str, &str)]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("shaders/lib");
    fs::create_dir_all(&library).unwrap();
    for entry in fs::read_dir(Path::new(ROOT).join("shaders/lib")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, library.join(path.file_name().unwrap())).unwrap();
    }
    for (name, text) in files {
        fs::write(folder.path().join("shaders").join(name), text).unwrap();
    }
    let output = run_in(folder.path(), folder.path()).output().unwrap();
    (!output.status.success()).then(|| String::from_utf8(output.stderr).unwrap())
}

const SCALE: &str = "// y = 2 x
struct Params { n: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

// grid: n / 64
@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < params.n) {
        y[id.x] = 2.0 * x[id.x];
    }
}
";

/// A sibling of [`SCALE`] with f16, changed.
fn sibling(changes: &[(&str, &str)]) -> String {
    let text = SCALE
        .replace("// y = 2 x\n", "// y = 2 x\n//\n// requires: f16\n// rank: 1\nenable f16;\n")
        .replace("2.0 * x[id.x]", "f32(2.0h * f16(x[id.x]))");
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

#[test]
fn a_sibling_is_one_file() {
    assert_eq!(complaint(&[("scale.wgsl", SCALE), ("scale.f16.wgsl", &sibling(&[]))]), None);
}

/// Each fault with what the build says of it.
#[test]
fn siblings_that_do_not_fit_are_refused() {
    let faults: [(&[(&str, &str)], &str); 11] = [
        (&[("{ n: u32 }", "{ n: u32, m: u32 }")], "scale and scale_f16: Params differ: {n: u32} against {n: u32, m: u32}"),
        (&[("{ n: u32 }", "{ count: u32 }"), ("params.n", "params.count"), ("grid: n", "grid: count")], "Params differ"),
        (&[("x: array", "a: array"), ("x[", "a[")], "scale and scale_f16: forward: the tensors differ: x, y against a, y"),
        (&[("] = f32", "] += f32")], "forward: y is Write against ReadWrite"),
        (&[("// requires: f16\n", "")], "the source states `// requires:` nothing"),
        (&[("f32(2.0h * f16(x[id.x]))", "x[id.x]")], "states `// requires: f16` and does not use it"),
        (&[("requires: f16", "requires: f16, images")], "states `// requires: images` and binds no texture"),
        (&[("rank: 1", "rank: 0")], "both have rank 0"),
        (
            &[("// grid: n / 64\n", "// grid: n / 64\n// constants: SIDE = 1\n")],
            "`constants: SIDE`: the source has no override of this name",
        ),
        (&[("// rank: 1", "// rank: 1\n// unchecked: all")], "`unchecked: all`: wanted bounds"),
        (&[("grid: n / 64", "grid: length / 64")], "length is neither a u32 of Params nor a constant"),
    ];
    for (changes, wanted) in faults {
        let said = complaint(&[("scale.wgsl", SCALE), ("scale.f16.wgsl", &sibling(changes))]);
        assert!(said.as_ref().is_some_and(|said| said.contains(wanted)), "wanted `{wanted}`, found {said:?}");
    }
}
