//! Runs on another thread, driven by serialised messages and nothing else.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

use moelab::{
    data::{Corpus, prepare::NoFiles, shared::SharedData, tokenizer::Tokenizer},
    gpu::{AdapterChoice, Device},
    lab::{
        host::{Clock, DeviceFuture, Environment, Host},
        memory::Memory,
        store::Store,
    },
    run::{
        Config,
        protocol::{Command, Problem, SessionEvent},
    },
};
use moelab_native::{
    machine::{Machine, Resources},
    runner::Runner,
    store::Directory,
};
use serde_json::{Value, json};

const RUN: &str = r#"
[model]
width = 32
context = 16
depth.layers = 1
attention.heads = 2
ffn.width = 16
router = { experts = 2, top_k = 1, noise = 0.1 }
[data]
sequence_length = 16
batch = 2
[train]
updates = 20
evaluation = { every = 3, windows = 4 }
checkpoint = { every = 5, keep = 1 }
[sample]
prompts = ["ab"]
tokens = 3
"#;

/// The embedded language, folders in memory, and one device for all runs.
#[derive(Default)]
struct Files {
    device: Rc<OnceCell<Rc<Device>>>,
    stores: HashMap<String, Memory>,
    data: SharedData,
}

impl Environment for Files {
    fn device(&mut self) -> DeviceFuture {
        let kept = self.device.clone();
        Box::pin(async move {
            if kept.get().is_none() {
                let device = Device::open(&AdapterChoice::default()).await?;
                return Ok(kept.get_or_init(|| Rc::new(device)).clone());
            }
            Ok(kept.get().expect("it was looked at").clone())
        })
    }

    fn corpus(&mut self, config: Config, own: Option<Tokenizer>) -> Result<(Config, Corpus), Problem> {
        self.data.corpus(config, own, &NoFiles).map_err(|error| Problem::new(error.to_string()))
    }

    fn store(&mut self, run: &str) -> Result<Box<dyn Store>, Problem> {
        assert_ne!(run, "broken", "this run breaks its thread");
        Ok(Box::new(self.stores.entry(run.to_string()).or_default().clone()))
    }

    fn clock(&self) -> Clock {
        let start = Instant::now();
        Rc::new(move || start.elapsed().as_secs_f64())
    }

    fn tag(&self) -> String {
        "test".into()
    }
}

/// The other end: text in, text out.
struct Wire(Runner);

impl Wire {
    fn send(&self, message: Value) {
        self.0.send(serde_json::from_str::<Command>(&message.to_string()).unwrap());
    }

    /// Messages until one of this kind, and that one.
    fn until(&self, kind: &str) -> (Vec<Value>, Value) {
        let mut before = Vec::new();
        loop {
            let event = self.0.wait(Duration::from_secs(300)).unwrap_or_else(|| panic!("no {kind} after {before:?}"));
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<SessionEvent>(&text).unwrap(), event);
            let message: Value = serde_json::from_str(&text).unwrap();
            assert!(kind == "failed" || message["event"] != "failed", "{message}");
            if message["event"] == kind {
                return (before, message);
            }
            before.push(message);
        }
    }
}

#[test]
fn a_run_on_another_thread_is_driven_by_text_alone() {
    let wire = Wire(Runner::spawn(|| Host::new(Files::default()), || ()).unwrap());
    wire.send(json!({"command": "start", "run": "undisturbed", "config": RUN}));
    let (opening, opened) = wire.until("opened");
    let phases: Vec<&Value> = opening.iter().filter(|message| message["event"] == "opening").map(|message| &message["phase"]).collect();
    let first = |phase: &str| phases.iter().position(|found| **found == *phase).unwrap_or_else(|| panic!("{phase} in {phases:?}"));
    let order = ["device", "data", "kernels", "model", "baselines", "folder"].map(first);
    assert!(order.is_sorted(), "{phases:?}");
    let kernels = opening.iter().filter(|message| message["phase"] == "kernels");
    assert!(kernels.clone().all(|message| message["detail"].is_string()), "{opening:?}");
    // Several are compiled at a time, and may be finished at once.
    let done: Vec<u64> = kernels.clone().map(|message| message["done"].as_u64().unwrap()).collect();
    assert!(done[0] == 0 && done.is_sorted_by(|a, b| a < b), "{done:?}");
    assert!(kernels.clone().all(|message| message["done"].as_u64() < message["total"].as_u64()), "{opening:?}");
    assert_eq!((&opened["update"], &opened["updates"]), (&json!(0), &json!(20)));
    let (events, undisturbed) = wire.until("ended");
    assert!(undisturbed["exit"] == "completed" && undisturbed["weights_sha256"].is_string(), "{undisturbed}");
    assert!(!events.iter().any(|message| message["event"] == "series"), "nothing was subscribed to");

    wire.send(json!({"command": "subscribe", "series": ["train_ce", "expert_load"]}));
    wire.send(json!({"command": "start", "run": "same", "config": RUN}));
    wire.send(json!({"command": "step"}));
    let (events, paused) = wire.until("paused");
    let compiles = |message: &&Value| message["phase"] == "kernels" && message["detail"].is_string();
    assert_eq!(events.iter().find(compiles), None, "the kernels of the run before are those of this one");
    // The run may be some updates ahead by the time that `step` arrives: each of them is in one block.
    let blocks: Vec<&Value> = events.iter().filter(|message| message["event"] == "series").collect();
    let updates: Vec<u64> =
        blocks.iter().flat_map(|block| block["updates"].as_array().unwrap()).map(|update| update.as_u64().unwrap()).collect();
    assert_eq!(updates, (1..=paused["update"].as_u64().unwrap()).collect::<Vec<_>>(), "{blocks:?}");
    let [ce, load] = [0, 1].map(|column| blocks[0]["columns"][column]["values"].as_array().unwrap());
    let rows = blocks[0]["updates"].as_array().unwrap().len();
    assert!(ce.len() == rows && load.len() == 2 * rows && ce[0].as_f64().unwrap() > 1.0, "{blocks:?}");
    wire.send(json!({"command": "continue"}));
    wire.send(json!({"command": "sample", "prompt": "The ", "tokens": 2}));
    let (_, sampled) = wire.until("sampled");
    assert!(sampled["requested"] == true && sampled["record"]["text"].is_string(), "{sampled}");
    wire.send(json!({"command": "pause"}));
    let update = wire.until("paused").1["update"].as_u64().unwrap();
    wire.send(json!({"command": "step"}));
    assert_eq!(wire.until("paused").1["update"], update + 1);
    wire.send(json!({"command": "stop"}));
    let (_, stopped) = wire.until("ended");
    assert_eq!((&stopped["exit"], &stopped["updates"]), (&json!("interrupted"), &json!(update + 1)));

    wire.send(json!({"command": "resume", "run": "same"}));
    let (_, ended) = wire.until("ended");
    assert_eq!(ended["weights_sha256"], undisturbed["weights_sha256"]);
    assert_eq!(ended["best_val_ce"], undisturbed["best_val_ce"]);

    wire.send(json!({"command": "start", "run": "other", "config": "[model]\nwidht = 3\n"}));
    let (_, failed) = wire.until("failed");
    assert!(failed["where"].as_str().unwrap().starts_with("config.toml:2:1") && failed["reason"] == "failed", "{failed}");
    wire.send(json!({"command": "start", "run": "broken", "config": RUN}));
    let (_, failed) = wire.until("failed");
    assert!(failed["what"].as_str().unwrap().contains("this run breaks its thread"), "{failed}");
}

/// Every file below a folder.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => drop(found.insert(path.clone(), fs::read(&path).unwrap())),
        }
    }
    found
}

#[test]
fn a_run_is_opened_for_reading_and_its_files_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let (root, path) = (folder.path().to_path_buf(), folder.path().join("run"));
    let resources = Resources { adapter: AdapterChoice::default(), cache: root.join("cache") };
    let wire = Wire(Runner::spawn(move || Host::new(Machine::of_study(resources.clone(), root.clone())), || ()).unwrap());
    // A rate that rises too far makes the last evaluation worse than the best.
    let sets = ["train.updates=7", "optimizer.adamw.lr=2", "optimizer.muon.lr=2", "schedule.warmup=7", "train.evaluation.every=2"];
    wire.send(json!({"command": "start", "run": "run", "config": RUN, "sets": sets}));
    let (_, sampled) = wire.until("sampled");
    let (_, ended) = wire.until("ended");
    assert_ne!(ended["best_val_ce"], ended["final_val_ce"]);

    let lock = Directory::open(&path).expect("the trainer has ended: this process writes the run from now on");
    let before = files(&path);
    wire.send(json!({"command": "inspect", "run": "run", "checkpoint": "newest"}));
    wire.send(json!({"command": "evaluate"}));
    wire.send(json!({"command": "sample", "prompt": "ab"}));
    let (opening, inspected) = wire.until("inspected");
    assert_eq!((&inspected["update"], &inspected["weights_sha256"]), (&json!(7), &ended["weights_sha256"]));
    assert!(opening.iter().all(|message| message["event"] == "opening" || message["event"] == "warning"), "{opening:?}");
    let (_, mut evaluated) = wire.until("evaluated");
    let log = String::from_utf8(before[&path.join("metrics.jsonl")].clone()).unwrap();
    let mut lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let last = lines.rfind(|line| line["kind"] == "eval").unwrap();
    for series in ["update", "val_ce", "accuracy", "targets"] {
        assert_eq!(evaluated["record"][series].take(), last[series], "{series}");
    }
    let again = wire.until("sampled").1;
    assert_eq!(again["record"]["text"], sampled["record"]["text"], "the same prompt, weights and random numbers");
    wire.send(json!({"command": "step"}));
    assert_eq!(wire.until("rejected").1["command"], "step");
    wire.send(json!({"command": "stop"}));
    wire.until("closed");

    // The best checkpoint, on other text than the run's.
    let other = folder.path().join("other.txt");
    fs::write(&other, "the river and the old mill\n\n".repeat(9)).unwrap();
    let mut best = Vec::new();
    for data in [Value::Null, json!(other)] {
        wire.send(json!({"command": "inspect", "run": "run", "data": data}));
        wire.send(json!({"command": "evaluate"}));
        assert_eq!(wire.until("inspected").1["update"], ended["best_update"]);
        best.push(wire.until("evaluated").1["record"]["val_ce"].take());
        wire.send(json!({"command": "stop"}));
        wire.until("closed");
    }
    assert!(best[0] == ended["best_val_ce"] && best[1] != best[0], "{best:?}");
    assert_eq!(files(&path), before);
    drop(lock);

    wire.send(json!({"command": "inspect", "run": "none"}));
    wire.until("failed");
    assert!(!folder.path().join("none").exists());
}
