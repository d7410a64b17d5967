//! The binary killed, or failed by its disk, at operations on its files; the run then resumes and ends as if nothing had happened.
//!
//! The usual tests take some operations of each kind and a few random kills. What takes long is `ignored`:
//! `cargo test -p moelab-native --test crash -- --ignored` kills at every operation in both ways and fails every operation in four,
//! and makes as many random kills as `MOELAB_KILLS` says (200 unless it is set). With `MOELAB_STRIDE=N` it takes every N-th operation, each way of
//! failing from another one on. The operations are injected by `moelab_native::fault`.
//!
//! Long because every kind of operation is failed and killed by the same few helpers.

#[path = "../../tests/helpers/log.rs"]
mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs};

use log::{current, without_time};
use moelab::run::arrays::{ArrayKind, Layout};
use moelab::run::records::Rewinds;
use moelab::run::series::RecordKind;
use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Four updates of a tiny model with dropout, two checkpoints, an evaluation after every update.
const TINY: &[&str] = &[
    "train.updates=4",
    "train.checkpoint.every=2",
    "train.checkpoint.keep=1",
    "train.evaluation.every=1",
    "train.evaluation.windows=2",
    "data.sequence_length=16",
    "data.batch=2",
    "model.width=32",
    "model.context=16",
    "model.depth.layers=1",
    "model.ffn.width=32",
    "model.dropout.residual=0.1",
    "sample.tokens=1",
];

/// What makes it a model that transformers has.
const MIXTRAL: &[&str] = &["model.embedding.scale=one", "model.positions.pairing=half_split", "model.ffn.gated=true"];

fn moelab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moelab"));
    command.current_dir(ROOT).args(arguments).stdin(Stdio::null());
    command
}

/// With these settings.
fn with(mut command: Command, settings: &[&str]) -> Command {
    for setting in settings {
        command.args(["--set", setting]);
    }
    command
}

fn train(out: &Path) -> Command {
    let mut command = moelab(&["train", "configs/quickstart.toml", "--out"]);
    command.arg(out);
    with(command, TINY)
}

/// Runs with a fault such as `kill:3`.
fn faulty(mut command: Command, fault: &str) -> Output {
    command.env("MOELAB_FAULT", fault).output().expect("the binary runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn done(mut command: Command) -> String {
    let output = command.output().expect("the binary runs");
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

/// What each operation of a command does that changes a file, in order.
fn operations(mut command: Command, folder: &Path) -> Vec<String> {
    let list = folder.join("operations");
    done({
        command.env("MOELAB_FAULT_LOG", &list);
        command
    });
    let text = fs::read_to_string(&list).expect("a debug build lists its operations");
    fs::remove_file(list).unwrap();
    text.lines().map(str::to_string).collect()
}

fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        files.extend(if path.is_dir() { self::files(&path) } else { BTreeSet::from([path]) });
    }
    files
}

/// The array records of the run as it stands, and those that are damaged.
fn current_records(run: &Path) -> Vec<u8> {
    let layout = Layout::from_json(&fs::read(run.join("series.json")).unwrap()).unwrap();
    let bytes = fs::read(run.join("series.bin")).unwrap();
    let records: Vec<&[u8]> = bytes.chunks(layout.record_bytes()).collect();
    let mut rewinds = Rewinds::default();
    for (position, record) in (0..).zip(&records) {
        match layout.head(record).map(|head| (head.kind, head.update)) {
            Some((ArrayKind::Of(RecordKind::Update), update)) => rewinds.note_update(position, update),
            Some((ArrayKind::Rewound, update)) => rewinds.note_rewound(position, update),
            _ => {}
        }
    }
    let rewinds = rewinds.finish();
    let is_current = |(position, record): &(u64, &[u8])| {
        layout.head(record).is_none_or(|head| head.kind != ArrayKind::Rewound && rewinds.keeps(*position, head.update))
    };
    (0..).zip(records).filter(is_current).flat_map(|(_, record)| record.to_vec()).collect()
}

/// What a run folder holds of the run as it stands, without clocks: every file by its path, and its content as far as no clock has a part in it.
fn content(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let log = without_time(&current(&fs::read_to_string(run.join("metrics.jsonl")).unwrap()).unwrap()).unwrap();
    let failed = log.contains("checkpoint_failed");
    let last = "checkpoints/update-00000004/";
    let mut content = BTreeMap::new();
    for path in files(run) {
        let name = path.strip_prefix(run).unwrap().to_str().unwrap().replace('\\', "/");
        let bytes = fs::read(&path).unwrap();
        let bytes = match name.as_str() {
            "metrics.jsonl" => log.lines().filter(|line| !line.contains("checkpoint_failed")).collect::<Vec<_>>().join("\n").into_bytes(),
            "series.bin" => current_records(run),
            "summary.json" => {
                let mut summary: BTreeMap<String, Value> = serde_json::from_slice(&bytes).unwrap();
                summary.retain(|key, _| !key.contains("second") && key != "name");
                serde_json::to_vec(&summary).unwrap()
            }
            // Speeds stand in them, and the sums follow.
            "report.md" | "loss.svg" | "loss.png" | "SHA256SUMS" | "run.lock" => Vec::new(),
            // Where a save failed, what the manifests say of the log and which others there are follows from it.
            name if failed && name.starts_with("checkpoints/") && (!name.starts_with(last) || name.ends_with("manifest.json")) => continue,
            _ => bytes,
        };
        content.insert(name, bytes);
    }
    content
}

/// The names of the files that differ.
fn differences(run: &Path, straight: &Path) -> Vec<String> {
    let (found, mut wanted) = (content(run), content(straight));
    if !found.contains_key("checkpoints/latest") {
        wanted.retain(|name, _| !name.starts_with("checkpoints/") || found.contains_key(name));
    }
    let names: BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
    names.into_iter().filter(|name| found.get(*name) != wanted.get(*name)).cloned().collect()
}

/// Goes on with a run, or starts it again where it had not begun.
fn go_on(run: &Path) -> String {
    let output = moelab(&["resume", run.to_str().unwrap()]).output().unwrap();
    let told = said(&output);
    if output.status.success() {
        return told;
    }
    let has_begun = run.join("metrics.jsonl").exists();
    assert!(!has_begun, "{told}");
    done(train(run))
}

fn folders() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let (straight, run) = (folder.path().join("straight"), folder.path().join("run"));
    (folder, straight, run)
}

/// Makes one operation fail, resumes, and compares.
fn survive(fault: &str, operation: &str, run: &Path, straight: &Path) {
    let output = faulty(train(run), fault);
    let is_error = ["eio", "enospc", "short", "full"].iter().any(|kind| fault.starts_with(kind));
    assert!(is_error || !output.status.success(), "{fault} ({operation}): the process was to be killed");
    go_on(run);
    assert_eq!(differences(run, straight), [""; 0], "{fault} ({operation})");
    fs::remove_dir_all(run).unwrap();
}

#[test]
fn killed_at_an_operation_of_each_kind_a_run_ends_as_if_nothing_had_happened() {
    let (folder, straight, run) = folders();
    let operations = operations(train(&straight), folder.path());
    assert!(operations.len() > 80, "{operations:?}");
    let at = |what: &str, which: usize| {
        let mut found = operations.iter().enumerate().filter(|(_, operation)| operation.contains(what));
        found.nth(which).unwrap_or_else(|| panic!("no operation of {what}: {operations:#?}")).0
    };
    let faults = [
        // A start that was cut short; the log's first line; a line of the log, torn; a checkpoint before its manifest and before
        // its name; before the pointer to the best; between the two steps of pruning; between report and summary.
        ("kill", at("rename", 1)),
        ("kill", at("metrics.jsonl.tmp-", 2)),
        ("torn", at("metrics.jsonl", 3)),
        // An array record, torn; one without its line; the rewind marker is written when it resumes.
        ("torn", at("series.bin", 3)),
        ("kill", at("series.bin", 4) + 1),
        ("torn", at("manifest.json", 0)),
        ("kill", at("manifest.json", 1) + 2),
        ("kill", at("best.tmp-", 1)),
        ("torn", at("removed-", 0)),
        ("kill", at("summary.json.tmp-", 2)),
        ("eio", at("optim.safetensors", 1)),
        ("short", at("model.safetensors", 2)),
        ("full", at("report.md.tmp-", 0)),
    ];
    for (kind, number) in faults {
        survive(&format!("{kind}:{number}"), &operations[number], &run, &straight);
    }
}

/// The ways to fail. A test each, so that they run side by side.
const KINDS: [&str; 6] = ["kill", "torn", "eio", "enospc", "short", "full"];

/// One way at every operation, or at every so many of them.
fn every_operation(kind: &str) {
    let (folder, straight, run) = folders();
    let operations = operations(train(&straight), folder.path());
    let stride = env::var("MOELAB_STRIDE").map_or(1, |stride| stride.parse().expect("MOELAB_STRIDE is a number"));
    let place = KINDS.iter().position(|known| *known == kind).expect("a known kind");
    let chosen: Vec<_> = operations.iter().enumerate().skip(place * stride / KINDS.len()).step_by(stride).collect();
    for (number, operation) in &chosen {
        survive(&format!("{kind}:{number}"), operation, &run, &straight);
    }
    println!("{kind}: {} of {} operations", chosen.len(), operations.len());
}

#[test]
#[ignore = "ten minutes: a kill at every operation"]
fn killed_at_every_operation() {
    every_operation("kill");
}

#[test]
#[ignore = "ten minutes: a kill that leaves half a write, at every operation"]
fn killed_within_every_operation() {
    every_operation("torn");
}

#[test]
#[ignore = "ten minutes: an I/O error at every operation"]
fn an_error_at_every_operation() {
    every_operation("eio");
}

#[test]
#[ignore = "ten minutes: no space for every operation once"]
fn no_space_once_at_every_operation() {
    every_operation("enospc");
}

#[test]
#[ignore = "ten minutes: every write falls short once"]
fn a_short_write_at_every_operation() {
    every_operation("short");
}

#[test]
#[ignore = "ten minutes: a disk that is full from every operation on"]
fn a_full_disk_from_every_operation_on() {
    every_operation("full");
}

/// Kills a run at random moments and resumes it, over and over, until it is done; then once more from a new start.
fn random_kills(kills: usize, per_run: usize) {
    let (_folder, straight, run) = folders();
    let begun = Instant::now();
    done(train(&straight));
    let duration = begun.elapsed();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut fraction = || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 40) as f64 / f64::from(1 << 24)
    };
    let mut killed = 0;
    while killed < kills {
        for _ in 0..per_run.min(kills - killed) {
            let mut command = if run.join("metrics.jsonl").exists() { moelab(&["resume", run.to_str().unwrap()]) } else { train(&run) };
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            // The larger part of a short run is its start, so every second kill waits for the next line of the log.
            if fraction() < 0.5 {
                sleep(duration.mul_f64(fraction()));
            } else {
                let length = || fs::metadata(run.join("metrics.jsonl")).map_or(0, |data| data.len());
                let before = length();
                while length() == before && child.try_wait().unwrap().is_none() {
                    sleep(Duration::from_micros(200));
                }
                sleep(duration.mul_f64(0.1 * fraction()));
            }
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
        }
        go_on(&run);
        assert_eq!(differences(&run, &straight), [""; 0], "after {killed} kills");
        fs::remove_dir_all(&run).unwrap();
    }
}

#[test]
fn killed_at_random_a_run_ends_as_if_nothing_had_happened() {
    random_kills(6, 3);
}

#[test]
#[ignore = "several minutes: MOELAB_KILLS random kills, 200 unless it is set"]
fn killed_at_random_many_times_a_run_ends_as_if_nothing_had_happened() {
    random_kills(std::env::var("MOELAB_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(200), 4);
}

/// Exports and imports are there whole or not at all, and leave nothing beside them once they are made again.
#[test]
fn an_export_and_an_import_that_are_killed_can_be_made_again() {
    let (folder, straight, run) = folders();
    done(with(train(&straight), MIXTRAL));
    let [model, whole, imported] = ["model", "whole", "imported"].map(|name| folder.path().join(name));
    let export = |to: &Path| moelab(&["export", straight.to_str().unwrap(), to.to_str().unwrap()]);
    let exporting = operations(export(&whole), folder.path());
    for (number, operation) in exporting.iter().enumerate() {
        for kind in ["kill", "torn", "eio", "short"] {
            let output = faulty(export(&model), &format!("{kind}:{number}"));
            assert!(!output.status.success(), "{kind}:{number} ({}): {}", operation, said(&output));
            if !model.exists() {
                done(export(&model));
            }
            let contents = |folder: &Path| {
                files(folder)
                    .iter()
                    .map(|path| (path.strip_prefix(folder).unwrap().to_owned(), fs::read(path).unwrap()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(contents(&model), contents(&whole), "{kind}:{number} ({})", operation);
            fs::remove_dir_all(&model).unwrap();
            let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left.len(), 2, "{kind}:{number} ({}): {left:?}", operation);
        }
    }
    let import = |to: &Path| moelab(&["import", whole.to_str().unwrap(), "--out", to.to_str().unwrap()]);
    let importing = operations(import(&imported), folder.path());
    let at = |what: &str| importing.iter().position(|operation| operation.contains(what)).unwrap();
    for number in [at("tokenizer.json"), at("model.safetensors"), importing.len() - 3] {
        faulty(import(&run), &format!("kill:{number}"));
        // Nothing trains from random weights: there are the imported ones, or there is no run.
        let eval = moelab(&["resume", run.to_str().unwrap()]);
        if !run.join("checkpoints/update-00000000").exists() {
            let output = faulty(eval, "");
            assert!(!output.status.success() && said(&output).contains("Give the command again"), "{}", said(&output));
        }
        done(import(&run));
        let names = |run: &Path| files(run).iter().map(|path| path.strip_prefix(run).unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&run), names(&imported), "kill:{number} ({})", importing[number]);
        let weights = "checkpoints/update-00000000/model.safetensors";
        assert_eq!(fs::read(run.join(weights)).unwrap(), fs::read(imported.join(weights)).unwrap());
        fs::remove_dir_all(&run).unwrap();
    }
}

/// A run after any fault at the cache reads what a run without one reads, and the cache is then as that run's.
#[test]
fn a_cache_whose_writer_is_killed_or_fails_is_made_again() {
    let (folder, straight, run) = folders();
    let [text, whole, cache] = ["words.txt", "whole", "cache"].map(|name| folder.path().join(name));
    fs::write(&text, (0..40).map(|n| format!("Document {n} is short, and so is number {}.\n\n", n * n)).collect::<String>()).unwrap();
    let paths = format!("data.paths=[{text:?}]");
    let read = ["data.kind=text", &paths, "data.tokenizer.kind=bpe", "data.tokenizer.vocabulary=280", "train.updates=1"];
    let command = |out: &Path, cache: &Path| {
        let mut command = with(train(out), &read);
        command.arg("--cache").arg(cache);
        command
    };
    let all = operations(command(&straight, &whole), folder.path());
    let of_cache: Vec<usize> = (0..all.len()).filter(|number| all[*number].contains("whole")).collect();
    assert!(of_cache.len() >= 8, "two entries, each created, written, synced and renamed: {all:?}");
    let entries = |cache: &Path| {
        files(cache).iter().map(|path| (path.file_name().unwrap().to_owned(), fs::read(path).unwrap())).collect::<BTreeMap<_, _>>()
    };
    for number in of_cache {
        for kind in ["kill", "full"] {
            let output = faulty(command(&run, &cache), &format!("{kind}:{number}"));
            if output.status.success() {
                // A failing cache is reported, and the run continues without it.
                assert!(said(&output).contains("warning: the cache"), "{kind}:{number} ({}): {}", all[number], said(&output));
                fs::remove_dir_all(&run).unwrap();
            }
            done(command(&run, &cache));
            assert_eq!(differences(&run, &straight), [""; 0], "{kind}:{number} ({})", all[number]);
            assert_eq!(entries(&cache), entries(&whole), "{kind}:{number} ({})", all[number]);
            fs::remove_dir_all(&run).unwrap();
            fs::remove_dir_all(&cache).unwrap();
        }
    }
}

#[test]
fn a_folder_that_is_moved_away_ends_the_run() {
    let (folder, _, run) = folders();
    let mut command = with(train(&run), &["train.updates=100000"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !run.join("checkpoints/latest").exists() {
        assert!(Instant::now() < deadline, "no checkpoint");
        sleep(Duration::from_millis(5));
    }
    fs::rename(&run, folder.path().join("elsewhere")).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success() && said(&output).contains("removed, moved or replaced"), "{}", said(&output));
    assert!(!run.exists(), "the run continues in a folder that it created");
}

#[test]
fn a_run_that_never_started_leaves_nothing() {
    let (folder, _, _) = folders();
    let run = folder.path().join("runs/run");
    let output = with(train(&run), &["model.vocabulary=1048576", "model.width=2048", "model.attention.heads=16"]).output().unwrap();
    let told = said(&output);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("not on the batch") || told.contains("smaller vocabulary"), "{told}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "{told}");
}

#[test]
fn damage_is_told_and_repaired_or_refused() {
    let (_folder, straight, run) = folders();
    done(train(&straight));
    let copy = || {
        _ = fs::remove_dir_all(&run);
        for path in files(&straight) {
            let to = run.join(path.strip_prefix(&straight).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(path, to).unwrap();
        }
    };
    let flip = |name: &str, at: usize| {
        let mut bytes = fs::read(run.join(name)).unwrap();
        bytes[at] ^= 1;
        fs::write(run.join(name), bytes).unwrap();
    };
    let refused = |told: &str| {
        let output = moelab(&["resume", run.to_str().unwrap()]).output().unwrap();
        assert!(!output.status.success() && said(&output).contains(told), "wanted {told}: {}", said(&output));
    };
    let log = fs::read_to_string(straight.join("metrics.jsonl")).unwrap();
    let second = log.find('\n').unwrap() + 30;

    // All that can be repaired, at once.
    copy();
    flip("metrics.jsonl", second);
    fs::write(run.join("checkpoints/best"), "").unwrap();
    flip("checkpoints/latest", 14);
    flip("report.md", 3);
    flip("README.md", 3);
    // Of the second record.
    let layout = Layout::from_json(&fs::read(straight.join("series.json")).unwrap()).unwrap();
    flip("series.bin", layout.record_bytes() + 20);
    let told = done(moelab(&["resume", run.to_str().unwrap()]));
    for wanted in
        ["metrics.jsonl:2: dropped", "checkpoints/best", "checkpoints/latest", "report.md: it is not as the run wrote it", "README.md:"]
    {
        assert!(told.contains(wanted), "wanted {wanted}: {told}");
    }
    assert!(told.contains("series.bin: 1 records are damaged") && told.contains("series.bin: the arrays of 1 lines"), "{told}");
    assert_eq!(differences(&run, &straight), ["metrics.jsonl", "series.bin"], "the line that is lost is an incident");
    assert!(fs::read_to_string(run.join("metrics.jsonl")).unwrap().contains("log_damaged"));

    // Whole lines are gone; the log of another run; its first line alone is of another.
    copy();
    fs::write(run.join("metrics.jsonl"), log.split_inclusive('\n').take(3).collect::<String>()).unwrap();
    refused("`metrics.jsonl` was truncated or belongs to another run");
    fs::write(run.join("metrics.jsonl"), "").unwrap();
    refused("`metrics.jsonl` was truncated or belongs to another run");
    // The way on that the message tells.
    fs::remove_file(run.join("metrics.jsonl")).unwrap();
    let told = done(moelab(&["resume", run.to_str().unwrap()]));
    assert!(told.contains("metrics.jsonl was missing"), "{told}");

    for file in ["config.effective.toml", "tokenizer.json", "series.json"] {
        copy();
        flip(file, 400);
        refused(&format!("`{file}` is not as the run wrote it"));
        for command in ["eval", "sample"] {
            let output = moelab(&[command, run.to_str().unwrap()]).output().unwrap();
            assert!(!output.status.success() && said(&output).contains(file), "{command}: {}", said(&output));
        }
    }
}
