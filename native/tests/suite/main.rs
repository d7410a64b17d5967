//! Studies in the binary: planned, run, killed, continued, distributed, judged.

mod commands;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Two arms with two seeds and a stage, of a model so small that a run takes a moment.
const STUDY: &str = "question = \"Is the balance loss needed?\"
base = \"base.toml\"
repeats = 2
[arms.none]
set = [\"model.balance.coefficient=0.0\"]
[stages]
screen = \"50%\"
";

const BASE: &str = include_str!("../../../tests/helpers/tiny.toml");

fn study(folder: &Path, text: &str) {
    fs::write(folder.join("study.toml"), text).unwrap();
    fs::write(folder.join("base.toml"), BASE).unwrap();
}

fn suite(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moelab"));
    let (name, rest) = arguments.split_first().unwrap();
    command.current_dir(ROOT).arg("suite").arg(name).arg(folder.join("study.toml")).arg("--out").arg(folder.join("runs"));
    command.args(rest).stdin(Stdio::null());
    command
}

fn output(folder: &Path, arguments: &[&str]) -> Output {
    suite(folder, arguments).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The final losses by run.
fn losses(folder: &Path) -> BTreeMap<String, String> {
    let rows = lines(&output(folder, &["status", "--json"]));
    rows.iter().map(|row| (row["run"].as_str().unwrap().into(), row["final_val_ce"].to_string())).collect()
}

#[test]
fn a_study_is_planned_run_killed_continued_and_judged() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    study(folder, STUDY);
    let plan = lines(&output(folder, &["plan", "--json"]));
    let ids: Vec<&str> = plan.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["control-s1", "none-s1", "control-s2", "none-s2"]);
    assert_eq!((&plan[1]["stage"], &plan[1]["until"], &plan[1]["updates"]), (&"screen".into(), &2.into(), &4.into()));

    // Killed while it runs.
    let mut killed = suite(folder, &["run"]).stderr(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while !folder.join("runs/none-s1/metrics.jsonl").exists() && start.elapsed() < Duration::from_secs(120) {
        sleep(Duration::from_millis(5));
    }
    // What is made so far can be judged meanwhile, and what would be decided can be seen.
    #[cfg(unix)]
    {
        assert!(Command::new("kill").args(["-STOP", &killed.id().to_string()]).status().unwrap().success());
        for command in [&["report"][..], &["promote", "--dry-run"]] {
            let shown = output(folder, command);
            assert_eq!(shown.status.code(), Some(0), "{}", String::from_utf8_lossy(&shown.stderr));
        }
        assert!(fs::read_to_string(folder.join("runs/report.md")).unwrap().contains("Planned runs without a result: "));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    // Another study is not run in its folder.
    study(folder, &STUDY.replace("0.0", "0.5"));
    let refused = output(folder, &["run"]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{message}");
    assert!(message.contains("`model.balance.coefficient` was 0.0, is 0.5"), "{message}");
    study(folder, STUDY);

    let run = output(folder, &["run"]);
    let (text, shown) = (String::from_utf8_lossy(&run.stdout).into_owned(), String::from_utf8_lossy(&run.stderr).into_owned());
    assert_eq!(run.status.code(), Some(0), "{shown}");
    assert!(text.contains("Nothing can be said about none against control"), "{text}");
    assert!(shown.contains("4 of 4 runs are over"), "{shown}");
    // A single run of the same settings has the same bits: stages, resumes and the shared device change nothing.
    let alone = folder.join("alone");
    let mut command = Command::new(env!("CARGO_BIN_EXE_moelab"));
    command.current_dir(ROOT).arg("train").arg(folder.join("base.toml")).arg("--out").arg(&alone);
    let alone_run = command.args(["--set", "model.balance.coefficient=0.0", "--set", "seed=2"]).output().unwrap();
    assert!(alone_run.status.success(), "{}", String::from_utf8_lossy(&alone_run.stderr));
    let hash = |folder: &Path| {
        let summary: Value = serde_json::from_slice(&fs::read(folder.join("summary.json")).unwrap()).unwrap();
        (summary["weights_sha256"].clone(), summary["final_val_ce"].clone())
    };
    assert_eq!(hash(&alone), hash(&folder.join("runs/none-s2")));
    // Nothing is run twice.
    let times = |name: &str| fs::metadata(folder.join("runs").join(name).join("metrics.jsonl")).unwrap().modified().unwrap();
    let before: Vec<_> = ids.iter().map(|id| times(id)).collect();
    assert_eq!(output(folder, &["run"]).status.code(), Some(0));
    assert_eq!(before, ids.iter().map(|id| times(id)).collect::<Vec<_>>());

    // The report says what becomes of a claim, which may be added to a study that is made. What is kept of it stands alone.
    study(folder, &format!("{STUDY}[claims.needed]\ntext = \"It is needed\"\nworse = [\"none\"]\n"));
    let kept = folder.join("kept");
    let report = output(folder, &["report", "--keep", kept.to_str().unwrap()]);
    assert_eq!(report.status.code(), Some(0), "{}", String::from_utf8_lossy(&report.stderr));
    let text = fs::read_to_string(kept.join("RESULTS.md")).unwrap();
    assert!(text.contains("| `needed` | It is needed | **no verdict** | Nothing can be said about none against control"), "{text}");
    let figures: Vec<&str> = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(".svg)")?.0)).collect();
    assert!(figures.len() > 1, "{text}");
    for figure in figures {
        let [here, there] = [kept.join(figure), folder.join("runs").join(figure.strip_prefix("results/").unwrap())];
        assert_eq!(fs::read(here.with_extension("svg")).unwrap(), fs::read(there.with_extension("svg")).unwrap());
    }
    for name in ["report.html", "results.csv", "evaluations.csv", "curves.png"] {
        assert!(fs::metadata(folder.join("runs").join(name)).unwrap().len() > 100, "{name}");
    }

    // A job array makes the same runs: each index, up to the stage that the decisions allow, and again after they are made.
    let array = folder.join("array");
    fs::create_dir(&array).unwrap();
    study(&array, STUDY);
    assert!(output(&array, &["plan"]).status.success());
    for _ in 0..2 {
        for index in ["0", "1", "2", "3", "1"] {
            let made = output(&array, &["run", "--index", index]);
            assert_eq!(made.status.code(), Some(0), "{}", String::from_utf8_lossy(&made.stderr));
        }
        assert!(output(&array, &["promote"]).status.success());
    }
    assert_eq!(losses(&array), losses(folder));
    let mut made = Command::new(env!("CARGO_BIN_EXE_moelab"));
    let made = made.arg("run").arg("--plan").arg(array.join("runs/plan.jsonl")).args(["--index", "3"]).output().unwrap();
    assert!(made.status.success() && String::from_utf8_lossy(&made.stderr).contains("none-s2: done, nothing to do"), "{made:?}");
    let beyond = output(&array, &["run", "--index", "4"]);
    assert!(String::from_utf8_lossy(&beyond.stderr).contains("the plan has 4 runs"), "{beyond:?}");
}

#[test]
fn a_run_that_fails_is_shown_and_the_others_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let arm = "[arms.none]\nset = [\"data.kind=text\", \"data.paths=['absent.txt']\"]\n[overrides]\neval-mismatch = \"it fails\"\n";
    study(folder, &format!("question = \"?\"\nbase = \"base.toml\"\nrepeats = 1\n{arm}"));
    let run = output(folder, &["run"]);
    let shown = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(2), "{shown}");
    assert!(shown.contains("none-s1: failed: ") && shown.contains("absent.txt"), "{shown}");
    let rows = lines(&output(folder, &["status", "--json"]));
    assert_eq!(rows[0]["status"], serde_json::json!({ "ended": "completed" }));
    assert!(rows[1]["status"]["failed"].as_str().unwrap().contains("absent.txt"), "{rows:?}");
    // It is skipped, unless it is to be tried again.
    let again = output(folder, &["run"]);
    let shown = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(shown.contains("2 of them are over") && !shown.contains("none-s1: started"), "{shown}");
    let retried = output(folder, &["run", "--retry-failed"]);
    assert!(String::from_utf8_lossy(&retried.stderr).contains("none-s1: started"), "{retried:?}");
}

#[test]
fn a_run_that_another_process_holds_is_left_alone_and_can_be_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    study(folder, "question = \"?\"\nbase = \"base.toml\"\nrepeats = 1\n");
    let held = moelab_native::store::Directory::open(&folder.join("runs/control-s1")).unwrap();
    let busy = output(folder, &["run"]);
    let shown = String::from_utf8_lossy(&busy.stderr).into_owned();
    assert_eq!(busy.status.code(), Some(75), "{shown}");
    assert!(shown.contains("control-s1: left alone") && shown.contains("the same command continues"), "{shown}");
    drop(held);
    assert_eq!(output(folder, &["run"]).status.code(), Some(0));
}

#[test]
fn a_trainer_that_panics_takes_one_run_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    study(folder, "question = \"?\"\nbase = \"base.toml\"\nrepeats = 2\n");
    let log = folder.join("operations");
    assert!(suite(folder, &["run"]).env("MOELAB_FAULT_LOG", &log).output().unwrap().status.success());
    let operations = fs::read_to_string(log).unwrap();
    let of_log = operations.lines().enumerate().filter(|(_, line)| line.ends_with("control-s1/metrics.jsonl"));
    let (at, _) = of_log.last().expect("the run appends to its log");
    fs::remove_dir_all(folder.join("runs")).unwrap();
    let run = suite(folder, &["run"]).env("MOELAB_FAULT", format!("panic:{at}")).output().unwrap();
    let shown = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(2), "{shown}");
    assert!(shown.contains("control-s1: failed: the trainer stopped: injected panic"), "{shown}");
    let rows = lines(&output(folder, &["status", "--json"]));
    assert_eq!(rows[1]["status"], serde_json::json!({ "ended": "completed" }), "{rows:?}");
    // Tried again, it is resumed.
    let retried = output(folder, &["run", "--retry-failed"]);
    assert_eq!(retried.status.code(), Some(0), "{}", String::from_utf8_lossy(&retried.stderr));
}

#[test]
fn a_full_disk_stops_a_study_with_its_own_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    study(folder, "question = \"?\"\nbase = \"base.toml\"\nrepeats = 2\n");
    let log = folder.join("operations");
    assert!(suite(folder, &["run"]).env("MOELAB_FAULT_LOG", &log).output().unwrap().status.success());
    let operations = fs::read_to_string(log).unwrap();
    let of_log = operations.lines().enumerate().filter(|(_, line)| line.ends_with("control-s1/metrics.jsonl"));
    let (at, _) = of_log.last().expect("the run appends to its log");
    fs::remove_dir_all(folder.join("runs")).unwrap();
    let run = suite(folder, &["run"]).env("MOELAB_FAULT", format!("full:{at}")).output().unwrap();
    let shown = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(74), "{shown}");
    assert!(!shown.contains("control-s2: started"), "{shown}");
    assert_eq!(output(folder, &["run"]).status.code(), Some(0), "with space again it continues");
}

/// The text of a study is split like that of a single run: its validation documents are not trained on. Its runs share it.
#[test]
fn a_run_of_a_study_on_text_has_the_bits_of_a_single_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for document in 0..30 {
        let text = format!("document {document} says that {} and {} are words. ", document * 7, document * document).repeat(4);
        fs::write(folder.join(format!("{document:02}.txt")), text).unwrap();
    }
    study(folder, "question = \"?\"\nbase = \"base.toml\"\nrepeats = 3\n");
    let data = format!("[data]\nkind = \"text\"\npaths = [{:?}]\n", folder.join("*.txt"));
    fs::write(folder.join("base.toml"), BASE.replace("[data]\n", &data)).unwrap();
    let run = output(folder, &["run"]);
    let shown = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "{shown}");
    assert_eq!(shown.matches("30 files are read").count(), 2, "once for the audit, once for all runs: {shown}");
    let mut alone = Command::new(env!("CARGO_BIN_EXE_moelab"));
    alone.current_dir(ROOT).arg("train").arg(folder.join("base.toml")).arg("--out").arg(folder.join("alone")).args(["--set", "seed=1"]);
    let alone = alone.output().unwrap();
    assert!(alone.status.success(), "{}", String::from_utf8_lossy(&alone.stderr));
    let result = |run: &str| -> Value {
        let summary: Value = serde_json::from_slice(&fs::read(folder.join(run).join("summary.json")).unwrap()).unwrap();
        ["weights_sha256", "data_sha256", "final_val_ce", "baselines", "epoch"].map(|key| summary[key].clone()).to_vec().into()
    };
    assert_eq!(result("alone"), result("runs/control-s1"));
    // The size of an epoch is in the run folder, for curves and for the audit of a report.
    let epoch = &result("alone")[4];
    assert!(epoch["windows"].as_u64() > Some(0) && epoch["tokens"].as_u64() > epoch["windows"].as_u64(), "{epoch}");
}

/// Two studies of the same file name do not share a folder.
#[test]
fn the_folder_of_a_study_is_named_after_its_path() {
    let place = tempfile::tempdir().unwrap();
    for (file, folder) in [("configs/a/as_run/suite.toml", "a-as_run"), ("configs/b/as_run/suite.toml", "b-as_run"), ("c/suite.toml", "c")]
    {
        let path = place.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        study(path.parent().unwrap(), "");
        fs::write(&path, "question = \"?\"\nbase = \"base.toml\"\nrepeats = 1\n").unwrap();
        let plan = |study: &str, within: &Path| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_moelab"));
            command.current_dir(within).args(["suite", "plan", study]).output().unwrap()
        };
        let planned = plan(file, place.path());
        assert!(planned.status.success(), "{}", String::from_utf8_lossy(&planned.stderr));
        assert!(place.path().join("runs").join(folder).join("plan.jsonl").is_file(), "{file}");
        // Wherever the command is given.
        assert!(plan("suite.toml", path.parent().unwrap()).status.success());
        assert!(path.with_file_name("runs").join(folder).is_dir(), "{file}");
    }
}

#[test]
fn scripts_for_other_engines_run_every_index() {
    let folder = tempfile::tempdir().unwrap();
    study(folder.path(), STUDY);
    for (engine, wanted) in [("hyperqueue", "hq submit --wait --array 0-3"), ("slurm", "#SBATCH --array=0-3"), ("parallel", "--index 3\n")]
    {
        let script = output(folder.path(), &["emit", "--to", engine]);
        let text = String::from_utf8_lossy(&script.stdout).into_owned();
        assert!(text.contains(wanted) && text.contains("suite promote"), "{text}");
    }
}

#[test]
fn a_study_that_the_audit_refuses_is_not_run_unless_it_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let same = "question = \"?\"\nbase = \"base.toml\"\nrepeats = 1\n[arms.same]\nset = [\"model.router.top_k=2\"]\n";
    study(folder, same);
    let refused = output(folder, &["run"]);
    let shown = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{shown}");
    assert!(shown.contains("the audit refuses this study") && shown.contains("identical-arms"), "{shown}");
    assert!(!folder.join("runs/control-s1").exists());
    let planned = output(folder, &["plan"]);
    assert_eq!(planned.status.code(), Some(2), "{planned:?}");
    // Nor run by run, in a folder that was planned before.
    study(folder, "question = \"?\"\nbase = \"base.toml\"\nrepeats = 1\n");
    assert!(output(folder, &["plan"]).status.success());
    study(folder, same);
    assert_eq!(output(folder, &["run", "--index", "0"]).status.code(), Some(2));
    assert!(!folder.join("runs/control-s1").exists());
    study(folder, &format!("{same}[overrides]\nidentical-arms = \"replicas on purpose\"\ninert-knob = \"replicas on purpose\"\n"));
    let run = output(folder, &["run"]);
    let shown = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(0), "{shown}");
    assert!(shown.contains("(overridden: replicas on purpose)"), "{shown}");
    assert!(String::from_utf8_lossy(&run.stdout).contains("IDENTICAL") || shown.contains("identical"), "{run:?}");
}

/// Some settings do nothing in a model although its config differs: that is seen in updates on the device, before the first run.
#[test]
fn a_setting_that_does_nothing_in_the_updates_is_refused_before_the_first_run() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let inert = "question = \"?\"\nbase = \"base.toml\"\nrepeats = 1\nset = [\"model.router.experts=1\", \"model.router.top_k=1\"]\n\
                 [arms.half]\nset = [\"model.balance.coefficient=0.5\"]\n";
    study(folder, inert);
    let refused = output(folder, &["run"]);
    let shown = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(2), "{shown}");
    assert!(shown.contains("the updates of control and half are identical, bit for bit"), "{shown}");
    assert!(!folder.join("runs/control-s1").exists());
    // An override is in the report as well, which is written without a device.
    let overrides =
        ["inert-knob", "dead-parameter", "dropped-term", "constant-loss-term"].map(|check| format!("{check} = \"on purpose\"\n")).concat();
    study(folder, &format!("{inert}[overrides]\n{overrides}"));
    let run = output(folder, &["run"]);
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(output(folder, &["report"]).status.success());
    let report = fs::read_to_string(folder.join("runs/report.md")).unwrap();
    assert!(report.contains("identical, bit for bit") && report.contains("Overridden: on purpose"), "{report}");
}
