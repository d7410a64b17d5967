//! What the binary does with a run whose folder, data or settings are not what they were, and with a run of an older release.

#[path = "../../tests/helpers/log.rs"]
mod log;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use log::current;
use serde_json::Value;

/// A run of commit daf866d, killed after update 7 of 10 with a checkpoint of update 5; `expected` has what that commit went on to write.
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/runs/daf866d");
/// Losses of another adapter or driver differ by rounding alone.
const TOLERANCE: f64 = 2e-3;

/// A copy of the fixture to work in: the text, and the run.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        copy(Path::new(FIXTURE), place.0.path());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn edit(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "{name} lacks {from:?}");
        fs::write(self.path(name), text.replace(from, to)).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moelab"));
        command.current_dir(self.0.path()).args(arguments).stdin(Stdio::null()).output().expect("the binary runs")
    }

    /// The standard error of a command that has to be refused as bad input.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        text
    }

    /// The standard error of a command that has to succeed.
    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {text}");
        text
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_str(&self.read(name)).unwrap()
    }

    fn lines(&self, name: &str) -> Vec<Value> {
        self.read(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every field that `wanted` has but for wall-clock facts: equal if the machine is the same, else losses within the tolerance.
fn assert_line(wanted: &Value, found: &Value, is_exact: bool) {
    // What is drawn from the model is no part of the promise: a release may sample by another rule.
    for (field, value) in wanted.as_object().unwrap().iter().filter(|(field, _)| !["time", "text"].contains(&field.as_str())) {
        match (field.as_str(), is_exact) {
            (_, true) | ("kind" | "update" | "micro_steps" | "tokens" | "targets" | "schema" | "config", _) => {
                assert_eq!(&found[field], value, "{field} of {wanted}");
            }
            ("train_ce" | "val_ce", false) => {
                let (wanted, found) = (value.as_f64().unwrap(), found[field].as_f64().unwrap());
                assert!((wanted - found).abs() < TOLERANCE, "{field}: {found}, wanted {wanted}");
            }
            _ => {}
        }
    }
}

#[test]
fn a_run_of_an_older_release_goes_on_to_the_same_bits() {
    let place = Place::new();
    place.done(&["resume", "run"]);
    let (wanted, found) = (place.json("expected/summary.json"), place.json("run/summary.json"));
    let is_exact = wanted["adapter"] == found["adapter"] && wanted["driver"] == found["driver"];
    println!("compared {}", if is_exact { "every bit" } else { "losses: the fixture was made on another adapter or driver" });
    if is_exact {
        assert_eq!(found["weights_sha256"], wanted["weights_sha256"]);
    }
    for field in ["exit", "updates", "tokens", "best_update", "config_sha256", "data_sha256", "tokenizer_sha256"] {
        assert_eq!(found[field], wanted[field], "{field}");
    }
    assert_eq!(found["changes"], Value::Array(Vec::new()));
    // The updates that the killed process made after its checkpoint are history, and are still there.
    let (log, before) = (place.read("run/metrics.jsonl"), fs::read_to_string(format!("{FIXTURE}/run/metrics.jsonl")).unwrap());
    assert!(log.contains(r#"{"kind":"rewound","to":5,"from":7,"#), "{log}");
    assert_eq!(log.matches(r#""update":7,"#).count(), 2 * before.matches(r#""update":7,"#).count());
    fs::write(place.path("run/current.jsonl"), current(&log).unwrap()).unwrap();
    let (wanted, found) = (place.lines("expected/metrics.jsonl"), place.lines("run/current.jsonl"));
    assert_eq!(found.len(), wanted.len());
    // Lines that stood in the log before are kept as they are; what came after is this release's.
    wanted.iter().zip(&found).for_each(|(wanted, found)| assert_line(wanted, found, is_exact || wanted["update"].as_u64() <= Some(5)));
    // Its settings are the first release's still, though this one may have more.
    assert_eq!(place.read("run/config.effective.toml"), fs::read_to_string(format!("{FIXTURE}/run/config.effective.toml")).unwrap());
    place.done(&["eval", "run"]);
}

#[test]
fn a_corpus_that_changed_is_named_by_all_who_read_it() {
    let place = Place::new();
    fs::write(place.path("other.txt"), place.read("docs.txt")).unwrap();
    place.edit("docs.txt", "\n\n", "\n\nOne more sentence, of another text.\n\n");
    for command in ["eval", "resume"] {
        let text = place.refused(&[command, "run"]);
        assert!(text.contains("464ff294a3f41bb5...") && text.contains("data.paths"), "{text}");
    }
    assert!(place.refused(&["eval", "run"]).contains("--data PATH"));
    assert!(place.read("run/metrics.jsonl").contains("\"update\":7"), "a refused resume leaves the log as it is");
    place.done(&["eval", "run", "--data", "docs.txt"]);
    // An export reads no text; that transformers has no such model is found after the run was checked.
    assert!(place.refused(&["export", "run", "exported"]).contains("no counterpart"));
    // What the files hold is the run's; where they stand is not.
    place.done(&["eval", "run", "--data", "other.txt"]);
    let text = place.done(&["resume", "run", "--set", "data.paths=['other.txt']", "--set", "train.updates=6"]);
    assert!(text.contains("bookkeeping: data.paths [\"docs.txt\"] -> [\"other.txt\"]"), "{text}");
}

#[test]
fn an_edited_config_is_noticed_by_all_who_read_the_run() {
    let place = Place::new();
    place.edit("run/config.effective.toml", "eps = 1.1920929e-7", "eps = 1e-5");
    for command in [&["eval", "run"][..], &["resume", "run"], &["sample", "run"], &["export", "run", "exported"]] {
        let text = place.refused(command);
        assert!(text.contains("was edited") && text.contains("--set KEY=VALUE"), "{command:?}: {text}");
    }
}

#[test]
fn settings_are_changed_by_resume_and_what_was_changed_is_kept() {
    let place = Place::new();
    let text = place.refused(&["resume", "run", "--set", "model.norm.eps=1e-5", "--set", "data.batch=4"]);
    assert!(text.contains("`model.norm.eps` is 1e-5, the run was trained with 1.1920929e-7"), "{text}");
    assert!(text.contains("`data.batch` is 4, the run was trained with 2"), "{text}");
    let text = place.refused(&["resume", "run", "--set", "optimizer.adamw.lr=0.002"]);
    assert!(text.contains("`optimizer.adamw.lr` is 0.002") && text.contains("--allow optimisation"), "{text}");
    assert!(place.refused(&["resume", "run", "--set", "train.updates=4"]).contains("has made 5 updates"));
    let before = place.read("run/config.effective.toml");

    let sets = ["--set", "optimizer.adamw.lr=0.002", "--set", "train.updates=7", "--set", "train.evaluation.every=6"];
    let text = place.done(&[&["resume", "run", "--allow", "optimisation"], &sets[..]].concat());
    assert!(text.contains("optimisation: optimizer.adamw.lr 0.001 -> 0.002") && text.contains("length: train.updates 10 -> 7"), "{text}");
    assert!(text.contains("schedules are relative to the length of the run"), "{text}");
    let summary = place.json("run/summary.json");
    let changes: Vec<_> = summary["changes"].as_array().unwrap().iter().map(|change| (&change["key"], &change["update"])).collect();
    let expected = ["optimizer.adamw.lr", "train.evaluation.every", "train.updates"].map(|key| (Value::from(key), Value::from(5)));
    assert_eq!(changes, expected.iter().map(|(key, update)| (key, update)).collect::<Vec<_>>());
    assert_eq!(place.json("run/checkpoints/update-00000007/state.json")["changes"], summary["changes"]);
    assert!(place.read("run/report.md").contains("Settings were changed during the run"));
    let log = place.lines("run/metrics.jsonl");
    let told = log.iter().filter(|line| line["incident"] == "settings_changed" && line["update"] == 5).count();
    assert_eq!(told, 3, "{log:#?}");
    assert_eq!(place.read("run/config.started.toml"), before);
    assert!(place.read("run/config.effective.toml").contains("lr = 0.002"));

    // The next command takes the run as it is now, and so does one that reads a checkpoint from before the change.
    let text = place.done(&["resume", "run"]);
    assert!(!text.contains("->"), "{text}");
    let hashes = |place: &Place| place.json("run/summary.json")["settings_sha256"].clone();
    let identity = hashes(&place);
    let classes: Vec<&String> = identity.as_object().unwrap().keys().collect();
    assert_eq!(classes, ["data", "length", "model", "optimisation"]);
    place.done(&["resume", "run", "--set", "train.log_every=2"]);
    assert_eq!(hashes(&place), identity, "what is only kept or printed is no part of what a run is");
    fs::remove_dir_all(place.path("run/checkpoints/update-00000007")).unwrap();
    assert!(place.refused(&["export", "run", "exported"]).contains("no counterpart"));

    // A settled state names the key that was edited by hand, once the sums of the files are out of the way.
    place.edit("run/config.effective.toml", "eps = 1.1920929e-7", "eps = 1e-5");
    assert!(place.refused(&["export", "run", "exported-again"]).contains("remove `SHA256SUMS`"));
    fs::remove_file(place.path("run/SHA256SUMS")).unwrap();
    let text = place.refused(&["export", "run", "exported-again"]);
    assert!(text.contains("`model.norm.eps` is 1e-5"), "{text}");
}

#[test]
fn check_holds_the_whole_run_against_the_machine() {
    let place = Place::new();
    let check = |sets: &[&str]| {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", *set]).collect();
        let output = place.run(&[&["check", "base.toml", "--json"], &sets[..]].concat());
        let json: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (json, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (small, _) = check(&[]);
    assert_eq!(small["fits"], true);
    let parts = ["parameters", "gradients", "optimizer", "activations", "evaluation", "images", "inputs"];
    let sum: u64 = parts.iter().map(|part| small["bytes"][*part].as_u64().unwrap()).sum();
    assert_eq!(small["bytes"]["total"], sum);
    // No buffer of it is large; all of them together are more than any machine that runs these tests has.
    let (large, warning) = check(&["model.depth.layers=256", "data.batch=1024", "model.width=512", "model.attention.heads=8"]);
    if small["adapter"]["tier"] == "cpu" && Path::new("/proc/meminfo").exists() {
        assert!(large["bytes"]["total"].as_u64() > large["bytes"]["machine"].as_u64(), "{large}");
        assert_eq!(large["fits"], false, "{large}");
        assert!(warning.contains("it cannot run here"), "{warning}");
    }
    // Sequences by the ten thousand were a panic in the middle of recording.
    let text = place.refused(&["check", "base.toml", "--set", "data.batch=65536"]);
    assert!(text.contains("data.batch") && text.contains("32767"), "{text}");
}
