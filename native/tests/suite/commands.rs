//! The commands of a study: what stops it and how it goes on, its stages and slots, what it refuses, and what becomes of claims.

use std::{
    fs,
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{BASE, ROOT, STUDY, lines, output, study, suite};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The first stage on two slots; then Ctrl-C ends the study with 75 and a checkpoint of the run under way, the same command goes on, and who
/// watches sees its end.
#[cfg(unix)]
#[test]
fn a_study_stops_at_a_stage_and_at_a_signal_and_continues() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    study(folder, &format!("set = [\"train.updates=60\", \"train.evaluation.every=6\"]\n{}", STUDY.replace("50%", "10%")));
    let refused = output(folder, &["run", "--until", "scren"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("there is no stage `scren`; the study has screen, "), "{}", said(&refused));
    let screened = output(folder, &["run", "--until", "screen", "--slots", "2", "--json"]);
    let started: Vec<Value> = lines(&screened).into_iter().filter(|event| event["event"] == "run_started").collect();
    assert_eq!(started.len(), 4, "{}", said(&screened));
    assert!(started.iter().all(|run| run["until"] == 6) && started.iter().any(|run| run["slot"] == 1), "{started:?}");
    let status = || -> Vec<Value> { lines(&output(folder, &["status", "--json"])).iter().map(|row| row["status"].clone()).collect() };
    assert_eq!(status(), vec![serde_json::json!({ "partial": 6 }); 4]);

    let running = suite(folder, &["run"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let updates = || fs::read_to_string(folder.join("runs/control-s1/metrics.jsonl")).unwrap().matches("\"kind\":\"update\"").count();
    let start = Instant::now();
    while updates() < 8 {
        assert!(start.elapsed() < Duration::from_secs(120), "no update");
        sleep(Duration::from_millis(2));
    }
    assert!(Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap().success());
    let stopped = running.wait_with_output().unwrap();
    assert_eq!(stopped.status.code(), Some(75), "{}", said(&stopped));
    assert!(said(&stopped).contains("stopping after the updates in flight"), "{}", said(&stopped));
    let (left, last) = (status(), serde_json::json!({ "partial": 6 }));
    assert!(left[0] != last && left[3] == last, "one has gone on, the last has not: {left:?}");

    let watching = suite(folder, &["watch"]).stdout(Stdio::piped()).spawn().unwrap();
    let run = output(folder, &["run"]);
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    assert!(said(&run).contains("none-s2: resumed to update 60"), "{}", said(&run));
    assert_eq!(status(), vec![serde_json::json!({ "ended": "completed" }); 4]);
    let watched = watching.wait_with_output().unwrap();
    let shown = String::from_utf8_lossy(&watched.stdout).into_owned();
    assert!(watched.status.success() && shown.trim_end().ends_with("4 of 4 runs are over"), "{shown}");
    assert!(shown.matches("runs are over").count() > 1, "it waited: {shown}");
}

/// Repeats are added until there is a verdict, which settles what was claimed.
#[test]
fn repeats_are_added_until_a_claim_holds_or_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let claims = "[claims.slow]\ntext = \"A thousandth of the rate learns less\"\nworse = [\"slow\"]\n\
                  [claims.calm]\ntext = \"It learns more, calmly\"\nbetter = [\"slow\"]\n";
    let text = format!(
        "question = \"Is a thousandth of the rate enough?\"\nbase = \"base.toml\"\nrepeats = \"until clear\"\nset = [\"train.updates=12\", \
         \"optimizer.muon.lr=0.02\", \"optimizer.adamw.lr=0.02\", \"schedule.kind=constant\", \"schedule.warmup=0\"]\n\
         [arms.slow]\nset = [\"optimizer.muon.lr=0.00002\", \"optimizer.adamw.lr=0.00002\"]\n{claims}"
    );
    study(folder, &text);
    let run = output(folder, &["run"]);
    assert_eq!(run.status.code(), Some(0), "{}", said(&run));
    assert!(String::from_utf8_lossy(&run.stdout).contains("slow is clearly worse than control"), "{run:?}");
    // Three repeats are the first round, which is never enough for an interval that holds however often one looks.
    let plan = lines(&output(folder, &["status", "--json"]));
    assert!(plan.len() > 6 && said(&run).contains("runs added"), "{plan:?}\n{}", said(&run));
    assert!(output(folder, &["report"]).status.success());
    let report = fs::read_to_string(folder.join("runs/report.md")).unwrap();
    for row in ["| `slow` | A thousandth of the rate learns less | **holds** |", "| `calm` | It learns more, calmly | **does not hold** |"]
    {
        assert!(report.contains(row), "{row} in\n{report}");
    }
}

#[test]
fn arms_that_are_evaluated_on_different_targets_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let text = "question = \"?\"\nbase = \"base.toml\"\nrepeats = 1\n[arms.less]\nset = [\"train.evaluation.windows=2\", \"optimizer.muon.lr=0.01\"]\n";
    study(folder, text);
    for command in ["plan", "run"] {
        let refused = output(folder, &[command]);
        assert_eq!(refused.status.code(), Some(2), "{command}: {}", said(&refused));
        assert!(
            said(&refused).contains("EVAL MISMATCH  the arms are not evaluated on the same targets")
                && said(&refused).contains("overrides.eval-mismatch"),
            "{command}: {}",
            said(&refused)
        );
    }
    study(folder, &format!("{text}[overrides]\neval-mismatch = \"a test\"\n"));
    let planned = output(folder, &["plan"]);
    assert!(planned.status.success(), "{}", said(&planned));
}

#[test]
fn studies_are_listed_with_their_questions() {
    let list = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moelab"));
        command.current_dir(ROOT).args(["suite", "list"]).args(arguments).stdin(Stdio::null()).output().unwrap()
    };
    let found = lines(&list(&["--json"]));
    let paths: Vec<&str> = found.iter().map(|study| study["path"].as_str().unwrap()).collect();
    let wanted = ["example", "exp3/lr_range", "exp3", "exp8/as_run", "exp8", "reasoning", "rnn/shakespeare", "rnn"];
    for name in wanted {
        assert!(paths.contains(&format!("configs/{name}/suite.toml").as_str()), "{name} in {paths:?}");
    }
    assert_eq!(found.len(), wanted.len(), "{paths:?}");
    let text = String::from_utf8(list(&["configs/rnn/shakespeare"]).stdout).unwrap();
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.starts_with("configs/rnn/shakespeare/suite.toml\n  Which balance coefficient") && text.ends_with("5 arms\n"), "{text}");
    // A config is no study.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("base.toml"), BASE).unwrap();
    let none = list(&[folder.path().to_str().unwrap()]);
    assert!(none.status.code() == Some(2) && said(&none).contains("no study below this folder"), "{}", said(&none));
}
