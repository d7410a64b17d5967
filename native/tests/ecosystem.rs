//! moelab beside other tools: what `suite emit` prints is run, HyperQueue and Optuna drive it, TensorBoard, pandas and numpy read it.
//!
//! The Python packages are those of `tests/ecosystem/requirements.txt`; `cargo xtask test` installs them in `target/python`. A test whose
//! packages are missing says so and does nothing.

#[path = "../../tests/helpers/skipped.rs"]
mod skipped;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use skipped::skipped;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const MOELAB: &str = env!("CARGO_BIN_EXE_moelab");

const BASE: &str = include_str!("../../tests/helpers/tiny.toml");

fn file(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

/// A Python that has these packages: that of `target/python`, or the system's.
fn python(packages: &[&str]) -> Option<PathBuf> {
    let import: String = packages.iter().map(|package| format!("import {package}\n")).collect();
    let has_them = |python: &PathBuf| {
        let output = Command::new(python).args(["-c", &import]).stdin(Stdio::null()).output();
        output.is_ok_and(|output| output.status.success())
    };
    let found = [file("target/python/bin/python3"), "python3".into()].into_iter().find(has_them);
    if found.is_none() {
        skipped(&format!("no Python with {packages:?} (`cargo xtask setup test` installs tests/ecosystem/requirements.txt)"));
    }
    found
}

fn succeeds(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().expect("it starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout
}

/// A command in a folder, with the tested program as `moelab`.
fn in_folder(program: impl AsRef<std::ffi::OsStr>, folder: &Path) -> Command {
    let programs = [Path::new(MOELAB).parent().expect("it is in a folder").to_path_buf()];
    let path = env::var_os("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.current_dir(folder).env("PATH", env::join_paths(programs.into_iter().chain(env::split_paths(&path))).expect("paths"));
    command
}

/// The text that `suite emit` prints is run as its first lines say, at both stages of a study; then every run is complete.
#[test]
fn emitted_scripts_make_every_run() {
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path().join("a study");
    fs::create_dir(&folder).expect("it is new");
    let study = "question = \"?\"\nbase = \"base.toml\"\nrepeats = 1\n[arms.none]\nset = [\"model.balance.coefficient=0.0\"]\n[stages]\nscreen = \"50%\"\n";
    fs::write(folder.join("base.toml"), BASE).expect("it is written");
    fs::write(folder.join("study.toml"), study).expect("it is written");
    let suite = |verb: &str, engine: &str, more: &[&str]| {
        let out = format!("its runs/{engine}");
        succeeds(in_folder("moelab", &folder).args(["suite", verb, "study.toml", "--out", &out]).args(more))
    };
    for engine in ["slurm", "parallel"] {
        let runs = suite("plan", engine, &["--json"]).lines().count();
        fs::write(folder.join("script"), suite("emit", engine, &["--to", engine])).expect("it is written");
        for _stage in 0..2 {
            if engine == "slurm" {
                for index in 0..runs {
                    succeeds(in_folder("bash", &folder).arg("script").env("SLURM_ARRAY_TASK_ID", index.to_string()));
                }
            } else {
                let text = fs::read_to_string(folder.join("script")).expect("it was written");
                let first = text.lines().next().and_then(|line| line.strip_prefix("# ")).expect("its first line is the command");
                let has_parallel = Command::new("parallel").arg("--version").output().is_ok_and(|output| output.status.success());
                let command = if has_parallel {
                    first.replace("THIS-FILE", "script")
                } else {
                    println!("GNU parallel is missing: the list is run by xargs");
                    "grep -v '^#' script | xargs -d '\\n' -P 2 -I COMMAND sh -c COMMAND".to_string()
                };
                succeeds(in_folder("sh", &folder).args(["-c", &command]));
            }
            suite("promote", engine, &[]);
        }
        let status = suite("status", engine, &["--json"]);
        let is_complete = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["status"]["ended"] == "completed";
        assert!(status.lines().count() == runs && status.lines().all(is_complete), "{engine}: {status}");
    }
    let chosen =
        succeeds(in_folder("moelab", &folder).args(["--adapter", "pci:0000:65:00.0", "suite", "emit", "study.toml", "--to", "slurm"]));
    assert!(chosen.contains("\nmoelab --adapter pci:0000:65:00.0 run --plan "), "{chosen}");
}

/// Runs the accounting of `tests/ecosystem/faults_and_kills.py`.
fn account(python: &Path, arguments: &[&str]) {
    let script = file("tests/ecosystem/faults_and_kills.py");
    let text = succeeds(Command::new(python).arg(script).args(["--moelab", MOELAB]).args(arguments));
    println!("{text}");
    assert!(text.ends_with("0 failures\n"), "{text}");
}

#[test]
fn a_killed_coordinator_loses_no_run_and_makes_none_twice() {
    if let Some(python) = python(&[]) {
        account(&python, &["--engines", "slots", "--arms", "5", "--seeds", "2", "--kills", "1", "--fault", "file"]);
    }
}

#[test]
fn hyperqueue_makes_the_same_runs_as_local_slots() {
    if let Some(python) = python(&["hyperqueue"]) {
        account(&python, &["--arms", "2", "--seeds", "2", "--kills", "0", "--fault", "panic"]);
    }
}

#[test]
#[ignore = "takes half an hour on two cores; the two tests above do the same with 10 and 4 runs"]
fn two_hundred_runs_with_faults_and_kills_are_accounted_for_on_both_engines() {
    if let Some(python) = python(&["hyperqueue"]) {
        account(&python, &["--arms", "10", "--seeds", "20", "--kills", "5"]);
    }
}

#[test]
fn tensorboard_pandas_and_numpy_read_what_was_logged() {
    let Some(python) = python(&["tensorboard", "pandas", "numpy"]) else { return };
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path();
    fs::write(folder.join("base.toml"), BASE).expect("it is written");
    for seed in ["1", "2"] {
        let out = format!("runs/base-s{seed}");
        succeeds(in_folder("moelab", folder).args(["train", "base.toml", "--out", &out, "--set", &format!("seed={seed}")]));
    }
    for format in ["tensorboard", "csv"] {
        succeeds(in_folder("moelab", folder).args(["export-metrics", "runs", "--to", format, "--out", format]));
    }
    let script = file("tests/ecosystem/read_metrics.py");
    let text = succeeds(in_folder(python, folder).arg(script).args(["runs", "tensorboard", "csv"]));
    assert!(text.contains("base-s2: 4 updates, 2 evaluations") && text.contains("2 runs read"), "{text}");
}

#[test]
fn optuna_searches() {
    let Some(python) = python(&["optuna"]) else { return };
    let place = tempfile::tempdir().expect("a folder");
    let folder = place.path();
    fs::write(folder.join("base.toml"), BASE).expect("it is written");
    fs::write(folder.join("study.toml"), "question = \"Which rates?\"\nbase = \"base.toml\"\n").expect("it is written");
    let script = file("examples/optuna/search.py");
    let search = |trials: &str| -> Vec<Value> {
        let arguments = ["study.toml", "--trials", trials, "--moelab", MOELAB];
        let text = succeeds(in_folder(&python, folder).arg(&script).args(arguments));
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    let lines = search("3");
    assert_eq!(lines.len(), 4);
    let values = lines[..3].iter().map(|line| line["value"].as_f64().expect("a loss"));
    assert_eq!(lines[3]["value"].as_f64(), values.reduce(f64::min));
    // It continues where it stopped: one more trial, and the result.
    assert_eq!(search("4").len(), 2);
}
