//! The binary's commands around studies, on tiny runs: gates on finished runs, learning-rate range tests, matched configs, audits.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// A model that makes eight updates in a fraction of a second.
const TINY: &str = r#"
seed = 1
[model]
width = 32
context = 16
depth.layers = 1
attention.heads = 2
ffn.width = 32
router = { experts = 4, top_k = 2 }
[data]
embedded = true
sequence_length = 16
batch = 2
[train]
updates = 8
micro_batches = 1
evaluation.every = 2
evaluation.windows = 8
checkpoint.every = 0
[schedule]
kind = "constant"
warmup = 0
[optimizer]
adamw.lr = 0.02
muon.lr = 0.02
[sample]
tokens = 0
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        fs::write(place.path("tiny.toml"), TINY).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moelab"));
        command.current_dir(self.0.path()).args(arguments).stdin(Stdio::null()).output().expect("the binary runs")
    }

    /// The standard output of a command that has to succeed.
    fn out(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn lines(&self, arguments: &[&str]) -> Vec<Value> {
        self.out(arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn train(&self, run: &str, sets: &[&str]) {
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        self.out(&["train", "tiny.toml", "--out", run].into_iter().chain(sets).collect::<Vec<_>>());
    }

    /// Validation losses in the log of a run.
    fn val_ce(&self, run: &str) -> Vec<f64> {
        let log = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).filter(|event| event["kind"] == "eval");
        events.map(|event| event["val_ce"].as_f64().unwrap()).collect()
    }
}

fn verdicts(lines: &[Value]) -> Vec<(String, u64, String)> {
    let text = |line: &Value, key: &str| line[key].as_str().unwrap().to_string();
    lines.iter().map(|line| (text(line, "run"), line["update"].as_u64().unwrap(), text(line, "verdict"))).collect()
}

fn number(line: &Value, name: &str) -> f64 {
    let numbers = line["numbers"].as_array().unwrap();
    numbers.iter().find(|number| number["name"] == name).unwrap_or_else(|| panic!("{name} in {line}"))["value"].as_f64().unwrap()
}

#[test]
fn gates_on_finished_runs() {
    let place = Place::new();
    place.train("runs/control-s1", &[]);
    // A learning rate of zero: the loss stays where it starts.
    place.train("runs/frozen-s1", &["optimizer.muon.lr=0.0", "optimizer.adamw.lr=0.0"]);
    let (control, frozen) = (place.val_ce("runs/control-s1"), place.val_ce("runs/frozen-s1"));
    assert_eq!((control.len(), frozen.len()), (4, 4));
    assert!(control[3] < control[0] - 0.2 && frozen[3] == frozen[0], "{control:?} {frozen:?}");

    let of = |arguments: &[&str]| place.lines(&[&["gates", "--json"], arguments].concat());
    let gap = of(&["runs/frozen-s1", "--reference", "runs/control-s1", "--rule", "gap"]);
    assert_eq!(gap.len(), 4);
    let widened = gap.last().unwrap();
    assert_eq!(widened["verdict"], "stop");
    let expected = (frozen[3] - control[3]) - (frozen[0] - control[0]);
    assert!((number(widened, "gap_growth") - expected).abs() < 1e-12, "{widened}");
    // The routers of a model that never changes send each token where they sent it at first.
    assert!(number(widened, "least_routing_spread") > 0.1, "{widened}");

    // Frozen: three evaluations without a gain, a window of two updates with two different batches.
    let sets = ["--set", "gates.stop.flat=10", "--rule", "stop_promote"];
    let stop = of(&[&["runs/frozen-s1", "--reference", "runs/control-s1"], &sets[..]].concat());
    let last = ("frozen-s1".to_string(), 8, "stop".to_string());
    assert_eq!((verdicts(&stop)[2].2.as_str(), &verdicts(&stop)[3]), ("wait", &last));
    // The control against the frozen run is better by more than the margin at the end.
    let promote = of(&["runs/control-s1", "--reference", "runs/frozen-s1"]);
    assert_eq!(promote[3]["verdict"], "promote");
    assert!((number(&promote[3], "val_ce_minus_reference") - (control[3] - frozen[3])).abs() < 1e-12);

    let halving = of(&["runs/frozen-s1", "--reference", "runs/control-s1", "--rule", "halving"]);
    assert_eq!(halving.len(), 8, "two arms at four rungs");
    assert_eq!(verdicts(&halving)[0], ("control".into(), 2, "promote".into()));
    let patience = of(&["runs/frozen-s1", "--rule", "early_stopping", "--set", "gates.early_stopping.patience=2"]);
    assert_eq!(verdicts(&patience).iter().map(|(_, _, verdict)| verdict.as_str()).collect::<Vec<_>>(), ["wait", "wait", "stop", "stop"]);
    let text = place.out(&["gates", "runs/frozen-s1", "--rule", "early_stopping", "--set", "gates.early_stopping.patience=2"]);
    assert!(text.contains("frozen-s1  update 6  stop: 2 of 2 evaluations without an improvement of more than 0.001"), "{text}");

    // What would have no effect is refused, with the keys that there are.
    let output = place.run(&["gates", "runs/frozen-s1", "--rule", "gap", "--set", "gates.stop.min_gain=0.1"]);
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("gates.stop.min_gain") && text.contains("gates.rule"), "{text}");
}

#[test]
fn a_range_test_recommends_a_rate() {
    let place = Place::new();
    let arguments = ["lr-range", "tiny.toml", "--updates", "40", "--lowest", "0.01", "--highest", "100", "--out", "runs/range"];
    // The rates of TINY are 0.02; 100 times more does not train.
    let result = &place.lines(&[&["--json"], &arguments[..]].concat())[0];
    let results = result["all_results"].as_array().unwrap();
    let rate = |index: usize| results[index]["learning_rate"].as_f64().unwrap();
    assert_eq!(results.len(), 40);
    assert!((rate(0) / 2e-4 - 1.0).abs() < 1e-5 && (rate(39) / 2e-4 - 1e4f64.powf(39.0 / 40.0)).abs() < 1.0, "{} {}", rate(0), rate(39));
    let best = result["best_learning_rate"].as_f64().unwrap();
    assert!((1e-3..0.2).contains(&best), "{}", result["recommendation"]);
    assert!(result["settings"][0].as_str().unwrap().starts_with("optimizer.muon.lr="), "{}", result["settings"]);
    assert!(result["caveat"].as_str().unwrap().contains("one short run"));
    let file: Value = serde_json::from_str(&fs::read_to_string(place.path("runs/range/lr_recommendation.json")).unwrap()).unwrap();
    assert_eq!(file, *result);
    let output = place.run(&["lr-range", "tiny.toml", "--lowest", "2", "--highest", "1"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_config_is_matched_to_another() {
    let place = Place::new();
    // 2 D K F L = 2 * 32 * 2 * 32 = 4096 against 2 * 32 * 1 * F.
    fs::write(place.path("top1.toml"), "extends = \"tiny.toml\"\nmodel.router.top_k = 1\n").unwrap();
    fs::create_dir(place.path("made")).unwrap();
    fn of<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
        [&["match", "top1.toml", "--to", "tiny.toml"], arguments].concat()
    }
    place.out(&of(&["--on", "active", "--vary", "expert_width", "--set", "train.updates=4", "--out", "made/match.toml"]));
    let text = fs::read_to_string(place.path("made/match.toml")).unwrap();
    assert!(text.contains("# Matched to tiny.toml on FFN weights in use per token over the depth: 4,096 against 4,096"), "{text}");
    assert!(text.ends_with("extends = \"../top1.toml\"\ntrain.updates = 4\nmodel.ffn.width = 64 # was 32\n"), "{text}");
    let params = |config: &str| place.lines(&["params", config, "--json"])[0].clone();
    let (made, tiny) = (params("made/match.toml"), params("tiny.toml"));
    assert_eq!((&made["ffn_over_depth"], &tiny["ffn_over_depth"]), (&Value::from(4096), &Value::from(4096)));
    assert!(made["total"].as_u64() > tiny["total"].as_u64() && made["unique_active"].is_u64() && made["ffn_per_layer"].is_u64());

    let json = &place.lines(&of(&["--on", "total", "--vary", "experts", "--json", "--at-most"]))[0];
    assert_eq!((json["changes"]["model.router.experts"]["to"].as_u64(), json["error"].as_f64()), (Some(4), Some(0.0)));
    // Every second expert is 2,080 parameters; within 0.01 % of the target there is none.
    let output = place.run(&of(&["--on", "total", "--vary", "experts", "--set", "model.ffn.width=48", "--tolerance", "0.0001"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not matched within 0.01 %"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("# NOT MATCHED within 0.01 %"));
    let output = place.run(&of(&["--on", "active", "--vary", "depth"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("model.depth.layers (layers)"));
}

#[test]
fn a_duration_is_matched_on_this_machine() {
    let place = Place::new();
    fs::write(
        place.path("wide.toml"),
        "extends = \"tiny.toml\"\nmodel.ffn.width = 1024\nmodel.context = 128\ndata.sequence_length = 128\n",
    )
    .unwrap();
    let sets = ["--set", "model.context=128", "--set", "data.sequence_length=128"];
    let arguments =
        ["match", "tiny.toml", "--to", "wide.toml", "--on", "wall-clock", "--vary", "expert_width=64..4096", "--tolerance", "10", "--json"];
    let json = &place.lines(&[&arguments[..], &sets[..]].concat())[0];
    // How close it comes depends on what else the machine does.
    let width = json["changes"]["model.ffn.width"]["to"].as_u64().unwrap();
    assert!((200..4096).contains(&width) && json["target"].as_f64().unwrap() > 0.0, "{json}");
}

/// The published study in the repository.
fn published(file: &str) -> String {
    format!("{}/../configs/{file}.toml", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_exit_code_of_an_audit_is_that_of_its_worst_finding() {
    let place = Place::new();
    let audit = |paths: &[&str], more: &[&str]| {
        let paths: Vec<String> = paths.iter().map(|path| published(path)).collect();
        let arguments: Vec<&str> =
            ["audit", "--plan-only"].into_iter().chain(paths.iter().map(String::as_str)).chain(more.iter().copied()).collect();
        let output = place.run(&arguments);
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr))
    };
    let (code, text) = audit(&["exp8/baseline", "exp8/no_lb"], &[]);
    assert_eq!((code, text.contains("0 refusals, 0 warnings")), (Some(0), true), "{text}");
    let (code, text) = audit(&["exp8/as_run/baseline"], &[]);
    assert!(code == Some(2) && text.contains("refuse  schedule-unit: SCHEDULE UNIT  cosine horizon 1000 is in micro-batches"), "{text}");
    let (code, text) = audit(&["exp8/as_run/baseline"], &["--override", "schedule-unit=as published"]);
    assert!(code == Some(1) && text.contains("(overridden: as published)") && text.contains("partial-batch"), "{text}");
    let (code, text) = audit(&["exp8/as_run/baseline"], &["--override", "schedules=as published"]);
    assert!(code == Some(2) && text.contains("no check is called `schedules`"), "{text}");
    let (_, text) = audit(&["exp8/as_run/baseline"], &["--override", "schedule-unit=as published", "--json"]);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(
        lines.iter().any(|line| line["check"] == "schedule-unit" && line["severity"] == "refuse" && line["overridden"] == "as published")
    );
}

#[test]
fn published_results_are_audited_against_their_claims() {
    let place = Place::new();
    let fixtures = format!("{}/../tests/fixtures/audit", env!("CARGO_MANIFEST_DIR"));
    let all: Value = serde_json::from_str(&fs::read_to_string(format!("{fixtures}/claims.json")).unwrap()).unwrap();
    fs::write(place.path("claims.json"), all["exp8"].to_string()).unwrap();
    let (control, dropout) = (published("exp8/as_run/baseline"), published("exp8/as_run/higher_dropout"));
    let results = format!("{fixtures}/exp8.json");
    let output = place.run(&["audit", "--plan-only", &control, &dropout, &results, "--claims", "claims.json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("does not stand  79M params (28.4 % active)"), "{text}");
    assert!(text.contains("corr(dropout, degradation) = -0.53, n = 9"), "{text}");
}

#[test]
fn an_audit_of_runs_compares_what_was_run_with_the_plan() {
    let place = Place::new();
    place.train("control", &[]);
    place.train("wide", &["model.ffn.width=48"]);
    let output = place.run(&["audit", "--plan-only", "control", "wide"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(0) && text.contains("2 arms, 2 runs: 0 refusals, 0 warnings"), "{text}");
}

/// What an outside sampler does: asks for a run, makes it, is told its value.
#[test]
fn a_trial_is_asked_for_made_and_told() {
    let place = Place::new();
    fs::write(place.path("study.toml"), "question = \"Which rate?\"\nbase = \"tiny.toml\"\nset = [\"train.updates=4\"]\n").unwrap();
    let ask = |params: &str| place.lines(&["suite", "ask", "study.toml", "--out", "runs/search", "--params", params])[0].clone();
    let tell = |trials: &[&str]| place.lines(&[&["suite", "tell", "study.toml", "--out", "runs/search"], trials].concat());
    let asked = ask(r#"{"optimizer.muon.lr": 0.003}"#);
    let trial = asked["trial"].as_str().unwrap();
    assert_eq!((asked["state"].as_str(), tell(&[trial])[0]["state"].as_str()), (Some("WAITING"), Some("WAITING")));
    let command: Vec<&str> = asked["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!(command[1], "train");
    place.out(&command[1..]);
    let told = &tell(&[])[0];
    assert_eq!((told["trial"].as_str(), told["state"].as_str()), (Some(trial), Some("COMPLETE")));
    let losses = place.val_ce(asked["run"].as_str().unwrap());
    assert_eq!(told["value"].as_f64(), losses.last().copied());
    assert_eq!(told["intermediate_values"], serde_json::json!([[2, losses[0]], [4, losses[1]]]));
    // The same parameters are the same trial, which is made.
    let again = ask(r#"{"optimizer.muon.lr": 3e-3}"#);
    assert_eq!((&again["trial"], &again["state"], &again["command"]), (&asked["trial"], &Value::from("COMPLETE"), &serde_json::json!([])));
    let output = place.run(&["suite", "ask", "study.toml", "--out", "runs/search", "--params", r#"{"optimizer.muon.rate": 0.003}"#]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("optimizer.muon.rate"));
}
