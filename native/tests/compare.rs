//! `moelab compare` and `moelab export-metrics` from outside, on runs that were really made.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

const CONFIG: &str = r#"
[model]
width = 32
context = 32
depth.layers = 1
ffn = { width = 32 }
router = { experts = 4, top_k = 2 }
[data]
sequence_length = 32
batch = 2
[train]
updates = 4
micro_batches = 1
evaluation = { every = 2, windows = 8 }
[sample]
tokens = 0
"#;

fn output(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moelab"));
    command.current_dir(ROOT).args(arguments).stdin(Stdio::null()).output().expect("the binary runs")
}

fn said(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it is text")
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(said(&[arguments, &["--json"]].concat()).lines().last().expect("a record")).expect("it is JSON")
}

fn file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn runs_are_compared_in_pairs_and_exported() {
    let place = tempfile::tempdir().expect("a folder");
    let at = |name: &str| place.path().join(name).display().to_string();
    fs::write(at("config.toml"), CONFIG).expect("it can be written");
    fs::create_dir(at("runs")).expect("it can be made");
    for (arm, change) in [("base", "seed=1"), ("slow", "optimizer.muon.lr=0.001")] {
        for seed in ["1", "2"] {
            let seed_of = format!("seed={seed}");
            let out = at(&format!("runs/{arm}-s{seed}"));
            json(&["train", &at("config.toml"), "--set", change, "--set", &seed_of, "--out", &out]);
        }
    }
    let summary = |run: &str| -> Value { serde_json::from_str(&file(&at(&format!("runs/{run}/summary.json")))).expect("it is JSON") };

    let compared = json(&["compare", &at("runs"), "--target", "9", "--svg", &at("curves.svg"), "--png", &at("curves.png")]);
    let groups = &compared["groups"];
    assert_eq!((&groups[0]["name"], &groups[1]["name"], groups.as_array().expect("a list").len()), (&"base".into(), &"slow".into(), 2));
    assert_eq!(groups[0]["seeds"], serde_json::json!([1, 2]));
    assert_eq!(groups[1]["differences"].as_array().expect("a list").len(), 1);
    let difference = &groups[1]["differences"][0];
    assert_eq!((&difference["key"], &difference["class"]), (&"optimizer.muon.lr".into(), &"optimisation".into()));
    let pairs = &compared["judgement"]["arms"][0]["pairs"];
    for (place, seed) in [(0, 1), (1, 2)] {
        let [base, slow] = ["base", "slow"].map(|arm| summary(&format!("{arm}-s{seed}"))["final_val_ce"].as_f64().expect("a loss"));
        assert_eq!(pairs[place]["difference"], slow - base, "seed {seed}");
    }
    assert_eq!(compared["judgement"]["arms"][0]["verdict"], "unknown", "two pairs are too few");
    assert_eq!(compared["times"][0]["x"], 2.0, "the first evaluation is below 9 nats");
    let text = said(&["compare", &at("runs/base-s1"), &at("runs/slow-s1"), "--at", "tokens", "--by", "128"]);
    assert!(text.contains("seed 1: At 128 tokens: val_ce") && text.contains("sum of Muon's learning rates"), "{text}");
    for (name, start) in [("curves.svg", "<svg"), ("curves-intervals.svg", "<svg")] {
        assert!(file(&at(name)).starts_with(start), "{name}");
    }
    assert!(fs::read(at("curves.png")).expect("it was drawn").starts_with(b"\x89PNG"));

    for format in ["csv", "tensorboard", "json"] {
        json(&["export-metrics", &at("runs"), "--to", format, "--out", &at(format)]);
    }
    let table = file(&at("csv/evaluations.csv"));
    assert_eq!(table.lines().count(), 1 + 4 * 2);
    let last = table.lines().find(|row| row.starts_with("slow-s2,slow,2,4,")).expect("the last evaluation");
    assert_eq!(last.split(',').nth(7).map(str::parse), Some(Ok(summary("slow-s2")["final_val_ce"].as_f64().expect("a loss"))));
    let events = fs::read(at("tensorboard/base-s1/events.out.tfevents.0000000000.moelab")).expect("it was written");
    assert!(events.windows(11).any(|bytes| bytes == b"eval/val_ce"));
    let studied: Value = serde_json::from_str(&file(&at("json/comparison_summary.json"))).expect("it is JSON");
    assert_eq!(studied["experiments"][3]["final_loss"], summary("slow-s2")["final_val_ce"]);
    assert!(Path::new(&at("json/base-s1/metrics.json")).exists());

    // Evaluated on other targets: the audit withholds the verdict, unless the user says why it does not matter.
    json(&["train", &at("config.toml"), "--set", "train.evaluation.windows=4", "--set", "seed=1", "--out", &at("odd-s1")]);
    let refused = ["compare", &at("runs/base-s1"), &at("runs/slow-s1"), &at("odd-s1")];
    let compared = json(&refused);
    assert_eq!(compared["without_verdict"], serde_json::json!(["odd"]));
    let text = said(&refused);
    assert!(text.contains("odd: no verdict, because the audit refuses") && text.contains("eval-mismatch: EVAL MISMATCH"), "{text}");
    assert!(text.contains("slow against base") && !text.contains("odd against base is"), "{text}");
    let overridden = json(&[&refused[..], &["--override", "eval-mismatch=a test"]].concat());
    assert_eq!(overridden["without_verdict"], serde_json::json!([]));

    for (arguments, reason) in [
        (vec!["compare".to_string(), at("runs/base-s1")], "at least two"),
        (vec!["compare".to_string(), at("csv"), at("runs")], "neither a run nor a folder of runs"),
        (["export-metrics", &at("runs"), "--to", "csv", "--out", &at("csv")].map(String::from).to_vec(), "it already exists"),
    ] {
        let output = output(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
        assert!(message.contains(reason), "{message}");
    }
}
