//! A folder of runs and studies on another thread, driven by serialised messages and nothing else.

use std::{
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use moelab::{
    gpu::AdapterChoice,
    lab::{
        workspace::{Reply, Request},
        workspace_host::Workspace,
    },
};
use moelab_native::{machine::Resources, places::Runs, runner::Runner};
use serde_json::{Value, json};

const TINY: &str = include_str!("../../../tests/helpers/tiny.toml");
const STUDY: &str = "question = \"?\"\nbase = \"base.toml\"\nrepeats = 2\n[arms.none]\nset = [\"model.balance.coefficient=0.0\"]\n";

/// Text in, text out.
struct Wire(Runner<Request, Reply>);

impl Wire {
    fn open(folder: &Path) -> Wire {
        let places = Runs::new(folder, Resources { adapter: AdapterChoice::default(), cache: folder.join("cache") });
        Wire(Runner::spawn(move || Workspace::new(places.clone()), || ()).unwrap())
    }

    fn send(&self, request: Value) {
        self.0.send(serde_json::from_str(&request.to_string()).unwrap());
    }

    /// Replies until one that fits, and that one.
    fn until(&self, fits: impl Fn(&Value) -> bool) -> (Vec<Value>, Value) {
        let (mut before, end) = (Vec::new(), Instant::now() + Duration::from_secs(120));
        loop {
            let reply = self.0.wait(end - Instant::now()).unwrap_or_else(|| panic!("none fits in {before:#?}"));
            let text = serde_json::to_string(&reply).unwrap();
            assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), reply);
            let reply: Value = serde_json::from_str(&text).unwrap();
            if fits(&reply) {
                return (before, reply);
            }
            before.push(reply);
        }
    }

    fn ask(&self, request: Value, reply: &str) -> Value {
        self.send(request);
        self.until(|found| found["reply"] == reply).1
    }

    fn event(&self, event: &str) -> Value {
        self.until(|found| found["event"]["event"] == event).1
    }
}

#[test]
fn runs_and_studies_of_a_folder_are_made_listed_read_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let wire = Wire::open(&runs);
    let listed = wire.ask(json!({"request": "list"}), "listed");
    assert_eq!((&listed["runs"], &listed["studies"]), (&json!([]), &json!([])), "a folder that is not there is empty");

    wire.send(json!({"request": "session", "command": {"command": "start", "run": "tiny", "config": TINY, "sets": ["seed=7"]}}));
    let ended = wire.event("ended");
    assert_eq!((&ended["run"], &ended["event"]["exit"]), (&json!("tiny"), &json!("completed")));
    let listed = wire.ask(json!({"request": "list"}), "listed");
    let run = &listed["runs"][0];
    assert_eq!((&run["name"], &run["seed"], &run["made"], &run["updates"]), (&json!("tiny"), &json!(7), &json!(4), &json!(4)));
    assert_eq!((&run["settings"]["model.width"], &run["val_ce"]), (&json!("16"), &ended["event"]["final_val_ce"]));

    // What is read is what the log has.
    let query = json!({"request": "read", "run": "tiny", "series": ["train_ce", "expert_load"], "from": 0, "to": 4, "points": 100});
    let read = wire.ask(query, "read");
    let log = fs::read_to_string(runs.join("tiny/metrics.jsonl")).unwrap();
    let losses: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["kind"] == "update")
        .map(|line| line["train_ce"].clone())
        .collect();
    assert_eq!((&read["curves"][0]["mean"], &read["curves"][0]["updates"]), (&json!(losses), &json!([1, 2, 3, 4])));
    assert_eq!((&read["curves"][1]["shape"], read["curves"][1]["mean"].as_array().unwrap().len()), (&json!([1, 4]), 16));
    let fewer = wire.ask(json!({"request": "read", "run": "tiny", "series": ["train_ce"], "from": 0, "to": 4, "points": 2}), "read");
    let curve = &fewer["curves"][0];
    assert!(
        curve["mean"].as_array().unwrap().len() <= 2 && curve["min"].as_array().unwrap().len() == curve["mean"].as_array().unwrap().len()
    );
    let facts = wire.ask(json!({"request": "look", "run": "tiny"}), "looked");
    assert_eq!(facts["evaluations"].as_array().unwrap().len(), 2);

    // The audit of a run by itself, which the window shows as `moelab audit` does.
    wire.send(json!({"request": "session", "command": {"command": "start", "run": "warm", "config": TINY, "sets": ["schedule.warmup=4"]}}));
    wire.event("ended");
    let findings = |run: &str| wire.ask(json!({"request": "audit", "run": run}), "audited")["findings"].clone();
    let of = |findings: &Value| findings.as_array().unwrap().iter().map(|finding| finding["check"].clone()).collect::<Vec<_>>();
    let (tiny, warm) = (findings("tiny"), findings("warm"));
    assert!(of(&warm).contains(&json!("warm-up")) && warm[0]["severity"] == "refuse", "{warm}");
    assert!(!of(&tiny).contains(&json!("warm-up")), "{tiny}");
    let output =
        Command::new(env!("CARGO_BIN_EXE_moelab")).args(["--json", "audit", "--plan-only"]).arg(runs.join("warm")).output().unwrap();
    let printed: Vec<Value> = String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json!(printed), warm);
    wire.ask(json!({"request": "remove", "name": "warm"}), "listed");

    // A study; while its runs are made, no single run is started.
    let files = json!({"study.toml": STUDY, "base.toml": TINY});
    wire.send(json!({"request": "study", "study": "two", "command": {"command": "open", "study": "study.toml", "files": files}}));
    wire.send(json!({"request": "study", "study": "two", "command": {"command": "run"}}));
    wire.event("run_started");
    let start = json!({"request": "session", "command": {"command": "start", "run": "other", "config": TINY}});
    let refused = wire.ask(start, "refused");
    assert!(refused["problem"]["what"].as_str().unwrap().contains("the study `two` is under way"), "{refused}");
    assert!(wire.event("judged")["event"]["text"].as_str().unwrap().contains("Nothing can be said about none"));
    let listed = wire.ask(json!({"request": "list"}), "listed");
    assert_eq!((&listed["studies"][0]["over"], listed["runs"].as_array().unwrap().len()), (&json!(4), 5));

    // Names that lead elsewhere, and what is not there.
    for run in ["../tiny", "none", "two/none"] {
        let refused = wire.ask(json!({"request": "look", "run": run}), "refused");
        assert_eq!(refused["about"], json!(run));
    }
    let listed = wire.ask(json!({"request": "remove", "name": "tiny"}), "listed");
    assert!(listed["runs"].as_array().unwrap().len() == 4 && !runs.join("tiny").exists());
    // The study is open, but its runs are made: its folder is closed and removed.
    let listed = wire.ask(json!({"request": "remove", "name": "two"}), "listed");
    assert!(listed["runs"] == json!([]) && !runs.join("two").exists());
}

#[test]
fn what_a_config_costs_is_measured_without_a_trace_and_gives_way_to_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let wire = Wire::open(&runs);
    let probed = wire.ask(json!({"request": "probe", "config": TINY}), "probed");
    assert_eq!(probed["config"], json!(TINY));
    assert!(probed["seconds_per_update"].as_f64().unwrap() > 0.0 && !probed["adapter"]["name"].as_str().unwrap().is_empty(), "{probed}");
    assert_eq!(probed["kernels"], Value::Null, "kernels are not timed unless asked for");
    let timed = wire.ask(json!({"request": "probe", "config": TINY, "kernels": true}), "probed");
    let share: f64 = timed["kernels"].as_array().unwrap().iter().map(|kernel| kernel["share"].as_f64().unwrap()).sum();
    assert!((0.9..1.001).contains(&share), "{share}: {timed}");
    let parts = probed["buffers"]["parts"].as_array().unwrap();
    let listing = probed["listing"].as_str().unwrap();
    assert!(parts[0][1].as_u64().unwrap() > 0 && listing.lines().count() > 20, "{listing}");
    let launches: u64 = probed["dispatches"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum();
    assert!(launches > 20 && listing.contains("adamw"), "{launches}: {listing}");
    assert!(!runs.exists(), "a probe leaves no trace");
    let refused = wire.ask(json!({"request": "probe", "config": "model.width = 0"}), "refused");
    assert!(refused["problem"]["what"].as_str().unwrap().contains("model.width"), "{refused}");

    // A run that is started ends a probe, which is not answered.
    let long = format!("{TINY}\n").replace("updates = 4", "updates = 4000");
    assert_ne!(long.trim(), TINY.trim());
    wire.send(json!({"request": "probe", "config": long}));
    wire.send(json!({"request": "session", "command": {"command": "start", "run": "tiny", "config": TINY}}));
    let (before, _) = wire.until(|found| found["event"]["event"] == "ended");
    assert!(before.iter().all(|reply| reply["reply"] != "probed"), "{before:#?}");
}

#[test]
fn the_experts_of_the_validation_text_are_those_of_its_evaluation_and_asking_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let wire = Wire::open(folder.path());
    let start = |run: &str| json!({"request": "session", "command": {"command": "start", "run": run, "config": TINY}});
    let to_session = |command: Value| json!({"request": "session", "command": command});
    wire.send(start("plain"));
    let undisturbed = wire.event("ended");

    wire.send(to_session(json!({"command": "pause_at", "update": 2})));
    wire.send(start("asked"));
    wire.event("opened");
    wire.send(to_session(json!({"command": "pause_at", "update": 2})));
    wire.send(to_session(json!({"command": "route", "text": "ab"})));
    let routed = wire.event("routed")["event"].clone();
    assert_eq!(routed["update"], json!(2));
    let tokens = routed["ids"].as_array().unwrap().len();
    let k = routed["experts_per_token"].as_u64().unwrap() as usize;
    assert_eq!(routed["experts"][0].as_array().unwrap().len(), tokens * k);
    wire.send(to_session(json!({"command": "continue"})));
    let ended = wire.event("ended");
    assert_eq!(ended["event"]["weights_sha256"], undisturbed["event"]["weights_sha256"]);
    assert!(ended["event"]["weights_sha256"].is_string());

    wire.send(to_session(json!({"command": "inspect", "run": "asked", "checkpoint": "newest"})));
    wire.send(to_session(json!({"command": "evaluate"})));
    wire.send(to_session(json!({"command": "route"})));
    let load = wire.event("evaluated")["event"]["record"]["expert_load"].clone();
    let routed = wire.event("routed")["event"].clone();
    let tokens = routed["ids"].as_array().unwrap().len();
    assert_eq!(routed["domains"].as_array().unwrap().len(), tokens, "the language has domains");
    for (layer, experts) in load.as_array().unwrap().iter().enumerate() {
        let chosen = routed["experts"][layer].as_array().unwrap();
        assert_eq!(chosen.len(), tokens * k);
        for (expert, share) in experts.as_array().unwrap().iter().enumerate() {
            let count = chosen.iter().filter(|chosen| chosen.as_u64() == Some(expert as u64)).count();
            let counted = count as f64 / chosen.len() as f64;
            assert!((counted - share.as_f64().unwrap()).abs() < 1e-6, "layer {layer}, expert {expert}: {counted}, evaluated {share}");
        }
    }
    wire.send(to_session(json!({"command": "stop"})));
    wire.event("closed");
}
