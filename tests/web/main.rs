//! The page in a headless Chromium on its CPU driver, and all WGSL under that browser's compiler (Tint).
//!
//! These tests need `dist/` and a browser, so they run only when asked for: `cargo xtask test` does.

#[path = "../helpers/tiny_study.rs"]
mod tiny_study;

mod app;
mod devtools;
mod served;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    rc::Rc,
    sync::{OnceLock, mpsc},
    time::Duration,
};

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

/// A browser with a page that posts reports.
struct Visit {
    test: &'static str,
    browser: Browser,
    reports: mpsc::Receiver<String>,
}

/// Serves the page and `files`, and opens `path`.
fn open(test: &'static str, path: &str, files: BTreeMap<String, String>, flags: &[&str]) -> Visit {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (dist, pages) = (root.join("dist"), root.join("tests/web"));
    assert!(dist.join("index.html").exists(), "no page in {}; build it with `cargo xtask web`", dist.display());
    let (sender, reports) = mpsc::channel();
    let address = serve(Site { folders: vec![dist, pages], files, reports: Some(sender) }, 0).unwrap();
    let profile = root.join("target/xtask").join(test);
    let browser = Browser::open(&format!("http://{address}/{path}"), &profile, flags).unwrap();
    Visit { test, browser, reports }
}

impl Visit {
    /// What the page reports next.
    fn report(&self) -> Value {
        let report = self.reports.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/xtask").join(self.test);
            let log = fs::read_to_string(Browser::log(&profile)).unwrap_or_default();
            let said: Vec<_> = log.lines().filter(|line| !line.contains("dbus")).collect();
            panic!("the page reported nothing in {PATIENCE:?}; the browser said:\n{}", said.join("\n"))
        });
        let report: Value = serde_json::from_str(&report).unwrap();
        println!("{}: adapter {}", self.test, report["adapter"]);
        report
    }
}

/// Serves the page and `files`, opens `path`, and returns what the page reports.
fn visit(test: &'static str, path: &str, files: BTreeMap<String, String>, flags: &[&str]) -> Value {
    open(test, path, files, flags).report()
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
#[ignore = "needs dist/ and Chromium: run by `cargo xtask test`"]
fn three_updates_in_the_page_equal_the_native_losses() {
    let report = visit("page", "text.html?updates=3&report=1", BTreeMap::new(), &SWIFTSHADER);
    assert_eq!(report["message"], Value::Null, "the page failed");
    assert_eq!(strings(&report["violations"]), Vec::<&str>::new(), "the content security policy was violated");
    let losses: Vec<f64> = report["losses"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect();
    println!("losses {losses:?}");
    let native = native_losses(3, 3);
    assert_eq!(losses.len(), native.len());
    for (web, native) in losses.iter().zip(native) {
        assert!((web - native).abs() <= 1e-4 * native.abs(), "loss {web} in the page, {native} natively");
    }
}

#[test]
#[ignore = "needs dist/ and Chromium: run by `cargo xtask test`"]
fn the_app_trains_pauses_stops_and_resumes_after_a_reload_with_the_native_losses() {
    let page =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/index.html")).expect("`cargo xtask web` builds the page");
    let driven = page.replace("</head>", "<script type=\"module\" src=\"drive_app.js\"></script>\n</head>");
    let flags = [&SWIFTSHADER[..], &["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]].concat();
    let visit = open("app", "app.html", BTreeMap::from([("app.html".to_string(), driven)]), &flags);
    let first = visit.report();
    assert_eq!(strings(&first["violations"]), Vec::<&str>::new(), "the content security policy was violated");
    assert_eq!(strings(&first["others"]), Vec::<&str>::new(), "something came from another origin");
    assert!(first["status"].as_str().unwrap().contains("stopped"), "{first}");
    assert_eq!(first["paused"][0], first["paused"][1], "a paused run makes no updates");
    let second = visit.report();
    let of = |report: &Value| -> BTreeMap<u32, f64> {
        report["losses"].as_object().unwrap().iter().map(|(update, loss)| (update.parse().unwrap(), loss.as_f64().unwrap())).collect()
    };
    let (before, after) = (of(&first), of(&second));
    let stopped = second["stopped"].as_u64().unwrap() as u32;
    println!("losses {before:?}, resumed at {stopped}: {after:?}");
    assert!(before.len() >= 4 && after.keys().any(|update| *update > stopped), "{before:?} {after:?}");
    let native = native_losses(500, *after.keys().last().unwrap() as usize);
    for (update, loss) in before.iter().chain(&after) {
        let native = native[*update as usize - 1];
        // The status has four decimals.
        assert!((loss - native).abs() <= 1e-4 * native + 5e-5, "update {update}: loss {loss} in the page, {native} natively");
    }
}

/// The losses of the first `count` updates of a run of so many, on this machine's native adapter.
fn native_losses(updates: u32, count: usize) -> Vec<f64> {
    adapter_losses(&[&format!("train.updates={updates}"), "train.evaluation.every=0", "train.checkpoint.every=0"], count)
}

/// The losses of the first `count` updates of the quickstart with these settings, on this machine's native adapter.
fn adapter_losses(sets: &[&str], count: usize) -> Vec<f64> {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/quickstart.toml");
    let read = |path: &str| fs::read_to_string(path).map_err(|e| e.to_string().into());
    let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
    let config = config::load(&read, &config.display().to_string(), &sets).unwrap_or_else(|e| panic!("{e}"));
    let (config, corpus) = prepare::corpus(config, None, Purpose::Train, &NoFiles).unwrap();
    let device = pollster::block_on(Device::open(&AdapterChoice::default())).unwrap();
    println!("native: adapter {:?}", device.adapter.name);
    let mut trainer = Trainer::new(config, Rc::new(device), corpus, Default::default()).unwrap();
    let mut losses = Vec::new();
    while losses.len() < count {
        let progress = trainer.advance().unwrap();
        if progress.is_empty() {
            trainer.wait().unwrap();
        }
        losses.extend(
            progress.into_iter().filter_map(|event| if let Progress::Update(record) = event { Some(record.train_ce) } else { None }),
        );
    }
    losses.truncate(count);
    losses
}

/// The page with the tiny study in the place of the example, used by `drive.js` in the place of a person.
fn study(test: &'static str, scenario: &str) -> Visit {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/text.html")).expect("`cargo xtask web` builds the page");
    let driven = page.replace("</head>", "<script type=\"module\" src=\"drive.js\"></script>\n</head>");
    let files = [("driven.html", driven.as_str()), ("suite.toml", tiny_study::STUDY), ("base.toml", tiny_study::BASE)];
    let files = files.map(|(name, text)| (name.to_string(), text.to_string()));
    open(test, &format!("driven.html?{scenario}"), BTreeMap::from(files), &SWIFTSHADER)
}

/// The final loss of each run, and the verdict, of the tiny study on the command line. Made once for all tests.
fn on_the_command_line() -> &'static (BTreeMap<String, f64>, String) {
    static MADE: OnceLock<(BTreeMap<String, f64>, String)> = OnceLock::new();
    MADE.get_or_init(make_on_the_command_line)
}

fn make_on_the_command_line() -> (BTreeMap<String, f64>, String) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("study");
    fs::remove_dir_all(&folder).ok();
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("suite.toml"), tiny_study::STUDY).unwrap();
    fs::write(folder.join("base.toml"), tiny_study::BASE).unwrap();
    let tests = std::env::current_exe().unwrap();
    let moelab = tests.ancestors().nth(2).unwrap().join("moelab");
    let moelab = || {
        let mut command = Command::new(&moelab);
        command.args(["suite", "run"]).arg(folder.join("suite.toml")).arg("--out").arg(folder.join("runs"));
        command
    };
    let output = |command: &mut Command| {
        let output = command.output().unwrap_or_else(|error| panic!("{error}: `cargo build --workspace` builds moelab"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let events = output(moelab().arg("--json"));
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let ended = events.filter(|event| event["event"] == "run_ended");
    let losses = ended.map(|event| (event["run"].as_str().unwrap().to_string(), event["val_ce"].as_f64().unwrap())).collect();
    (losses, output(&mut moelab()).trim().to_string())
}

/// The columns `run` and `final_val_ce` of `results.csv`.
fn losses_of(csv: &str) -> BTreeMap<String, f64> {
    let mut rows = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let head = rows.next().unwrap();
    let place = |name: &str| head.iter().position(|column| *column == name).unwrap();
    let (run, loss) = (place("run"), place("final_val_ce"));
    rows.map(|row| (row[run].to_string(), row[loss].parse().unwrap())).collect()
}

/// A verdict without its numbers, whose last digits are those of the adapter.
fn without_numbers(verdict: &str) -> String {
    let mut text = String::new();
    for c in verdict.chars() {
        match c {
            '0'..='9' | '.' if text.ends_with('#') => {}
            '0'..='9' => text.push('#'),
            c => text.push(c),
        }
    }
    text
}

fn assert_as_on_the_command_line(report: &Value) {
    let (losses, verdict) = on_the_command_line();
    let found = losses_of(report["files"]["results.csv"].as_str().unwrap());
    assert_eq!(found.keys().collect::<Vec<_>>(), losses.keys().collect::<Vec<_>>());
    for (run, loss) in losses {
        assert!((found[run] - loss).abs() <= 1e-4 * loss, "{run}: {} in the page, {loss} on the command line", found[run]);
    }
    let shown = report["verdict"].as_str().unwrap();
    println!("{shown}");
    assert_eq!(without_numbers(shown), without_numbers(verdict), "in the page:\n{shown}\non the command line:\n{verdict}");
    assert_eq!(strings(&report["violations"]), Vec::<&str>::new(), "the content security policy was violated");
}

#[test]
#[ignore = "needs dist/ and Chromium: run by `cargo xtask test`"]
fn a_study_in_the_page_pauses_and_gives_the_verdict_of_the_command_line() {
    let report = study("study", "pause").report();
    assert_as_on_the_command_line(&report);
    assert_eq!(report["paused"]["before"], report["paused"]["after"], "something went on in the pause");
    let names: Vec<&String> = report["files"].as_object().unwrap().keys().collect();
    assert!(["report.html", "report.md", "results.csv"].iter().all(|name| names.contains(&&name.to_string())), "{names:?}");
    let second = report["second"].as_str().unwrap();
    assert!(second.contains("Another tab of this browser has the study"), "{second}");
}

#[test]
#[ignore = "needs dist/ and Chromium: run by `cargo xtask test`"]
fn a_study_survives_a_browser_that_is_killed() {
    let mut visit = study("killed", "kill");
    let first = visit.report();
    visit.browser.kill_and_reopen().unwrap();
    let second = visit.report();
    drop(visit);
    assert_as_on_the_command_line(&second);
    let made = strings(&first["done"]);
    assert!(made.len() >= 3 && made.len() < 9, "{made:?}");
    let found = strings(&second["found"]);
    assert!(made.iter().all(|run| found.contains(run)), "made {made:?}, found {found:?}");
    // What was made is not made again, and every run ends once.
    let history = second["events"].as_str().unwrap();
    assert!(found.iter().all(|run| !history.contains(&format!("{run}: "))), "{found:?}:\n{history}");
    assert_eq!(history.matches(": done, validation").count() + found.len(), 9, "{history}");
}

#[test]
#[ignore = "needs dist/ and Chromium: run by `cargo xtask test`"]
fn a_browser_without_webgpu_gets_advice() {
    let report = visit("no-webgpu", "text.html?updates=3&report=1", BTreeMap::new(), &["--disable-features=WebGPU"]);
    let message = report["message"].as_str().expect("the page gives a message");
    assert!(message.contains("In Chrome, update"), "{message}");
    assert_eq!(report["losses"], serde_json::json!([]));
}

fn compile(test: &'static str, modules: &[&ModuleInfo]) -> Value {
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
    let requires =
        Requirements { images: false, buffers: false, f16: false, subgroup: 0, matrix: None, invocations: 0, workgroup_bytes: 0 };
    let module = |name, source| ModuleInfo { name, bit: None, source, requires, unchecked: false };
    let report = compile("tint-broken", &[&module("wrong_type", source), &module("too_large", too_large)]);
    let problems = strings(&report["problems"]);
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("wrong_type:5:"), "{}", problems[0]);
    assert!(problems[1].starts_with("too_large.forward: "), "{}", problems[1]);
}
