//! The `moelab` binary on sequences that do not fill their batches, and on a checkpoint whose numbers no training leaves.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use moelab::lab::reader::Reader;
use moelab::run::digest::sha256_hex;
use moelab::run::series::{RecordKind, Series};
use moelab_native::store::Directory;
use serde_json::Value;

/// Five sequences of 16 bytes to train on, three to validate on.
const TEXT: &str = "under river stone river fall fall fall nine blue salt nine green stone under the old bridge\n\n\
                    river fall salt nine nine salt fall stone under blue green\n";

/// Rates of zero, so that every evaluation is of the same weights.
const CONFIG: &str = r#"
[model]
width = 64
context = 16
depth.layers = 2
attention.heads = 2
ffn.width = 64
router = { experts = 4, top_k = 2, noise = 0.0, selection_bias = "loss_free", selection_bias_rate = 0.01 }
balance.kind = "none"
dropout = { embedding = 0.0, attention = 0.0, residual = 0.0, ffn = 0.0, head = 0.0 }
[data]
kind = "text"
paths = ["text.txt"]
sequence_length = 16
shuffle = false
drop_last = false
split = { rule = "last", fraction = 0.5 }
[train]
updates = 1
evaluation.every = 0
[optimizer]
clip_norm = 0.0
adamw.lr = 0.0
muon.lr = 0.0
[schedule]
kind = "constant"
warmup = 0
[sample]
prompts = []
"#;

fn moelab(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moelab"));
    command.current_dir(folder).args(arguments).stdin(Stdio::null()).output().expect("the binary runs")
}

fn train(folder: &Path, run: &str, sets: &[&str]) {
    let mut arguments = vec!["train", "config.toml", "--out", run];
    sets.iter().for_each(|set| arguments.extend(["--set", *set]));
    let output = moelab(folder, &arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("text.txt"), TEXT).unwrap();
    fs::write(folder.path().join("config.toml"), CONFIG).unwrap();
    folder
}

/// The header of a safetensors file, and where its data begin.
fn header(bytes: &[u8]) -> (Value, usize) {
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (serde_json::from_slice(&bytes[8..8 + length]).unwrap(), 8 + length)
}

/// The bytes of the first tensor whose name starts so.
fn find<'a>(bytes: &'a mut [u8], name: &str) -> &'a mut [u8] {
    let (header, data) = header(bytes);
    let tensors = header.as_object().unwrap();
    let (_, found) = tensors.iter().find(|(found, _)| found.contains(name)).unwrap_or_else(|| panic!("no {name} in {header}"));
    let [start, end] = [0, 1].map(|i| data + found["data_offsets"][i].as_u64().unwrap() as usize);
    &mut bytes[start..end]
}

/// All numbers of a line's key, in order.
fn numbers(line: &Value, key: &str) -> Vec<f64> {
    match &line[key] {
        Value::Array(values) => values.iter().flat_map(|value| numbers(&serde_json::json!({ "": value }), "")).collect(),
        value => vec![value.as_f64().unwrap_or_else(|| panic!("{key} of {line}"))],
    }
}

/// One update over the five sequences and an evaluation over the three.
struct Divided {
    what: String,
    update: Value,
    eval: Value,
    selection_bias: Vec<u8>,
}

fn divided(folder: &Path, batch: u32, micro_batches: u32, weighting: &str) -> Divided {
    let what = format!("{batch}x{micro_batches}-{weighting}");
    let sets = [format!("data.batch={batch}"), format!("train.micro_batches={micro_batches}"), format!("train.weighting={weighting}")];
    train(folder, &what, &sets.each_ref().map(String::as_str));
    let run = folder.join(&what);
    let lines = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let store = Directory::read_only(&run).unwrap();
    let reader = Reader::open(&store).unwrap();
    let line = |kind: &str| {
        let mut line = lines.iter().find(|line| line["kind"] == kind).unwrap_or_else(|| panic!("no {kind}")).clone();
        for series in Series::stored().filter(|series| series.is_array() && (series.record == RecordKind::Update) == (kind == "update")) {
            let block = reader.read(series, 1..=1, 1).unwrap();
            // Text has no domains.
            assert_eq!(block.buckets.is_empty(), series.name == "domain_nmi", "{}", series.name);
            line[series.name] = block.buckets.into_iter().next().map(|bucket| bucket.mean).into();
        }
        line
    };
    let mut state = fs::read(run.join("checkpoints/update-00000001/optim.safetensors")).unwrap();
    let selection_bias = find(&mut state, "selection_bias").to_vec();
    Divided { update: line("update"), eval: line("eval"), what, selection_bias }
}

/// However full its batches are, and however an update is divided into micro-batches: equal losses, gradients, routing, bias
/// and token counts.
#[test]
fn no_number_depends_on_how_sequences_are_divided_into_batches() {
    let folder = folder();
    let whole = divided(folder.path(), 5, 1, "token");
    assert_eq!(whole.update["tokens"], 5 * 16);
    assert_eq!(whole.eval["targets"], 3 * 16);
    let assert_near = |other: &Divided, kind: &str, keys: &[&str]| {
        let of = |divided: &Divided| if kind == "update" { divided.update.clone() } else { divided.eval.clone() };
        for key in keys {
            let (found, wanted) = (numbers(&of(other), key), numbers(&of(&whole), key));
            let is_near = found.len() == wanted.len() && found.iter().zip(&wanted).all(|(f, w)| (f - w).abs() <= 1e-5 * w.abs().max(1e-3));
            assert!(is_near, "{key} of the {kind} of {}: {found:?}, wanted {wanted:?}", other.what);
        }
    };
    for (batch, micro_batches) in [(2, 3), (3, 2), (8, 1), (32, 1)] {
        let other = divided(folder.path(), batch, micro_batches, "token");
        let keys = [
            "tokens",
            "train_ce",
            "grad_norm",
            "accuracy",
            "z",
            "expert_load",
            "router_entropy",
            "router_z",
            "router_grad_norm",
            "balance_global_batch",
        ];
        assert_near(&other, "update", &keys);
        assert_near(&other, "eval", &["val_ce", "accuracy", "targets", "expert_load", "router_entropy", "router_z", "gate_mass"]);
        assert_eq!(other.selection_bias, whole.selection_bias, "{}", other.what);
        if micro_batches == 1 {
            assert_near(&other, "update", &["balance", "balance_sequence", "balance_hf_mixtral"]);
        }
    }
    // The published rule: a sequence alone in its micro-batch counts double.
    let published = divided(folder.path(), 2, 3, "micro_batch");
    assert_near(&published, "update", &["tokens", "accuracy", "expert_load"]);
    for key in ["train_ce", "grad_norm"] {
        let (found, wanted) = (numbers(&published.update, key)[0], numbers(&whole.update, key)[0]);
        assert!((found / wanted - 1.0).abs() > 1e-4, "{key}: {found} by micro-batches, {wanted} by tokens");
    }
}

/// Sets the first value of a tensor in a checkpoint, and what vouches for it.
fn edit(checkpoint: &Path, edits: &[(&str, f32)]) {
    let file = checkpoint.join("optim.safetensors");
    let mut bytes = fs::read(&file).unwrap();
    let before = sha256_hex(&bytes);
    for (name, value) in edits {
        find(&mut bytes, name)[..4].copy_from_slice(&value.to_le_bytes());
    }
    fs::write(&file, &bytes).unwrap();
    let manifest = checkpoint.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace(&before, &sha256_hex(&bytes))).unwrap();
}

/// A mean of squares below zero is refused; what only an update shows ends that update's claim to be one.
#[test]
fn what_a_checkpoint_makes_of_a_finite_gradient_is_looked_at() {
    let folder = folder();
    let sets = ["train.updates=2", "train.micro_batches=1", "data.batch=2", "train.checkpoint.every=1", "optimizer.adamw.lr=0.01"];
    train(folder.path(), "run", &sets);
    let checkpoints = folder.path().join("run/checkpoints");
    edit(&checkpoints.join("update-00000002"), &[("adamw.v.embedding", -1.0)]);
    // A mean without a mean of squares: the step overflows, whatever the gradient is.
    edit(&checkpoints.join("update-00000001"), &[("adamw.m.embedding", 3e38), ("adamw.v.embedding", 0.0)]);
    let output = moelab(folder.path(), &["resume", "run"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("adamw.v.embedding") && said.contains("expected 0 or more"), "{said}");
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("its gradient is finite, the resulting parameters or moments are not"), "{said}");
    assert!(said.contains("the resulting parameters or moments are not"), "{said}");
    assert!(!said.contains("are unchanged"), "{said}");
}
