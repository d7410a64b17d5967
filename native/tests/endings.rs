//! How a run ends, from outside: each exit code provoked, the files that every run leaves, Ctrl-C and SIGTERM, closed pipes, full
//! disks, and that resuming a finished run changes nothing.
//!
//! Long because each way to end is a short test on the same helpers.
#![cfg(unix)]

#[path = "../../tests/helpers/log.rs"]
mod log;

use log::{current, without_time};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use moelab::run::digest::sha256_hex;
use moelab_native::store::Directory;
use serde_json::Value;

/// A model that trains twelve updates in a fraction of a second; every update has its own data.
const TINY: &str = r#"
[model]
width = 64
context = 64
depth.layers = 1
attention.heads = 2
[model.ffn]
width = 64
[model.router]
experts = 4
top_k = 2
[data]
kind = "text"
paths = ["docs.txt"]
sequence_length = 16
batch = 4
split.rule = "last"
split.fraction = 0.5
[train]
updates = 12
micro_batches = 1
evaluation.every = 4
evaluation.windows = 16
checkpoint.every = 5
[schedule]
kind = "constant"
warmup = 0
[sample]
tokens = 3
"#;

/// A folder with a config and its text.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        fs::write(place.path("tiny.toml"), TINY).unwrap();
        let mut state = 1u32;
        let mut letter = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b"etaoin shrdlu\n"[(state >> 16) as usize % 14])
        };
        let text: String = (0..16_000).map(|_| letter()).collect();
        fs::write(place.path("docs.txt"), text).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn moelab(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moelab"));
        command.current_dir(self.0.path()).args(arguments).stdin(Stdio::null());
        command
    }

    /// `train tiny.toml --out RUN` with settings.
    fn train(&self, run: &str, sets: &[&str]) -> Command {
        let mut command = self.moelab(&["train", "tiny.toml", "--out", run]);
        for set in sets {
            command.args(["--set", set]);
        }
        command
    }

    fn resume(&self, run: &str) -> Output {
        self.moelab(&["resume", run]).output().unwrap()
    }

    fn summary(&self, run: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(run).join("summary.json")).expect("every run leaves a summary")).unwrap()
    }

    fn metrics(&self, run: &str) -> String {
        without_time(&current(&fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap()).unwrap()).unwrap()
    }

    fn report(&self, run: &str) -> String {
        fs::read_to_string(self.path(run).join("report.md")).expect("every run leaves a report")
    }

    fn lines(&self, run: &str, kind: &str) -> Vec<Value> {
        let lines = self.metrics(run);
        lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).filter(|line| line["kind"] == kind).collect()
    }

    /// The newest checkpoint of a run: its update and its state.
    fn newest(&self, run: &str) -> (u64, Value) {
        let folder = fs::read_to_string(self.path(run).join("checkpoints/latest")).unwrap();
        let state = self.path(run).join("checkpoints").join(folder.trim()).join("state.json");
        let state: Value = serde_json::from_slice(&fs::read(state).unwrap()).unwrap();
        (state["update"].as_u64().unwrap(), state)
    }

    /// Every file of a run with its bytes, but for the lock.
    fn files(&self, run: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut files, mut folders) = (BTreeMap::new(), vec![self.path(run)]);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.file_name().unwrap() != "run.lock" {
                    files.insert(path.clone(), fs::read(path).unwrap());
                }
            }
        }
        files
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", stderr(output));
}

/// Both runs have the same weights, log and best, and their summaries differ in names and speed alone.
#[track_caller]
fn assert_same(place: &Place, one: &str, other: &str) {
    assert_eq!(place.metrics(one), place.metrics(other));
    let summaries = [one, other].map(|run| {
        let mut summary = place.summary(run);
        for key in ["name", "tokens_per_second"] {
            summary.as_object_mut().unwrap().remove(key);
        }
        summary
    });
    assert_eq!(summaries[0], summaries[1]);
    assert!(summaries[0]["weights_sha256"].is_string(), "{}", summaries[0]);
    let best = |run| fs::read_to_string(place.path(run).join("checkpoints/best")).unwrap();
    assert_eq!(best(one), best(other));
}

#[test]
fn finished_runs_end_with_0_and_resuming_them_changes_nothing() {
    let place = Place::new();
    let stopping = ["train.evaluation.every=1", "train.early_stopping.patience=2", "train.early_stopping.min_delta=5"];
    for (run, sets, reason, updates) in [("whole", &[][..], "completed", 12), ("early", &stopping[..], "early_stopped", 3)] {
        assert_code(&place.train(run, sets).output().unwrap(), 0);
        let summary = place.summary(run);
        assert_eq!((&summary["exit"], &summary["updates"]), (&reason.into(), &updates.into()), "{summary}");
        assert!(summary["weights_sha256"].as_str().is_some_and(|hash| hash.len() == 64), "{summary}");
        assert!(place.report(run).starts_with(&format!("# {run}")));
        let before = place.files(run);
        for _ in 0..2 {
            assert_code(&place.resume(run), 0);
            let after = place.files(run);
            let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&after), names(&before));
            for (name, bytes) in &before {
                assert!(after[name] == *bytes, "{} changed", name.display());
            }
        }
    }
}

/// The loss falls less than `min_delta` an evaluation, and more within the patience.
#[test]
fn slow_gains_add_up() {
    let place = Place::new();
    let slow = ["train.evaluation.every=1", "optimizer.adamw.lr=0.0002", "optimizer.muon.lr=0.0002", "train.updates=20"];
    assert_code(&place.train("plain", &slow).output().unwrap(), 0);
    let losses: Vec<f64> = place.lines("plain", "eval").iter().map(|line| line["val_ce"].as_f64().unwrap()).collect();
    let largest = losses.windows(2).map(|pair| pair[0] - pair[1]).fold(0.0, f64::max);
    let delta = 1.2 * largest;
    assert!(losses.windows(5).all(|five| five[0] - five[4] > delta), "steady enough for this test: {losses:?}");
    let delta = format!("train.early_stopping.min_delta={delta}");
    let patient = [&slow[..], &["train.early_stopping.patience=5", &delta]].concat();
    assert_code(&place.train("patient", &patient).output().unwrap(), 0);
    assert_eq!(place.summary("patient")["exit"], "completed");
    let impatient = [&slow[..], &["train.early_stopping.patience=1", &delta]].concat();
    assert_code(&place.train("impatient", &impatient).output().unwrap(), 0);
    assert_eq!((&place.summary("impatient")["exit"], &place.summary("impatient")["updates"]), (&"early_stopped".into(), &2.into()));
}

#[test]
fn a_diverged_run_ends_with_3() {
    let place = Place::new();
    // A decay of a thousand times the weights each update: they leave the range of f32 soon.
    let sets = [
        "optimizer.adamw.lr=10.0",
        "optimizer.muon.lr=10.0",
        "optimizer.adamw.weight_decay=100.0",
        "optimizer.muon.weight_decay=100.0",
        "train.updates=200",
        "train.evaluation.every=0",
        "train.checkpoint.every=0",
        "nan.roll_back_after=2",
        "nan.stop_after=1",
    ];
    let output = place.train("run", &sets).output().unwrap();
    assert_code(&output, 3);
    let summary = place.summary("run");
    assert_eq!((&summary["exit"], &summary["rollbacks"], &summary["weights_sha256"]), (&"diverged".into(), &1.into(), &Value::Null));
    assert!(summary["detail"].as_str().unwrap().contains("learning rates"), "{summary}");
    assert!(stderr(&output).contains("diverged"), "{}", stderr(&output));
    assert!(place.report("run").contains("The run diverged"));
    // The last update and why the run ended are in the log.
    let last = summary["updates"].as_u64().unwrap();
    assert_eq!(place.lines("run", "update").last().unwrap()["update"], last);
    assert_eq!(place.lines("run", "incident").last().unwrap()["update"], last);
    assert_code(&place.resume("run"), 3);
    assert_eq!(place.summary("run")["updates"], last);
}

#[test]
fn a_lost_device_ends_with_4_and_the_run_can_be_resumed() {
    let place = Place::new();
    assert_code(&place.train("straight", &[]).output().unwrap(), 0);
    let output = place.train("run", &[]).env("MOELAB_FAULT_DEVICE", "7").output().unwrap();
    assert_code(&output, 4);
    let summary = place.summary("run");
    assert_eq!((&summary["exit"], &summary["weights_sha256"]), (&"device_lost".into(), &Value::Null), "{summary}");
    assert!(stderr(&output).contains("moelab resume run"), "{}", stderr(&output));
    assert!(place.report("run").contains("the device was lost"));
    assert_code(&place.resume("run"), 0);
    assert_same(&place, "run", "straight");
}

#[test]
fn a_busy_folder_ends_with_75() {
    let place = Place::new();
    assert_code(&place.train("run", &["train.updates=2"]).output().unwrap(), 0);
    let held = Directory::open(&place.path("run")).unwrap();
    let output = place.resume("run");
    assert_code(&output, 75);
    assert!(stderr(&output).contains("is being written by process"), "{}", stderr(&output));
    drop(held);
    assert_code(&place.resume("run"), 0);
}

/// Runs a command in a shell that limits the size of files, as a full disk does.
fn limited(place: &Place, blocks: u32, run: &str) -> Output {
    let mut shell = Command::new("sh");
    let line = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" train tiny.toml --out {run}");
    shell.current_dir(place.0.path()).args(["-c", &line, env!("CARGO_BIN_EXE_moelab")]).stdin(Stdio::null());
    shell.output().unwrap()
}

#[test]
fn a_last_save_that_fails_ends_with_74() {
    let place = Place::new();
    assert_code(&place.train("straight", &[]).output().unwrap(), 0);
    // 128 blocks of 512 bytes: room for everything but weights and moments.
    let output = limited(&place, 128, "run");
    assert_code(&output, 74);
    let summary = place.summary("run");
    assert_eq!((&summary["exit"], &summary["weights_sha256"], &summary["updates"]), (&"out_of_space".into(), &Value::Null, &12.into()));
    assert!(summary["detail"].as_str().unwrap().contains("large"), "{summary}");
    assert!(place.report("run").contains("the disk was full"));
    assert!(stderr(&output).contains("moelab resume run"), "{}", stderr(&output));
    assert_eq!(place.lines("run", "incident").iter().filter(|line| line["incident"] == "checkpoint_failed").count(), 5);
    // With free space again the run resumes and ends like one that always had space.
    assert_code(&place.resume("run"), 0);
    assert_eq!(place.summary("run")["weights_sha256"], place.summary("straight")["weights_sha256"]);
}

#[test]
fn a_summary_that_cannot_be_written_ends_with_74() {
    let place = Place::new();
    assert_code(&place.train("run", &["train.updates=2"]).output().unwrap(), 0);
    let summary = place.path("run/summary.json");
    fs::remove_file(&summary).unwrap();
    fs::create_dir_all(summary.join("in_the_way")).unwrap();
    let output = place.resume("run");
    assert_code(&output, 74);
    let said = stderr(&output);
    assert!(said.contains("made all its updates, and its summary could not be written: cannot rename"), "{said}");
}

/// A run under way whose metrics are read as they come.
struct Watched {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Watched {
    fn start(place: &Place, run: &str, sets: &[&str]) -> Watched {
        let mut child = place.train(run, sets).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Watched { child, lines }
    }

    /// Waits for the line of an update.
    fn until(&mut self, update: u64) {
        let is_it = |line: &Value| line["kind"] == "update" && line["update"] == update;
        let found = self.lines.by_ref().any(|line| is_it(&serde_json::from_str(&line.unwrap()).unwrap()));
        assert!(found, "the run ended before update {update}");
    }

    fn signal(&self, names: &[&str]) {
        let kills: Vec<String> = names.iter().map(|name| format!("kill -{name} {}", self.child.id())).collect();
        assert!(Command::new("sh").args(["-c", &kills.join("; ")]).status().unwrap().success());
    }

    fn end(self) -> Output {
        let reader = std::thread::spawn(move || self.lines.for_each(drop));
        let output = self.child.wait_with_output().unwrap();
        reader.join().unwrap();
        output
    }
}

/// Many windows, so that an evaluation takes a while.
const LONG: &[&str] = &["train.evaluation.windows=0", "train.updates=9", "train.evaluation.every=4"];

#[test]
fn interrupted_at_any_moment_a_run_saves_and_resumes_to_the_same_bits() {
    let place = Place::new();
    assert_code(&place.train("straight", LONG).output().unwrap(), 0);

    for (run, moment, signal) in [("first", 1, "INT"), ("evaluation", 4, "TERM"), ("save", 0, "INT")] {
        let mut watched = Watched::start(&place, run, LONG);
        if moment > 0 {
            watched.until(moment);
        } else {
            // The first checkpoint is of the best evaluation, after update 4.
            let deadline = Instant::now() + Duration::from_secs(60);
            let is_saving = || fs::read_dir(place.path(run).join("checkpoints")).is_ok_and(|mut entries| entries.next().is_some());
            while !is_saving() {
                assert!(Instant::now() < deadline, "no checkpoint");
                sleep(Duration::from_micros(200));
            }
        }
        watched.signal(&[signal]);
        let output = watched.end();
        assert_code(&output, 75);
        let said = stderr(&output);
        assert!(said.contains(&format!("moelab resume {run}")), "{said}");
        let (summary, (saved, state)) = (place.summary(run), place.newest(run));
        assert_eq!((&summary["exit"], &summary["updates"]), (&"interrupted".into(), &saved.into()), "{summary}");
        assert!(summary["weights_sha256"].is_string() && saved < 9, "{summary}");
        assert!(place.report(run).contains("was stopped and can be resumed"));
        if run == "evaluation" {
            assert_eq!((saved, &state["evaluation_pending"]), (4, &true.into()), "the signal came before the evaluation was over");
            assert!(place.lines(run, "eval").is_empty());
        }
        assert_code(&place.resume(run), 0);
        assert_same(&place, run, "straight");
    }
}

#[test]
fn a_second_signal_ends_at_once_and_loses_nothing_older() {
    let place = Place::new();
    let sets = ["train.updates=2000", "train.evaluation.every=0", "train.checkpoint.every=5", "train.checkpoint.keep=3"];
    let mut watched = Watched::start(&place, "run", &sets);
    watched.until(11);
    watched.signal(&["INT", "TERM"]);
    assert_code(&watched.end(), 130);
    let (saved, _) = place.newest("run");
    assert!(saved >= 10, "{saved}");
    // An interrupted run that is resumed and interrupted again.
    let mut again = place.moelab(&["resume", "run", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(again.stdout.take().unwrap()).lines();
    let mut watched = Watched { child: again, lines };
    watched.until(saved + 2);
    watched.signal(&["TERM"]);
    assert_code(&watched.end(), 75);
    assert!(place.summary("run")["updates"].as_u64().unwrap() >= saved + 2);
}

#[test]
fn output_that_nobody_takes_ends_no_run() {
    let place = Place::new();
    assert_code(&place.train("straight", &[]).output().unwrap(), 0);
    let full = || Stdio::from(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());

    // The reader of `moelab train --json | head -1` leaves after a line.
    let mut child = place.train("closed", &[]).arg("--json").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let status = place.train("full", &[]).arg("--json").stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    for run in ["closed", "full"] {
        assert_same(&place, run, "straight");
    }

    // A result that nobody got is no success, a reader who has seen enough is.
    let params = |stdout: Stdio| place.moelab(&["params", "tiny.toml"]).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    let output = params(full()).wait_with_output().unwrap();
    assert_code(&output, 74);
    assert!(stderr(&output).contains("could not be written to stdout"), "{}", stderr(&output));
    let mut closed = params(Stdio::piped());
    drop(closed.stdout.take());
    assert_code(&closed.wait_with_output().unwrap(), 0);
}

#[test]
fn a_finite_blow_up_is_an_incident_a_warning_and_the_first_sentence() {
    let place = Place::new();
    let sets = ["optimizer.adamw.lr=10.0", "optimizer.muon.lr=10.0", "train.updates=30", "train.evaluation.every=15"];
    let output = place.train("run", &sets).output().unwrap();
    assert_code(&output, 0);
    let summary = place.summary("run");
    let first = summary["blew_up_at"].as_u64().expect("it blew up");
    assert!(first <= 5, "{summary}");
    let alarms: Vec<Value> = place.lines("run", "incident").into_iter().filter(|line| line["incident"] == "blow_up").collect();
    assert_eq!(alarms[0]["since"], first);
    let losses: Vec<f64> = place.lines("run", "update").iter().map(|line| line["train_ce"].as_f64().unwrap()).collect();
    assert!(losses.iter().all(|loss| loss.is_finite()) && losses[first as usize - 1] > 1.1 * 256f64.ln(), "{losses:?}");
    let said = stderr(&output);
    assert!(said.contains(&format!("update {first}")) && said.contains("warning: "), "{said}");
    assert!(place.report("run").lines().nth(2).unwrap().starts_with(&format!("**The run blew up: from update {first}")), "{said}");

    let calm = place.train("calm", &["train.updates=30", "alarms.window=5"]).output().unwrap();
    assert_code(&calm, 0);
    assert_eq!((place.summary("calm")["blew_up_at"].clone(), place.lines("calm", "incident").len()), (Value::Null, 0));
}

#[test]
fn the_log_has_a_line_every_so_many_updates_and_no_number_that_was_not_measured() {
    let place = Place::new();
    let sets = ["train.log_every=5", "model.ffn.kind=\"dense\"", "model.ffn.width=64"];
    let output = place.train("run", &sets).output().unwrap();
    assert_code(&output, 0);
    let updates = place.lines("run", "update");
    assert_eq!(updates.iter().map(|line| line["update"].as_u64().unwrap()).collect::<Vec<_>>(), [5, 10, 12]);
    assert_eq!(place.lines("run", "eval").len(), 3);
    for key in ["balance", "balance_sequence", "balance_global_batch", "balance_hf_mixtral", "z"] {
        assert!(updates.iter().all(|line| line[key].is_null()), "{key} without a router: {}", updates[0]);
    }
    let text = fs::read_to_string(place.path("run").join("metrics.jsonl")).unwrap();
    let times: Vec<Value> = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["time"].clone()).collect();
    let measured = times.iter().filter(|time| !time["tokens_per_second"].is_null());
    assert!(measured.clone().all(|time| time["seconds"].as_f64().unwrap() >= 1.0), "a speed is over a second at least: {times:?}");
    // Progress is a line a second at most, whatever happens.
    let seconds = times.last().unwrap()["seconds"].as_f64().unwrap();
    let shown = stderr(&output).lines().filter(|line| line.starts_with("update ")).count();
    assert!(shown as f64 <= seconds + 2.0, "{shown} lines in {seconds} s: {}", stderr(&output));
}

#[test]
fn the_terminal_shows_what_was_asked_for_and_nothing_else() {
    let place = Place::new();
    fs::write(place.path("e\u{1b}[31mvil\nerror: forged.toml"), "[model]\n\"wi\u{1b}[2Jdth\" = 3\n").unwrap();
    let bare = |arguments: &[&str]| place.moelab(arguments).env_remove("XDG_RUNTIME_DIR").output().unwrap();
    let output = bare(&["check", "e\u{1b}[31mvil\nerror: forged.toml"]);
    assert_code(&output, 2);
    assert!(!stderr(&output).contains('\u{1b}') && stderr(&output).ends_with('\n'), "{:?}", stderr(&output));
    let output = bare(&["params", "e\u{1b}[31mvil\nerror: forged.toml"]);
    assert!(!stderr(&output).contains('\u{1b}'), "{:?}", stderr(&output));

    assert_code(&place.train("run", &["train.updates=2"]).output().unwrap(), 0);
    let prompt = "\u{1b}[2Jet\u{9b}31m";
    let output = bare(&["sample", "run", "--prompt", prompt, "--tokens", "2"]);
    assert_code(&output, 0);
    let shown = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(shown.starts_with("\\u{1b}[2Jet\\u{9b}31m") && !shown.contains('\u{1b}'), "{shown:?}");
    // Mesa's device chooser complains where there is no desktop session.
    assert_eq!(stderr(&output), "");
    let output = bare(&["sample", "run", "--prompt", prompt, "--tokens", "2", "--json"]);
    let line = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(!line.chars().any(|c| c.is_control() && c != '\n'), "{line:?}");
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["prompt"], prompt);
}

/// A run folder from a stranger: the name of its adapter steers the terminal and forges a line.
#[test]
fn names_in_a_checkpoint_stay_within_their_line() {
    let place = Place::new();
    assert_code(&place.train("run", &["train.updates=2"]).output().unwrap(), 0);
    let folder = place.path("run/checkpoints/update-00000002");
    let [state, manifest] = ["state.json", "manifest.json"].map(|name| fs::read_to_string(folder.join(name)).unwrap());
    let adapter = serde_json::from_str::<Value>(&state).unwrap()["identity"]["adapter"].to_string();
    let hostile = state.replace(&adapter, r#""evil\u001b[2J\nerror: forged""#);
    assert_ne!(hostile, state);
    let entry = |state: &str| (format!("\"bytes\": {}", state.len()), sha256_hex(state.as_bytes()));
    let (before, after) = (entry(&state), entry(&hostile));
    let forged = manifest.replace(&before.0, &after.0).replace(&before.1, &after.1);
    fs::write(folder.join("state.json"), hostile).unwrap();
    fs::write(folder.join("manifest.json"), forged).unwrap();
    let output = place.resume("run");
    assert_code(&output, 0);
    let said = stderr(&output);
    assert!(said.contains("evil\\u{1b}[2J\\nerror: forged") && !said.contains('\u{1b}'), "{said:?}");
}
