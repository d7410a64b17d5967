//! A folder of runs and studies on another thread, driven by serialised messages and nothing else.

use std::{
    fs,
    path::Path,
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
