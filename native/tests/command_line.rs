//! The `moelab` binary from outside: exit codes, JSON, equal bits, and a run that is killed and resumed.

#[path = "../../tests/helpers/log.rs"]
mod log;
#[path = "../../tests/helpers/skipped.rs"]
mod skipped;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use log::{current, without_time};
use serde_json::Value;
use skipped::skipped;

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

const README: &str = include_str!("../../README.md");

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

#[test]
fn the_ladder_times_each_size_and_draws_it() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("ladder.svg");
    let said = stdout(&[
        "bench",
        "ladder",
        "--config",
        "configs/quickstart.toml",
        "--only",
        "layers",
        "--rounds",
        "1",
        "--json",
        "--svg",
        svg.to_str().unwrap(),
    ]);
    let ladder: Value = serde_json::from_str(said.trim()).unwrap();
    let rungs = ladder["rungs"].as_array().unwrap();
    let sizes: Vec<u64> = rungs.iter().map(|rung| rung["size"].as_u64().unwrap()).collect();
    assert_eq!((ladder["size"].as_str(), sizes), (Some("layers"), vec![1, 2, 4, 8]));
    let ms: Vec<f64> = rungs.iter().map(|rung| rung["ms"].as_f64().unwrap()).collect();
    assert!(ms[0] > 0.0 && ms[3] > ms[0], "{said}");
    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("layers \u{d7} 8"), "{drawn}");
}

/// Changes are tried and told; a table that was measured on this machine trains, and one of another is not taken.
#[test]
fn kernels_are_tuned_and_a_table_of_another_machine_is_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let tuned = folder.path().join("tuned.toml");
    let config = "configs/quickstart.toml";
    let arguments = ["tune", config, "--reduced", "--only", "without adamw", "--rounds", "3", "--json", "--out", tuned.to_str().unwrap()];
    let said = stdout(&arguments);
    let lines: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let (found, trials) = lines.split_last().unwrap();
    assert!(!trials.is_empty(), "{said}");
    for trial in trials {
        assert!(trial["change"]["without"].as_str().is_some_and(|module| module.starts_with("adamw_")), "{trial}");
        assert!(["before_ms", "after_ms"].iter().all(|ms| trial[ms].as_f64().is_some_and(|ms| ms > 0.0)), "{trial}");
    }
    // Which is faster may be chance here; what is written is what was found.
    assert!(!tuned.exists() || !found["kernels"]["without"].as_array().unwrap().is_empty(), "{said}");
    let of = |key: &str| format!("kernels.{key}={}", found["kernels"][key]);
    let run = |name: &str, shaders: &str| {
        let out = folder.path().join(name);
        let sets = [of("adapter"), of("driver"), shaders.into(), "kernels.without=[\"adamw_cpu\"]".into()];
        let mut arguments = vec!["train", config, "--reduced", "--set", "train.updates=2", "--out", out.to_str().unwrap()];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        let output = output(&arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    };
    let here = run("here", &of("shaders"));
    assert!(!here.contains("fixed choice of kernels"), "{here}");
    let elsewhere = run("elsewhere", "kernels.shaders=\"of another release\"");
    assert!(elsewhere.contains("`kernels` was measured with shaders `of another release`"), "{elsewhere}");
}

/// The commands that a help text lists, but for `help` itself.
fn listed(arguments: &[&str]) -> Vec<String> {
    let help = stdout(&[arguments, &["--help"]].concat());
    let list = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list of commands").to_string();
    let names = list.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next().map(str::to_string));
    names.filter(|name| !name.is_empty() && name != "help").collect()
}

/// Every command has its place in the table of the README, and what the README writes of commands and options is there.
#[test]
fn the_readme_names_every_command_and_no_option_that_there_is_not() {
    let rows: Vec<&str> = README.lines().filter_map(|line| line.strip_prefix("| `moelab ")?.split('`').next()).collect();
    let first = |row: &str| row.split(' ').next().unwrap_or_default().to_string();
    let mut named: Vec<String> = rows.iter().map(|row| first(row)).filter(|name| name != "suite").collect();
    let mut of_suite: Vec<&str> = Vec::new();
    for row in rows.iter().filter_map(|row| row.strip_prefix("suite ")) {
        of_suite.extend(row.split(' ').next().unwrap_or_default().split("\\|"));
    }
    let mut commands = listed(&[]);
    commands.retain(|name| name != "suite");
    commands.sort();
    named.sort();
    assert_eq!(named, commands);
    let mut verbs = listed(&["suite"]);
    verbs.sort();
    of_suite.sort_unstable();
    assert_eq!(of_suite, verbs);

    let quoted = README.split('`').skip(1).step_by(2).filter_map(|code| code.strip_prefix("moelab "));
    let in_blocks = [include_str!("../../configs/README.md"), include_str!("../../configs/exp3/LR_RANGE.md")];
    let in_blocks: Vec<&str> = in_blocks.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("moelab ")).collect();
    assert!(in_blocks.len() >= 5, "{in_blocks:?}");
    for quoted in quoted.chain(in_blocks) {
        let words: Vec<&str> = quoted.split_whitespace().take_while(|word| *word != "#").collect();
        let command: Vec<&str> = match words[0] {
            "suite" => words[..2.min(words.len())].to_vec(),
            name => vec![name],
        };
        let command: Vec<&str> = command.iter().map(|word| word.split("\\|").next().unwrap_or_default()).collect();
        let help = stdout(&[&command[..], &["--help"]].concat());
        for option in words.iter().map(|word| word.trim_matches(['[', ']', '.'])).filter(|word| word.starts_with("--")) {
            assert!(help.contains(&format!("{option} ")) || help.contains(&format!("{option}\n")), "{option} of `moelab {quoted}`");
        }
    }
}

/// An adapter without tensor cores refuses f16 operands before anything is written, with what to set.
#[test]
fn operands_of_f16_are_refused_without_cooperative_matrices() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let set = ["--set", "train.precision=f16", "--set", "train.updates=1", "--out"];
    let output = output(&[&["train", "configs/quickstart.toml"], &set[..], &[run.to_str().unwrap()]].concat());
    if output.status.success() {
        skipped("this adapter has cooperative matrices");
        return;
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("cooperative matrices") && text.contains("Set it to \"f32\""), "{text}");
    assert!(!run.exists());
}

/// The README lists the exit codes that the program has.
#[test]
fn the_readme_lists_the_exit_codes() {
    let codes: Vec<&str> =
        include_str!("../src/exit.rs").lines().filter_map(|line| line.strip_prefix("//! | ")?.split(' ').next()).collect();
    let codes: Vec<&str> = codes.into_iter().filter(|code| code.parse::<u8>().is_ok()).collect();
    assert!(codes.len() >= 8, "{codes:?}");
    let listed = README.split("Exit codes: ").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a paragraph of exit codes");
    let numbers: Vec<&str> = listed.split(|c: char| !c.is_alphanumeric()).collect();
    assert!(codes.iter().all(|code| numbers.contains(code)), "{codes:?} in {listed}");
}

/// The study in the README is one, and with a base of the size of a test it is made by the command beside it.
#[test]
fn the_study_of_the_readme_runs() {
    let place = tempfile::tempdir().unwrap();
    let study = README.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the README has a study");
    fs::write(place.path().join("study.toml"), study).unwrap();
    let path = |name: &str| place.path().join(name).display().to_string();
    let base = fs::read_to_string(Path::new(ROOT).join("configs/quickstart.toml")).unwrap();
    fs::write(path("quickstart.toml"), base).unwrap();
    let (study, runs) = (path("study.toml"), path("runs"));
    let planned = stdout(&["suite", "plan", &study, "--out", &path("planned"), "--json"]);
    let plan: Vec<Value> = planned.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let arms: Vec<&str> = plan.iter().take(3).map(|run| run["arm"].as_str().unwrap()).collect();
    assert_eq!((arms, plan.len(), &plan[0]["updates"]), (vec!["control", "lower", "none"], 9, &100.into()));
    fs::write(path("quickstart.toml"), include_str!("../../tests/helpers/tiny.toml")).unwrap();
    stdout(&["suite", "run", &study, "--out", &runs, "--set", "repeats=1", "--set", "set=[\"train.updates=2\"]"]);
    let status = stdout(&["suite", "status", &study, "--out", &runs, "--set", "repeats=1", "--json"]);
    assert_eq!(status.matches(r#""status":{"ended":"completed"}"#).count(), 3, "{status}");
}

#[test]
fn adapters_are_listed_as_they_are_chosen() {
    let text = stdout(&["adapters"]);
    let records: Vec<Value> = stdout(&["adapters", "--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!records.is_empty() && records.len() == text.lines().count(), "{text}");
    for (index, (line, record)) in text.lines().zip(&records).enumerate() {
        let name = record["name"].as_str().unwrap();
        assert!(record["index"] == index && line.starts_with(&format!("index:{index}  {name}  (")), "{line} {record}");
    }
    let chosen = json(&["check", "configs/quickstart.toml", "--adapter", "index:0", "--json"]);
    assert_eq!(chosen["adapter"]["name"], records[0]["name"]);
}

#[test]
fn any_config_trains_at_the_reduced_size() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let config = "configs/exp8/baseline.toml";
    let trained = output(&["train", config, "--reduced", "--out", run.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&trained.stderr);
    assert!(trained.status.success() && told.contains("generating 1 text (sample.prompts)"), "{told}");
    let summary = summary(&run);
    assert_eq!((&summary["exit"], &summary["updates"]), (&"completed".into(), &10.into()), "{summary}");
    let effective: toml::Table = fs::read_to_string(run.join("config.effective.toml")).unwrap().parse().unwrap();
    assert_eq!(effective["data"]["embedded"].as_bool(), Some(true));
    let of = |sets: &[&str]| json(&[&["params", config, "--json"], sets].concat())["total"].as_u64().unwrap();
    assert!(100 * of(&["--reduced"]) < of(&[]), "{} against {}", of(&["--reduced"]), of(&[]));
}

/// What prints a text prints it as JSON, too, if that is asked for.
#[test]
fn a_listing_and_a_script_are_json_if_that_is_asked_for() {
    let listing = json(&["listing", "configs/quickstart.toml", "--json"]);
    let lines = listing["listing"].as_array().unwrap();
    let text = stdout(&["listing", "configs/quickstart.toml"]);
    assert!(lines.len() > 50 && lines.iter().zip(text.lines()).all(|(line, shown)| line == shown), "{listing}");
    let [live, slots] = ["live_bytes", "slot_bytes"].map(|key| listing[key].as_u64().unwrap());
    assert!(0 < live && live <= slots, "{live} of {slots} bytes in use at once");
    let (micro, update) = (&listing["dispatches"]["micro_batch"], &listing["dispatches"]["update"]);
    assert!(text.contains(&format!("{micro} dispatches per micro-batch, {update} per update")), "{text}");
    let script = json(&["suite", "emit", "configs/example/suite.toml", "--to", "slurm", "--json"]);
    assert!(script["script"].as_str().unwrap().starts_with("#!/bin/sh\n#SBATCH"), "{script}");
}
