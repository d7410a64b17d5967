//! The page in a headless Chromium on its CPU driver, and all WGSL under that browser's compiler (Tint).
//!
//! These tests need `dist/` and a browser, so they run only when asked for: `cargo xtask test` does.

use std::{collections::BTreeMap, fs, path::Path, rc::Rc, sync::mpsc, time::Duration};

use moelab::{
    data::prepare::{self, NoFiles, Purpose},
    gpu::{AdapterChoice, Capabilities, Device, ModuleInfo, Requirements},
    ops::kernels::MODULES,
    run::config,
    train::trainer::{Progress, Trainer},
};
use serde_json::Value;
use xtask::{
    browser::{Browser, SWIFTSHADER},
    serve::{Site, serve},
};

const PATIENCE: Duration = Duration::from_secs(600);

/// Serves the page and `files`, opens `path`, and returns what the page reports.
fn visit(test: &str, path: &str, files: BTreeMap<String, String>, flags: &[&str]) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (dist, pages) = (root.join("dist"), root.join("tests/web"));
    assert!(dist.join("index.html").exists(), "no page in {}; build it with `cargo xtask web`", dist.display());
    let (sender, reports) = mpsc::channel();
    let address = serve(Site { folders: vec![dist, pages], files, reports: Some(sender) }, 0).unwrap();
    let profile = root.join("target/xtask").join(test);
    let browser = Browser::open(&format!("http://{address}/{path}"), &profile, flags).unwrap();
    let report = reports.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let log = fs::read_to_string(Browser::log(&profile)).unwrap_or_default();
        let said: Vec<_> = log.lines().filter(|line| !line.contains("dbus")).collect();
        panic!("the page reported nothing in {PATIENCE:?}; the browser said:\n{}", said.join("\n"))
    });
    drop(browser);
    let report: Value = serde_json::from_str(&report).unwrap();
    println!("{test}: adapter {}", report["adapter"]);
    report
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
#[ignore = "needs dist/ and Chromium: run by `cargo xtask test`"]
fn three_updates_in_the_page_equal_the_native_losses() {
    let report = visit("page", "?updates=3&report=1", BTreeMap::new(), &SWIFTSHADER);
    assert_eq!(report["message"], Value::Null, "the page failed");
    assert_eq!(strings(&report["violations"]), Vec::<&str>::new(), "the content security policy was violated");
    let losses: Vec<f64> = report["losses"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect();
    println!("losses {losses:?}");
    let native = native_losses(3);
    assert_eq!(losses.len(), native.len());
    for (web, native) in losses.iter().zip(native) {
        assert!((web - native).abs() <= 1e-4 * native.abs(), "loss {web} in the page, {native} natively");
    }
}

/// The losses of the same updates on this machine's native adapter.
fn native_losses(updates: u32) -> Vec<f64> {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/quickstart.toml");
    let read = |path: &str| fs::read_to_string(path).map_err(|e| e.to_string().into());
    let sets = [format!("train.updates={updates}"), "train.evaluation.every=0".into(), "train.checkpoint.every=0".into()];
    let config = config::load(&read, &config.display().to_string(), &sets).unwrap_or_else(|e| panic!("{e}"));
    let (config, corpus) = prepare::corpus(config, None, Purpose::Train, &NoFiles).unwrap();
    let device = pollster::block_on(Device::open(&AdapterChoice::default())).unwrap();
    println!("native: adapter {:?}", device.adapter.name);
    let mut trainer = Trainer::new(config, Rc::new(device), corpus, Default::default()).unwrap();
    let mut losses = Vec::new();
    loop {
        let progress = trainer.advance().unwrap();
        if progress.is_empty() {
            trainer.wait().unwrap();
        }
        for event in progress {
            match event {
                Progress::Update(record) => losses.push(record.train_ce),
                Progress::Done { .. } => return losses,
                _ => {}
            }
        }
    }
}

#[test]
#[ignore = "needs dist/ and Chromium: run by `cargo xtask test`"]
fn a_browser_without_webgpu_gets_advice() {
    let report = visit("no-webgpu", "?updates=3&report=1", BTreeMap::new(), &["--disable-features=WebGPU"]);
    let message = report["message"].as_str().expect("the page gives a message");
    assert!(message.contains("In Chrome, update"), "{message}");
    assert_eq!(report["losses"], serde_json::json!([]));
}

fn compile(test: &str, modules: &[&ModuleInfo]) -> Value {
    let list: Vec<_> = modules.iter().map(|m| serde_json::json!({ "name": m.name, "source": m.source })).collect();
    let files = BTreeMap::from([("modules.json".to_owned(), Value::from(list).to_string())]);
    let report = visit(test, "tint.html", files, &SWIFTSHADER);
    strings(&report["skipped"]).iter().for_each(|reason| println!("skipped {reason}"));
    report
}

#[test]
#[ignore = "needs Chromium: run by `cargo xtask test`"]
fn every_module_compiles_under_tint() {
    // wgpu's web back end has no subgroups.
    let modules: Vec<&ModuleInfo> = MODULES.iter().copied().filter(|m| Capabilities::CPU.satisfy(&m.requires)).collect();
    let report = compile("tint", &modules);
    let problems = strings(&report["problems"]);
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    let pipelines = report["pipelines"].as_u64().unwrap();
    println!("{pipelines} pipelines of {} modules", modules.len());
    assert!(pipelines as usize + strings(&report["skipped"]).len() >= modules.len(), "every module has an entry point");
}

/// What naga accepts and Tint must refuse would be the best case, but the check itself must be seen to fail.
#[test]
#[ignore = "needs Chromium: run by `cargo xtask test`"]
fn tint_reports_a_broken_module_with_its_line() {
    let source = "@group(0) @binding(0) var<storage, read_write> y: array<f32>;\n\n@compute @workgroup_size(64)\nfn forward() {\n    y[0] = 1u;\n}\n";
    let too_large = "@compute @workgroup_size(512)\nfn forward() {}\n";
    let requires = Requirements { images: false, f16: false, subgroup: 0, matrix: None, invocations: 0, workgroup_bytes: 0 };
    let module = |name, source| ModuleInfo { name, source, requires };
    let report = compile("tint-broken", &[&module("wrong_type", source), &module("too_large", too_large)]);
    let problems = strings(&report["problems"]);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("wrong_type:5:"), "{}", problems[0]);
    assert!(problems[1].starts_with("too_large.forward: "), "{}", problems[1]);
}
