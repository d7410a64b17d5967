//! A run on another thread, driven by serialised messages and nothing else.

use std::{
    cell::OnceCell,
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};

use moelab::{
    data::{Corpus, prepare::NoFiles, shared::SharedData, tokenizer::Tokenizer},
    gpu::{AdapterChoice, Device},
    lab::{
        host::{Clock, DeviceFuture, Environment},
        memory::Memory,
        store::Store,
    },
    run::{
        Config,
        protocol::{Command, Problem, SessionEvent},
    },
};
use moelab_native::runner::Runner;
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
    let wire = Wire(Runner::spawn(Files::default).unwrap());
    wire.send(json!({"command": "start", "run": "undisturbed", "config": RUN}));
    let (opening, opened) = wire.until("opened");
    let phases: Vec<&Value> = opening.iter().filter(|message| message["event"] == "opening").map(|message| &message["phase"]).collect();
    let first = |phase: &str| phases.iter().position(|found| **found == *phase).unwrap_or_else(|| panic!("{phase} in {phases:?}"));
    let order = ["device", "data", "kernels", "model", "baselines", "folder"].map(first);
    assert!(order.is_sorted(), "{phases:?}");
    let kernels = opening.iter().filter(|message| message["phase"] == "kernels");
    assert!(kernels.clone().all(|message| message["detail"].is_string()), "{opening:?}");
    assert_eq!(
        kernels.clone().map(|message| message["done"].as_u64().unwrap()).collect::<Vec<_>>(),
        (0..kernels.count() as u64).collect::<Vec<_>>()
    );
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
