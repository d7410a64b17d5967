//! The app in a browser from end to end: used by its buttons, files and links as a person uses it who cannot see the canvas; and broken.
//!
//! One page session shows most of it, because opening the page and compiling kernels is what takes the time.
//!
//! Long because of the driver of the page that the tests share.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use xtask::{
    browser::{Browser, SWIFTSHADER},
    serve::{Site, serve},
};

use crate::{
    PATIENCE, adapter_losses,
    devtools::{Devtools, PORT},
    tiny_study,
};

/// The window is drawn with WebGL, on Chromium's own CPU driver too.
const WINDOW: [&str; 3] = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"];
/// A browser that has its GPU process restarted as often as it crashes, and forgives it.
const LENIENT: [&str; 2] = ["--disable-gpu-process-crash-limit", "--disable-domain-blocking-for-3d-apis"];

/// The quickstart, so short that a test can wait for it.
const UPDATES: u32 = 24;
const LINK: &str = "#v=1&preset=quickstart.toml&train.updates=24&train.checkpoint.every=6&train.evaluation.every=24&train.evaluation.windows=8&sample.prompts=%5B%5D";

/// A browser with the app.
pub struct Tab {
    devtools: Devtools,
    session: String,
    address: String,
    downloads: PathBuf,
    /// Addresses that were requested.
    requested: Vec<String>,
    _browser: Browser,
}

impl Tab {
    /// Opens the app, at `index.html` + `place`.
    fn open(test: &'static str, place: &str, flags: &[&str]) -> Tab {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let dist = root.join("dist");
        assert!(dist.join("trainer.js").exists(), "no page in {}; build it with `cargo xtask web`", dist.display());
        let address = serve(Site { folders: vec![dist], ..Site::default() }, 0).unwrap();
        let mut tab = Tab::at(test, format!("http://{address}/"), flags);
        tab.go(place);
        tab
    }

    /// An empty tab for the page at this address.
    pub fn at(test: &'static str, address: String, flags: &[&str]) -> Tab {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let profile = root.join("target/xtask").join(test);
        let downloads = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
        fs::remove_dir_all(&downloads).ok();
        fs::create_dir_all(&downloads).unwrap();
        let browser = Browser::open("about:blank", &profile, &[flags, &WINDOW, &[PORT]].concat()).unwrap();
        let mut devtools = Devtools::connect(&profile);
        let folder = json!({ "behavior": "allow", "downloadPath": downloads.display().to_string() });
        devtools.call(None, "Browser.setDownloadBehavior", folder).unwrap();
        let targets = devtools.call(None, "Target.getTargets", json!({})).unwrap();
        let page = targets["targetInfos"].as_array().unwrap().iter().find(|target| target["type"] == "page").unwrap();
        let attached = devtools.call(None, "Target.attachToTarget", json!({ "targetId": page["targetId"], "flatten": true })).unwrap();
        let session = attached["sessionId"].as_str().unwrap().to_string();
        let mut tab = Tab { devtools, session, address, downloads, requested: Vec::new(), _browser: browser };
        tab.call("Page.enable", json!({}));
        tab.call("Network.enable", json!({}));
        tab.call("Target.setAutoAttach", json!({ "autoAttach": true, "waitForDebuggerOnStart": false, "flatten": true }));
        tab.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": include_str!("observe.js") }));
        tab
    }

    /// Opens the page, at `index.html` + `place`, also if it is there already.
    pub fn show(&mut self, place: &str) {
        let url = format!("{}index.html{place}", self.address);
        self.call("Page.navigate", json!({ "url": "about:blank" }));
        self.call("Page.navigate", json!({ "url": url }));
        self.until("document.getElementById('loading')?.hidden");
    }

    /// Opens the page and waits for its list of runs.
    pub fn go(&mut self, place: &str) {
        self.show(place);
        self.until("seen.listed");
        // The list is taken in with the next frame.
        thread::sleep(Duration::from_millis(400));
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        let result = self.devtools.call(Some(&self.session), method, params).unwrap();
        let events: Vec<Value> = self.devtools.events().collect();
        for event in events {
            match event["method"].as_str().unwrap_or_default() {
                "Network.requestWillBeSent" => self.requested.push(event["params"]["request"]["url"].as_str().unwrap().into()),
                // What the worker requests.
                "Target.attachedToTarget" => {
                    let session = event["params"]["sessionId"].as_str().unwrap();
                    // It may be gone already.
                    let _ = self.devtools.call(Some(session), "Network.enable", json!({}));
                }
                _ => {}
            }
        }
        result
    }

    /// The value of an expression on the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", params);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true, and returns its value.
    pub fn until(&mut self, expression: &str) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let value = self.value(expression);
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            if Instant::now() > end {
                let shown = self.value("document.body.innerText");
                let seen = self.value("JSON.stringify({ ...seen, statuses: seen.statuses.slice(-5), looked: null, port: null })");
                panic!("never: {expression}\nthe page shows: {shown}\nseen: {seen}");
            }
            thread::sleep(Duration::from_millis(30));
        }
    }

    pub fn press(&mut self, action: &str) {
        self.value(&format!("document.querySelector('[data-action={action}]').click()"));
    }

    /// Starts the run that a link describes, and returns its name.
    fn start(&mut self, run: &str) {
        // The list of the runs decides which name is free.
        self.press("start");
        self.until(&format!("seen.losses['{run}']"));
    }

    /// The end of a run.
    fn end(&mut self, run: &str) -> Value {
        self.until(&format!("seen.ended['{run}']"))
    }

    /// Waits for an update of a run.
    fn reach(&mut self, run: &str, update: u32) {
        let reached = format!("Math.max(0, ...Object.keys(seen.losses['{run}'] ?? {{}})) >= {update}");
        self.until(&format!("seen.ended['{run}'] || {reached}"));
        assert_eq!(self.value(&format!("seen.ended['{run}'] ?? null")), Value::Null, "{run} has ended before update {update}");
    }

    fn losses(&mut self, run: &str) -> BTreeMap<u32, f64> {
        let losses = self.value(&format!("seen.losses['{run}']"));
        losses.as_object().unwrap().iter().map(|(update, loss)| (update.parse().unwrap(), loss.as_f64().unwrap())).collect()
    }

    /// Gives files to the page, as the user chooses them.
    fn choose(&mut self, files: &[PathBuf]) {
        let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
        let element = self.call("Runtime.evaluate", json!({ "expression": "document.getElementById('file')" }));
        self.call("DOM.setFileInputFiles", json!({ "files": files, "objectId": element["result"]["objectId"] }));
    }

    /// The file that is downloaded next under this name.
    fn downloaded(&mut self, name: &str) -> PathBuf {
        let (path, end) = (self.downloads.join(name), Instant::now() + PATIENCE);
        while !path.exists() {
            assert!(Instant::now() < end, "{name} was not downloaded");
            self.value("1");
            thread::sleep(Duration::from_millis(50));
        }
        path
    }

    /// Whether the window shows more than one colour.
    fn is_drawn(&mut self) -> bool {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        let bytes = shot["data"].as_str().unwrap().len();
        println!("a picture of {bytes} bytes in base64");
        bytes > 20_000
    }

    /// Nothing but the page's own files was requested, and its policy was never violated.
    pub fn assert_closed(&mut self) {
        let violations = self.value("seen.violations");
        assert_eq!(violations, json!([]), "the content security policy was violated");
        let own = |url: &&String| {
            url.starts_with(&self.address)
                || url.starts_with(&format!("blob:{}", self.address.trim_end_matches('/')))
                || url.starts_with("data:")
        };
        let others: Vec<&String> = self.requested.iter().filter(|url| !own(url)).collect();
        assert!(others.is_empty() && self.requested.len() > 5, "{others:?} of {:?}", self.requested);
    }
}

/// The losses are equal, bit by bit.
fn assert_same(found: &BTreeMap<u32, f64>, wanted: &BTreeMap<u32, f64>, what: &str) {
    for (update, loss) in found {
        assert_eq!(loss.to_bits(), wanted[update].to_bits(), "{what}, update {update}: {loss}, wanted {}", wanted[update]);
    }
}

fn assert_near(found: &BTreeMap<u32, f64>, wanted: &BTreeMap<u32, f64>, what: &str) {
    for (update, loss) in found {
        assert!((loss - wanted[update]).abs() <= 1e-4 * wanted[update], "{what}, update {update}: {loss}, wanted {}", wanted[update]);
    }
}

/// The command line.
fn moelab() -> Command {
    let tests = std::env::current_exe().unwrap();
    Command::new(tests.ancestors().nth(2).unwrap().join("moelab"))
}

/// The losses in the log of a run folder.
fn logged(folder: &Path) -> BTreeMap<u32, f64> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).filter(|line| line["kind"] == "update");
    lines.map(|line| (line["update"].as_u64().unwrap() as u32, line["train_ce"].as_f64().unwrap())).collect()
}

#[test]
#[ignore = "needs dist/ and Chromium: run by `cargo xtask test`"]
fn the_app_in_a_browser_from_a_link_to_a_run_that_the_command_line_continues() {
    let begun = Instant::now();
    let at = |what: &str| println!("{:6.1} s  {what}", begun.elapsed().as_secs_f64());
    let mut tab = Tab::open("app-whole", LINK, &[&SWIFTSHADER[..], &LENIENT].concat());
    at("open");

    // A link fills the form and starts nothing.
    thread::sleep(Duration::from_millis(500));
    assert_eq!(tab.value("[seen.losses, seen.ended, seen.listed.runs]"), json!([{}, {}, []]), "a link starts nothing");
    assert_eq!(tab.value("seen.persists"), json!(0), "a visitor who stores nothing is asked nothing");

    // The first run is undisturbed, and has the losses of the native engine.
    tab.start("quickstart");
    let straight = tab.end("quickstart");
    assert_eq!(straight["exit"], "completed", "{straight}");
    assert_eq!(tab.value("seen.persists"), json!(1), "the browser is asked once to keep what is stored");
    let losses = tab.losses("quickstart");
    at("trained");
    assert_eq!(losses.len(), UPDATES as usize);
    let sets = ["train.updates=24", "train.checkpoint.every=6", "train.evaluation.every=0"];
    let native = adapter_losses(&sets, 20);
    assert_near(&native.into_iter().enumerate().map(|(place, loss)| (place as u32 + 1, loss)).collect(), &losses, "native");
    at("compared with the native engine");

    // Paused; downloaded while it is stopped; the page is loaded again, and the run resumed from the browser's storage.
    tab.go(LINK);
    tab.start("quickstart-2");
    tab.reach("quickstart-2", 7);
    tab.press("pause");
    tab.until("document.getElementById('status').textContent.includes('paused')");
    let before = tab.losses("quickstart-2");
    thread::sleep(Duration::from_millis(700));
    assert_eq!(tab.losses("quickstart-2"), before, "a paused run makes no updates");
    tab.press("stop");
    assert_eq!(tab.end("quickstart-2")["exit"], "interrupted");
    tab.press("download");
    let archive = tab.downloaded("quickstart-2.tar");
    at("paused, stopped, downloaded");
    tab.go("");
    tab.press("resume");
    let resumed = tab.end("quickstart-2");
    assert_eq!(resumed["weights_sha256"], straight["weights_sha256"], "{resumed}");
    let after = tab.losses("quickstart-2");
    assert!(after.keys().next() > before.keys().last(), "{before:?} {after:?}");
    assert_same(&before, &losses, "before the page was loaded again");
    assert_same(&after, &losses, "after it was loaded again");
    at("resumed to the end");

    // The command line continues what was downloaded, and reports it.
    let folder = tab.downloads.clone();
    assert!(Command::new("tar").arg("xf").arg(&archive).current_dir(&folder).status().unwrap().success());
    let run = folder.join("quickstart-2");
    let output = moelab().arg("resume").arg(&run).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_near(&logged(&run), &losses, "continued by the command line");
    assert_eq!(logged(&run).len(), UPDATES as usize);
    assert!(fs::read_to_string(run.join("report.md")).unwrap().contains("quickstart-2"));
    // And packed by it, it is a run of the browser again, beside the one of the same name.
    assert!(Command::new("tar").args(["cf", "quickstart-2.tar", "quickstart-2"]).current_dir(&folder).status().unwrap().success());
    tab.choose(&[folder.join("quickstart-2.tar")]);
    tab.until("seen.listed.runs.find(({ name, made }) => name === 'quickstart-2-2' && made === 24)");
    // What is no run is refused, and leaves nothing.
    fs::write(folder.join("evil.tar"), [b'x'; 2048]).unwrap();
    tab.choose(&[folder.join("evil.tar")]);
    let refused = tab.until("seen.refused.at(-1)");
    assert!(refused.as_str().unwrap().contains("not an archive of a run"), "{refused}");
    assert_eq!(tab.value("seen.listed.runs.length"), 3);
    at("continued by the command line, and added again");

    // A study of nine runs to its verdict, from two files.
    fs::write(folder.join("base.toml"), tiny_study::BASE).unwrap();
    fs::write(folder.join("tiny.toml"), tiny_study::STUDY).unwrap();
    tab.choose(&[folder.join("base.toml"), folder.join("tiny.toml")]);
    tab.until("seen.progress?.runs === 9");
    tab.press("start");
    let verdict = tab.until("seen.progress.over === 9 && seen.judged");
    println!("{verdict}");
    assert!(verdict.as_str().unwrap().contains("top1"), "{verdict}");
    at("a study of nine runs");

    // A text of the visitor is learnt as the command line learns it.
    let words: String = (0..4000).map(|number| format!("Line {number} of a text.\n\n")).collect();
    fs::write(folder.join("words.txt"), words).unwrap();
    tab.choose(&[folder.join("words.txt")]);
    tab.reach("words", 2);
    tab.press("stop");
    assert_eq!(tab.end("words")["exit"], "interrupted");
    let sets = ["data.kind=text", "data.paths=['words.txt']", "train.updates=12", "schedule.horizon=500", "schedule.warmup=25"];
    let sets = sets.iter().flat_map(|set| ["--set", set]);
    let quickstart = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/quickstart.toml");
    let output = moelab().current_dir(&folder).arg("train").arg(quickstart).args(["--out", "native"]).args(sets).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (found, wanted) = (tab.losses("words"), logged(&folder.join("native")));
    assert!(found.len() <= wanted.len(), "{found:?}");
    assert_near(&found, &wanted, "a text of the visitor");
    at("a text of the visitor");

    // Five times the browser's GPU process crashes during a run.
    tab.go(LINK);
    tab.press("start");
    let run = "quickstart-3";
    for (crash, update) in [2, 8, 13, 14, 20].into_iter().enumerate() {
        tab.reach(run, update);
        tab.devtools.call(None, "Browser.crashGpuProcess", json!({})).unwrap();
        tab.until(&format!("(seen.incidents['{run}'] ?? []).length > {crash} || seen.ended['{run}']"));
        at(&format!("crash {}", crash + 1));
    }
    let crashed = tab.end(run);
    assert_eq!((&crashed["exit"], &crashed["weights_sha256"]), (&json!("completed"), &straight["weights_sha256"]), "{crashed}");
    assert_same(&tab.losses(run), &losses, "with five crashes");
    let incidents = tab.value(&format!("seen.incidents['{run}']"));
    println!("{incidents:#}");
    let incidents = incidents.as_array().unwrap();
    assert!(incidents.len() == 5 && incidents.iter().all(|line| line["incident"] == "device_lost" && line["time"]["seconds"].is_number()));
    let statuses = tab.value("seen.statuses.join('\\n')");
    assert!(statuses.as_str().unwrap().contains("device lost: the device was lost"), "{statuses}");
    let repeated = tab.value("Math.max(...seen.rewound.map(({ from, to }) => from - to))");
    assert!(repeated.as_u64().unwrap() <= 50, "{repeated}");
    tab.until("document.getElementById('loading').hidden");
    assert!(tab.is_drawn(), "the window came back");
    at("five crashes");
    tab.assert_closed();
}

#[test]
#[ignore = "needs dist/ and Chromium: run by `cargo xtask test`"]
fn a_hidden_tab_keeps_training_and_the_window_itself_trains_where_workers_cannot() {
    let begun = Instant::now();
    let at = |what: &str| println!("{:6.1} s  {what}", begun.elapsed().as_secs_f64());
    let mut tab = Tab::open("app-hidden", LINK, &SWIFTSHADER);
    tab.start("quickstart");
    // Another tab in front.
    let other = tab.devtools.call(None, "Target.createTarget", json!({ "url": "about:blank" })).unwrap();
    tab.devtools.call(None, "Target.activateTarget", json!({ "targetId": other["targetId"] })).unwrap();
    let hidden = tab.value("document.visibilityState");
    println!("the tab is {hidden}");
    tab.value("seen.frames = 0, (function frame() { seen.frames += 1; requestAnimationFrame(frame); })()");
    let before = *tab.losses("quickstart").keys().last().unwrap();
    tab.reach("quickstart", before + 4);
    assert_eq!((hidden, tab.value("seen.frames < 4")), (json!("hidden"), json!(true)), "the tab is not hidden, and shows that nothing");
    at("hidden");
    tab.end("quickstart");
    let losses = tab.losses("quickstart");
    tab.devtools.call(None, "Target.closeTarget", json!({ "targetId": other["targetId"] })).unwrap();
    // What is stored is told, with a warning where little is left. This browser tells a quota that is not the real one.
    tab.value("navigator.storage.estimate = async () => ({ usage: 90 << 20, quota: 100 << 20 }), 1");
    tab.until("seen.statuses.at(-1)?.includes('10 MiB of 100 MiB are left for runs in this browser: download and remove runs')");
    at("little room");
    // Where none is left the trainer stops and says so, and what was stored before is whole.
    let quota = json!({ "origin": tab.address.trim_end_matches('/'), "quotaSize": 1 << 20 });
    tab.call("Storage.overrideQuotaForOrigin", quota.clone());
    tab.press("start");
    tab.until("seen.statuses.at(-1)?.includes(\"Nothing more can be stored: the browser's storage is full\")");
    tab.call("Storage.overrideQuotaForOrigin", json!({ "origin": quota["origin"] }));
    tab.go(LINK);
    let stored = tab.value("seen.listed.runs.find(({ name }) => name === 'quickstart')");
    assert_eq!((&stored["exit"], &stored["made"]), (&json!("completed"), &json!(UPDATES)), "{stored}");
    at("no room");

    // Workers of this page have no WebGPU: the window trains, with the same losses, and keeps drawing.
    let worker = "const spawn = Worker; window.Worker = class { constructor() { this.postMessage = ({ probe }) => probe && setTimeout(() => this.onmessage({ data: { adapter: null } })); this.terminate = () => {}; } };";
    tab.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": worker }));
    tab.go(LINK);
    let warned = tab.until("seen.warned.length > 1 && seen.warned");
    assert!(
        warned[0].as_str().unwrap().contains("in the window itself") && warned[1].as_str().unwrap().contains("lost with the tab"),
        "{warned}"
    );
    tab.value("seen.frames = 0, (function frame() { seen.frames += 1; requestAnimationFrame(frame); })()");
    tab.press("start");
    tab.reach("quickstart", 4);
    let kernels = tab.value("[seen.created, seen.createdLater]");
    println!("kernels for which the window waited, and others: {kernels}");
    assert!(kernels[0] == 0 && kernels[1].as_u64() > Some(20), "kernels are compiled asynchronously: {kernels}");
    assert!(tab.value("seen.frames").as_u64().unwrap() > 20);
    tab.press("stop");
    assert_eq!(tab.end("quickstart")["exit"], "interrupted");
    assert_same(&tab.losses("quickstart"), &losses, "in the window");
    at("in the window itself");
    tab.assert_closed();
}

#[test]
#[ignore = "needs dist/ and Chromium: run by `cargo xtask test`"]
fn without_webgpu_the_app_gives_advice_and_shows_finished_runs() {
    // A run of the command line.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tiny.toml"), tiny_study::BASE).unwrap();
    let train = moelab().current_dir(folder.path()).args(["train", "tiny.toml", "--out", "tiny"]).output().unwrap();
    assert!(train.status.success(), "{}", String::from_utf8_lossy(&train.stderr));
    assert!(Command::new("tar").args(["cf", "tiny.tar", "tiny"]).current_dir(folder.path()).status().unwrap().success());
    let mut tab = Tab::open("app-no-webgpu", "", &["--disable-features=WebGPU"]);
    tab.choose(&[folder.path().join("tiny.tar")]);
    tab.until("seen.listed.runs.find(({ name, exit }) => name === 'tiny' && exit === 'completed')");
    tab.value("seen.port.postMessage(JSON.stringify({ request: 'look', run: 'tiny' })), 1");
    assert_eq!(tab.until("seen.looked.tiny?.evaluations.length"), 2);
    assert!(tab.is_drawn());
    tab.press("quickstart");
    let advice = tab.until("seen.ended.quickstart?.detail");
    assert!(advice.as_str().unwrap().contains("In Chrome, update"), "{advice}");
    tab.until("document.getElementById('status').textContent.includes('In Chrome, update')");
    tab.assert_closed();
}

/// All 79 M parameters of exp8 at its vocabulary and sequence length, with one sequence per update and text of the embedded language. On
/// Chromium's CPU driver that takes a quarter of an hour with a release page, so it runs on request:
/// `cargo xtask web`, then `cargo test --test web the_published_size -- --ignored --nocapture`.
#[test]
#[ignore = "needs dist/, Chromium, 5 GiB and a quarter of an hour: run on request"]
fn the_published_size_trains_in_a_browser_as_on_the_command_line() {
    let begun = Instant::now();
    let at = |what: &str| println!("{:6.1} s  {what}", begun.elapsed().as_secs_f64());
    let published = include_str!("../../configs/exp8/baseline.toml");
    let (model, rest) = published.split_once("\n[data]\n").unwrap();
    let (_, rest) = rest.split_once("\n[train]\n").unwrap();
    let data = "kind = \"language\"\ntargets = \"inside\"\nsequence_length = 512\nbatch = 1\n";
    let short = rest.replace("updates = 250", "updates = 3").replace("micro_batches = 4", "micro_batches = 1");
    let short = short.replace("every = 10\nunit = \"micro_steps\"", "every = 3\nwindows = 1");
    let config = format!("{model}\n[data]\n{data}\n[sample]\nprompts = []\n\n[train]\n{short}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exp8.toml");
    fs::write(&path, config).unwrap();
    let output = moelab().current_dir(folder.path()).args(["train", "exp8.toml", "--out", "native"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let wanted = logged(&folder.path().join("native"));
    at("on the command line");
    let mut tab = Tab::open("app-published-size", "", &SWIFTSHADER);
    tab.choose(&[path]);
    thread::sleep(Duration::from_secs(2));
    tab.start("run");
    for update in 1..=3 {
        tab.until(&format!("seen.losses['run'][{update}]"));
        at(&format!("update {update}"));
    }
    assert_eq!(tab.end("run")["exit"], "completed");
    let found = tab.losses("run");
    println!("in the browser {found:?}, on the command line {wanted:?}");
    assert_eq!(found.len(), 3);
    assert_near(&found, &wanted, "at the published size");
    at("saved");
    tab.assert_closed();
}
