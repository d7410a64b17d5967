//! Routing health, from outside: series, alarms, report and terminal of a run that collapses, of one whose balance is forced, and the
//! agreement of experts with the domains of the embedded language.
#![cfg(unix)]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use moelab::{
    lab::reader::Reader,
    run::series::{RecordKind, Series},
};
use moelab_native::store::Directory;
use serde_json::Value;

/// Two layers of four experts on three domains.
const TINY: &str = r#"
[model]
width = 64
context = 64
depth.layers = 2
attention.heads = 2
ffn.width = 64
router = { experts = 4, top_k = 1, noise = 0.0, softmax = "all" }
[data]
sequence_length = 32
batch = 8
language = { domains = 3 }
[train]
updates = 16
micro_batches = 1
evaluation.every = 8
evaluation.windows = 16
[schedule]
kind = "constant"
warmup = 0
[sample]
prompts = []
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

    fn train(&self, run: &str, sets: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moelab"));
        command.current_dir(self.0.path()).args(["train", "tiny.toml", "--out", run]).stdin(Stdio::null());
        for set in sets {
            command.args(["--set", set]);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn summary(&self, run: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(run).join("summary.json")).unwrap()).unwrap()
    }

    fn report(&self, run: &str) -> String {
        fs::read_to_string(self.path(run).join("report.md")).unwrap()
    }

    fn incidents(&self, run: &str) -> Vec<Value> {
        let log = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["kind"] == "incident").collect()
    }

    /// The values of a series, one row for each update or evaluation.
    fn series(&self, run: &str, key: &str) -> Vec<Vec<f64>> {
        let store = Directory::read_only(&self.path(run)).unwrap();
        let reader = Reader::open(&store).unwrap();
        let block = reader.read(Series::find(key).unwrap(), 0..=u32::MAX, 1000).unwrap();
        block.buckets.into_iter().map(|bucket| bucket.mean).collect()
    }
}

/// The first update of the first streak of `WINDOW` rows in which `holds` for the same place, over all places.
fn first_streak(rows: &[Vec<f64>], places: usize, holds: impl Fn(&[f64], usize) -> bool) -> Option<usize> {
    let streak = |place: usize| rows.windows(WINDOW).position(|rows| rows.iter().all(|row| holds(row, place)));
    (0..places).filter_map(streak).min().map(|row| row + 1)
}

const WINDOW: usize = 4;
const EXPERTS: usize = 4;

#[test]
fn a_router_that_collapses_raises_alarms_with_the_update_at_which_it_began() {
    let place = Place::new();
    let sets = ["model.balance.kind=none", "optimizer.adamw.lr=0.1", "optimizer.overrides={\"*.router.*\"=\"adamw\"}", "alarms.window=4"];
    let output = place.train("run", &sets);
    let load = place.series("run", "expert_load");
    assert_eq!((load.len(), load[0].len()), (16, 2 * EXPERTS));
    // Computed from the load, without moelab.
    let spread = |row: &[f64], layer: usize| {
        let entropy: f64 = row[layer * EXPERTS..][..EXPERTS].iter().filter(|share| **share > 0.0).map(|share| -share * share.ln()).sum();
        (entropy.exp() - 1.0) / (EXPERTS as f64 - 1.0)
    };
    let collapsed = first_streak(&load, 2, |row, layer| spread(row, layer) < 0.1);
    let dead = first_streak(&load, 2 * EXPERTS, |row, place| row[place] == 0.0);
    let wanted = [("router_collapsed", collapsed), ("expert_dead", dead)];
    let summary = place.summary("run");
    for (kind, since) in wanted {
        let since = since.unwrap_or_else(|| panic!("the plant has no {kind}: {load:?}"));
        assert_eq!(summary["routing_alarms"][kind], since, "{kind}: {load:?}");
        let first = place.incidents("run").into_iter().find(|line| line["incident"] == kind).unwrap();
        assert_eq!((&first["since"], &first["update"]), (&since.into(), &(since + WINDOW - 1).into()), "{first}");
        let words = if kind == "expert_dead" { "experts dead" } else { "router collapsed" };
        let report = place.report("run");
        assert!(report.contains(&format!("- **Alarm: {words} from update {since} on.**")), "{report}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("from update {since} on: {words}")), "{output:?}");
    }
    let report = place.report("run");
    assert!(report.contains("| layer 1 |") && report.contains("try model.balance.coefficient = 0.01"), "{report}");

    // The measures that are computed when they are read are those of the load.
    for (row, found) in load.iter().zip(place.series("run", "expert_diversity")) {
        let wanted = [0, 1].map(|layer| (1.0 + 3.0 * spread(row, layer)) / 4.0);
        assert!(found.iter().zip(wanted).all(|(found, wanted)| (found - wanted).abs() < 1e-6), "{found:?} {wanted:?}");
    }

    place.train("calm", &["alarms.window=4"]);
    assert_eq!((place.incidents("calm"), place.summary("calm").get("routing_alarms")), (Vec::new(), None));
}

#[test]
fn forced_balance_is_balanced_and_marked_wherever_the_run_is_shown() {
    let place = Place::new();
    let forced = ["train.updates=4", "model.router.force_balance=true"];
    let output = place.train("forced", &forced);
    place.train("plain", &forced[..1]);
    for key in ["expert_load", "eval.expert_load"] {
        let load = place.series("forced", key);
        assert!(!load.is_empty() && load.iter().flatten().all(|share| *share == 0.25), "{load:?}");
    }
    assert!(place.series("forced", "load_imbalance").iter().flatten().all(|imbalance| *imbalance == 1.0));
    assert!(place.series("plain", "load_imbalance").iter().flatten().any(|imbalance| *imbalance > 1.01));
    let [forced, plain] = ["forced", "plain"].map(|run| place.summary(run));
    assert_eq!((&forced["forced_balance"], plain.get("forced_balance")), (&true.into(), None));
    assert_ne!(forced["settings_sha256"]["model"], plain["settings_sha256"]["model"], "they are different models");
    let report = place.report("forced");
    assert!(report.lines().nth(2).unwrap().starts_with("**Tokens were assigned to experts in turn"), "{report}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("the losses are no result"), "{output:?}");
}

/// A router that reads nothing but the domain agrees with it; text has no domains.
#[test]
fn agreement_with_domains_is_measured_where_they_are_known() {
    let place = Place::new();
    place.train("language", &["train.updates=8"]);
    let found = place.series("language", "eval.domain_nmi");
    assert_eq!((found.len(), found[0].len()), (1, 2));
    assert!(found[0].iter().all(|nmi| (-0.1..=1.0).contains(nmi)), "{found:?}");
    fs::write(place.path("docs.txt"), "a line of text\n\nand another one\n\n".repeat(200)).unwrap();
    place.train("text", &["train.updates=8", "data.kind=text", "data.paths=[\"docs.txt\"]", "data.split.rule=last"]);
    assert!(place.series("text", "eval.domain_nmi").is_empty(), "its domains are not known");
    for run in ["language", "text"] {
        for series in Series::all().filter(|series| series.is_array() && series.name != "domain_nmi") {
            let rows = place.series(run, &series.key());
            let wanted = if series.record == RecordKind::Update { 8 } else { 1 };
            assert!(rows.len() == wanted && rows.iter().flatten().all(|value| value.is_finite()), "{run}: {}: {rows:?}", series.key());
        }
        let gates = place.series(run, "eval.gate_mass").remove(0);
        assert!(gates.chunks(EXPERTS).all(|row| (row.iter().sum::<f64>() - 1.0).abs() < 1e-6), "{gates:?}");
    }
}
