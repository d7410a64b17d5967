//! The `moelab` binary from outside: exit codes, JSON, equal bits, and a run that is killed and resumed.

#[path = "../../tests/helpers/log.rs"]
mod log;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use log::{current, without_time};
use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn moelab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moelab"));
    command.current_dir(ROOT).args(arguments).stdin(Stdio::null());
    command
}

fn output(arguments: &[&str]) -> Output {
    moelab(arguments).output().expect("the binary runs")
}

fn stdout(arguments: &[&str]) -> String {
    let output = output(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&stdout(arguments)).unwrap()
}

/// Ten updates of a small model with dropout and noise, a checkpoint in the middle.
const SMALL: &[&str] = &[
    "train",
    "configs/quickstart.toml",
    "--set",
    "train.updates=10",
    "--set",
    "train.checkpoint.every=5",
    "--set",
    "train.evaluation.every=4",
    "--set",
    "train.evaluation.windows=8",
    "--set",
    "data.sequence_length=64",
    "--set",
    "data.batch=2",
    "--set",
    "model.dropout.residual=0.1",
    "--set",
    "sample.tokens=4",
];

fn train(folder: &Path) -> Vec<&str> {
    [SMALL, &["--out", folder.to_str().unwrap()]].concat()
}

fn summary(run: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(run.join("summary.json")).unwrap()).unwrap()
}

fn metrics(run: &Path) -> String {
    without_time(&current(&fs::read_to_string(run.join("metrics.jsonl")).unwrap()).unwrap()).unwrap()
}

#[test]
fn params_counts_the_published_models() {
    let exp8 = json(&["params", "configs/exp8/baseline.toml", "--json"]);
    assert_eq!([&exp8["total"], &exp8["muon"], &exp8["adamw"]], [79_059_840, 60_180_480, 18_879_360]);
    assert_eq!(json(&["params", "configs/exp3/baseline.toml", "--json"])["total"], 20_456_704);
}

#[test]
fn probe_checks_the_structure_of_a_published_config() {
    let lines = stdout(&["probe", "configs/rnn/shared.toml", "--reduced", "--json"]);
    let findings: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(findings.len(), 11, "{lines}");
    assert!(findings.iter().all(|finding| finding["outcome"] != "fails"), "{lines}");
    let shares = findings.iter().find(|finding| finding["claim"].as_str().unwrap().starts_with("shared weights")).unwrap();
    assert_eq!(shares["outcome"], "holds", "{lines}");
}

#[test]
fn bad_input_exits_with_2_and_says_what_to_do() {
    let output = output(&["check", "configs/quickstart.toml", "--set", "model.widht=3"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean `width`"));
    let absent = moelab(&["eval", "no/such/run"]).output().unwrap();
    assert_eq!(absent.status.code(), Some(2));
    let adapter = moelab(&["check", "configs/quickstart.toml", "--adapter", "name:no such gpu"]).output().unwrap();
    assert_eq!(adapter.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&adapter.stderr).contains("found:"));
}

#[test]
fn equal_runs_and_a_killed_and_resumed_one_have_equal_bits() {
    let folder = tempfile::tempdir().unwrap();
    let [straight, again, killed] = ["straight", "again", "killed"].map(|name| folder.path().join(name));
    stdout(&train(&straight));
    stdout(&train(&again));
    let mut child = moelab(&train(&killed)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !killed.join("checkpoints/latest").exists() {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "no checkpoint before the end");
        sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    stdout(&["resume", killed.to_str().unwrap()]);
    for run in [&again, &killed] {
        assert_eq!(summary(run)["weights_sha256"], summary(&straight)["weights_sha256"]);
        assert_eq!(metrics(run), metrics(&straight));
    }
    assert_eq!(summary(&straight)["updates"], 10);
    for file in ["config.effective.toml", "report.md", "loss.svg", "loss.png"] {
        assert!(straight.join(file).exists(), "{file}");
    }
    let eval = json(&["eval", straight.to_str().unwrap(), "--json"]);
    assert_eq!(eval["val_ce"], summary(&straight)["best_val_ce"], "the best checkpoint evaluates to the best loss");
    let sample = json(&["sample", straight.to_str().unwrap(), "--prompt", "De", "--tokens", "5", "--json"]);
    assert_eq!(sample["prompt"], "De");
}

#[test]
fn a_damaged_checkpoint_is_refused_and_the_one_before_used() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    stdout(&train(&run));
    let weights = run.join("checkpoints/update-00000010/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let output = output(&["resume", run.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("update-00000010") && said.contains("SHA-256"), "{said}");
    assert_eq!(summary(&run)["updates"], 10);
}

#[test]
fn bench_gives_a_checked_record_a_kernel_and_shape() {
    let said = stdout(&["bench", "kernels", "--only", "matmul nt", "--rounds", "1", "--json"]);
    let records: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_own_tier: Vec<&Value> = records.iter().filter(|r| r["tier"] == records[0]["tier"]).collect();
    assert_eq!(of_own_tier.iter().filter(|r| r["kernel"] == "matmul nt").count(), 2, "{said}");
    for record in &records {
        assert!(record["shape"].as_str().is_some_and(|s| !s.is_empty()), "{record}");
        for number in ["ms", "gflops", "gbytes_per_second"] {
            assert!(record[number].as_f64().is_some_and(|n| n > 0.0), "{number} of {record}");
        }
        let [ms, gflops] = ["ms", "gflops"].map(|n| record[n].as_f64().unwrap());
        let flops = if record["shape"] == "512x512x512" { 2.0 * 512.0_f64.powi(3) } else { continue };
        assert!((ms * gflops * 1e6 / flops - 1.0).abs() < 1e-6, "{record}");
    }
    assert_eq!(output(&["bench", "--only", "no such kernel"]).status.code(), Some(2));
}
