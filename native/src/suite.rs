//! Commands for studies: list, plan, run, status, promote, report, watch, emit, ask, tell.
//!
//! The logic is in `moelab::lab::suite`; here are folders, threads and the terminal.
//!
//! Long because each command is a few lines, and there are ten.

mod audit;
mod emit;
mod report;
mod slots;
mod trials;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use moelab::{
    lab::{
        study_report::{Beside, gather},
        suite::{Coordinator, Options, RunStatus, SuiteEvent, SuiteFolder, audit::findings, stored, table},
    },
    run::{
        suite::{self, Plan, Suite},
        summary::ExitReason,
    },
};
use moelab_native::{err, folders::Folders, out, print, store::Directory};

use crate::{Common, open};

/// Where the studies' runs are kept by default.
const RUNS: &str = "runs";

/// A study and its folder.
#[derive(Args, Clone)]
pub struct StudyArgs {
    /// The study: a TOML file, or the folder of its runs.
    study: PathBuf,
    /// The folder of its runs. Default: runs/NAME, where NAME is the path of the study below `configs`, as in runs/exp8-as_run.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Set one key of the study, for example repeats=5. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

#[derive(Subcommand)]
pub enum SuiteCommand {
    /// List the studies below a folder, with their questions.
    List {
        /// The folder.
        #[arg(default_value = "configs")]
        folder: PathBuf,
    },
    /// List the runs of a study, what they cost, and what differs between its arms. Refuses what cannot be compared.
    Plan {
        #[command(flatten)]
        study: StudyArgs,
    },
    /// Make the runs of a study that are missing.
    Run {
        #[command(flatten)]
        study: StudyArgs,
        /// Number of runs made at once on each adapter.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
        slots: u16,
        /// Adapters to use, each like --adapter, separated by commas.
        #[arg(long, value_delimiter = ',', value_name = "CHOICE")]
        adapters: Vec<moelab::gpu::AdapterChoice>,
        /// Stop at the end of this stage.
        #[arg(long, value_name = "STAGE")]
        until: Option<String>,
        /// Try runs again that failed.
        #[arg(long)]
        retry_failed: bool,
        /// Make only the run in this place of plan.jsonl, from 0: for a job array. Does nothing if it is made.
        #[arg(long, conflicts_with_all = ["slots", "adapters", "until", "retry_failed"])]
        index: Option<usize>,
    },
    /// Print what has become of each run.
    Status {
        #[command(flatten)]
        study: StudyArgs,
    },
    /// Decide at the end of a stage which arms continue, or which repeats are added, without making runs.
    Promote {
        #[command(flatten)]
        study: StudyArgs,
        /// Print the decisions without recording them.
        #[arg(long)]
        dry_run: bool,
    },
    /// Judge the arms of a study by the runs that are made.
    Report {
        #[command(flatten)]
        study: StudyArgs,
        /// Also keep the report in this folder: RESULTS.md, with its figures in results/.
        #[arg(long, value_name = "FOLDER")]
        keep: Option<PathBuf>,
    },
    /// Print the status of a study every two seconds until it is done.
    Watch {
        #[command(flatten)]
        study: StudyArgs,
    },
    /// Print a script that makes the runs on another engine.
    Emit {
        #[command(flatten)]
        study: StudyArgs,
        /// The engine.
        #[arg(long, value_enum)]
        to: emit::Engine,
    },
    /// Print the run to make for the parameters that a sampler such as Optuna proposes, as a line of JSON: trial, state, command.
    Ask {
        #[command(flatten)]
        study: StudyArgs,
        /// Keys of the config and their values, for example {"optimizer.muon.lr": 0.003}.
        #[arg(long, value_name = "JSON")]
        params: String,
    },
    /// Print what is known of trials, each as a line of JSON: state, value, losses by update.
    Tell {
        #[command(flatten)]
        study: StudyArgs,
        /// Trials. Default: all that were asked for.
        trials: Vec<String>,
    },
}

/// Runs a command.
pub fn suite(common: &Common, command: SuiteCommand) -> Result<ExitReason> {
    match command {
        SuiteCommand::List { folder } => list(common, &folder).and_then(crate::exit::result),
        SuiteCommand::Plan { study } => plan(common, &study).and_then(crate::exit::result),
        SuiteCommand::Run { study, index: Some(index), .. } => slots::run_one(common, &study.open()?, index),
        SuiteCommand::Run { study, slots, adapters, until, retry_failed, .. } => {
            let adapters: Vec<_> = match adapters.is_empty() {
                true => vec![common.adapter.clone(); usize::from(slots)],
                // Several slots on each.
                false => (0..slots).flat_map(|_| adapters.iter().cloned().map(Some)).collect(),
            };
            let options = Options { slots: adapters.len(), retry_failed, until_stage: until };
            run(common, &study.open()?, options, &adapters)
        }
        SuiteCommand::Status { study } => status(common, &study.open()?).map(|_| ()).and_then(crate::exit::result),
        SuiteCommand::Promote { study, dry_run } => promote(common, &study.open()?, dry_run).and_then(crate::exit::result),
        SuiteCommand::Report { study, keep } => report(common, &study, &study.open()?, keep.as_deref()).and_then(crate::exit::result),
        SuiteCommand::Watch { study } => watch(common, &study.open()?).and_then(crate::exit::result),
        SuiteCommand::Ask { study, params } => trials::ask(&study.open()?, &params).and_then(crate::exit::result),
        SuiteCommand::Tell { study, trials } => trials::tell(&study.open()?, &trials).and_then(crate::exit::result),
        SuiteCommand::Emit { study, to } => {
            let opened = study.open()?;
            let script = emit::script(to, common.adapter.as_ref(), &study.study, &opened.folder, opened.plan.runs.len());
            if common.json {
                print::json(&serde_json::json!({ "script": script }));
            } else {
                out!("{script}");
            }
            crate::exit::result(())
        }
    }
}

/// Makes one run of the plan in a study's folder.
pub fn run_planned(common: &Common, plan: &Path, index: usize) -> Result<ExitReason> {
    let folder = plan.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let study = StudyArgs { study: folder.to_path_buf(), out: None, sets: Vec::new() };
    ensure!(plan.is_file(), "{}: there is no such plan; `moelab suite plan` makes it", print::path(plan));
    slots::run_one(common, &study.open()?, index)
}

/// A study that was read, with its plan.
pub struct Opened {
    /// The study.
    pub suite: Suite,
    /// Its runs, as far as they are planned.
    pub plan: Plan,
    /// The folder of its runs, which need not exist.
    pub folder: PathBuf,
}

impl StudyArgs {
    /// The arguments, for a shell.
    fn asked(&self) -> String {
        let out = self.out.iter().flat_map(|out| ["--out".to_string(), print::path(out)]);
        let sets = self.sets.iter().flat_map(|set| ["--set".to_string(), set.clone()]);
        let words: Vec<String> = std::iter::once(print::path(&self.study)).chain(out).chain(sets).map(|word| emit::quoted(&word)).collect();
        words.join(" ")
    }

    /// Reads the study: from its file, or as it is in the folder of its runs.
    fn open(&self) -> Result<Opened> {
        let read = |path: &str| open::read_text(Path::new(path));
        let is_folder = self.study.is_dir();
        let file = if is_folder { self.study.join(moelab::lab::suite::SUITE) } else { self.study.clone() };
        let path = file.display().to_string();
        ensure!(file.exists(), "{}: there is no such study; `moelab suite list` lists those below configs/", print::path(&self.study));
        let (suite, stored) = if is_folder {
            let store = Directory::read_only(&self.study).with_context(|| print::path(&self.study))?;
            let (suite, plan) = stored(&store, &self.sets).with_context(|| print::path(&self.study))?;
            (suite, Some(plan))
        } else {
            (suite::load(&read, &path, &self.sets)?, None)
        };
        let folder = match (&self.out, is_folder) {
            (Some(out), _) => out.clone(),
            (None, true) => self.study.clone(),
            (None, false) => Path::new(RUNS).join(name_of_study(&file)),
        };
        let plan = match stored {
            Some(plan) => plan,
            None => suite::plan(&suite, &read, &path)?,
        };
        Ok(Opened { suite, plan, folder })
    }
}

/// The name of a study: the path of its file below the innermost folder `configs`, with `-` for `/`, and without the file's own name if
/// that is `suite` or `study`, as many are. Elsewhere it is the name of the file, or that of its folder.
fn name_of_study(file: &Path) -> String {
    let file = file.canonicalize().unwrap_or_else(|_| file.to_path_buf());
    let mut parts: Vec<String> = file.with_extension("").components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    let below = parts.iter().rposition(|part| part == "configs").map(|at| at + 1);
    let is_generic = parts.last().is_some_and(|name| name == "suite" || name == "study");
    if is_generic && below.is_none_or(|below| below + 1 < parts.len()) {
        parts.pop();
    }
    parts.split_off(below.unwrap_or(parts.len().saturating_sub(1))).join("-")
}

impl Opened {
    /// Its folder for writing, with its files.
    fn folder(&self) -> Result<SuiteFolder<Folders>> {
        let folders = Folders::open(&self.folder).with_context(|| print::path(&self.folder))?;
        Ok(SuiteFolder::open(folders, &self.suite, self.plan.clone())?)
    }

    /// Its folder for reading.
    fn folders(&self) -> Result<Folders> {
        Folders::read_only(&self.folder).with_context(|| format!("{}: `moelab suite run` makes it", print::path(&self.folder)))
    }

    fn coordinator(&self, options: Options) -> Result<Coordinator<Folders>> {
        if let Some(stage) = &options.until_stage {
            let names: Vec<&str> = self.plan.stages.iter().map(|(name, _)| name.as_str()).collect();
            ensure!(
                names.contains(&stage.as_str()),
                "--until: there is no stage `{}`; the study has {}",
                print::name(stage),
                names.join(", ")
            );
        }
        Ok(Coordinator::new(self.folder()?, self.suite.clone(), options, seconds_since_1970)?)
    }

    /// The study as it stands, for reading: another process may be making its runs.
    fn as_it_stands(&self) -> Result<Coordinator<Folders>> {
        let folder = SuiteFolder::read(self.folders()?, self.plan.clone())?;
        Ok(Coordinator::new(folder, self.suite.clone(), Options { slots: 1, ..Options::default() }, seconds_since_1970)?)
    }
}

fn seconds_since_1970() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

fn list(common: &Common, folder: &Path) -> Result<()> {
    let pattern = folder.join("**/*.toml").display().to_string();
    let mut found = Vec::new();
    for path in glob::glob(&pattern).with_context(|| print::path(folder))?.flatten() {
        let Ok(text) = open::read_text(&path) else { continue };
        // A config of a run has no question, and need not be a valid study.
        if !text.lines().any(|line| line.trim_start().starts_with("question")) {
            continue;
        }
        let read = |path: &str| open::read_text(Path::new(path));
        match suite::load(&read, &path.display().to_string(), &[]) {
            Ok(suite) => found.push((path, suite)),
            Err(problems) => err!("{problems}"),
        }
    }
    ensure!(!found.is_empty(), "{}: no study below this folder; a study is a TOML file with a `question`", print::path(folder));
    for (path, suite) in found {
        if common.json {
            print::json(&serde_json::json!({ "path": path.display().to_string(), "question": suite.question, "arms": suite.arms().len() }));
        } else {
            out!("{}\n  {}\n  {} arms", print::path(&path), print::name(&suite.question), suite.arms().len());
        }
    }
    Ok(())
}

fn plan(common: &Common, study: &StudyArgs) -> Result<()> {
    let opened = study.open()?;
    audit::check(&findings(&opened.suite, &opened.plan, None::<&Folders>)?)?;
    let folder = opened.folder()?;
    if common.json {
        folder.plan.runs.iter().for_each(print::json);
        return Ok(());
    }
    out!("{}", table::plan(&folder.plan));
    err!("{} runs in {}", folder.plan.runs.len(), print::path(&opened.folder.join("plan.jsonl")));
    Ok(())
}

fn run(common: &Common, opened: &Opened, options: Options, adapters: &[Option<moelab::gpu::AdapterChoice>]) -> Result<ExitReason> {
    let is_new = audit::is_new(opened)?;
    let found = match is_new {
        true => {
            let common = Common { adapter: adapters.first().cloned().flatten(), ..common.clone() };
            audit::before_first_run(&common, opened)?
        }
        false => findings(&opened.suite, &opened.plan, None::<&Folders>)?,
    };
    audit::check(&found)?;
    let coordinator = opened.coordinator(options)?;
    if is_new {
        coordinator.folder().store.set_audit(&found)?;
    }
    slots::run(common, opened, coordinator, adapters)
}

/// Prints the status of a study, and returns whether all its runs are made.
fn status(common: &Common, opened: &Opened) -> Result<bool> {
    let folders = Folders::read_only(&opened.folder)?;
    let plan = match folders.plan()? {
        runs if runs.is_empty() => opened.plan.clone(),
        runs => Plan::from_runs(&opened.suite, runs)?,
    };
    let mut rows = Vec::new();
    for run in &plan.runs {
        let (status, summary) = RunStatus::of(&folders, &run.id)?;
        rows.push((run, status, summary));
    }
    let is_done = rows.iter().all(|(_, status, _)| status.is_over());
    if common.json {
        for (run, status, summary) in &rows {
            print::json(&serde_json::json!({
                "run": run.id, "arm": run.arm, "seed": run.seed, "status": status,
                "updates": summary.as_ref().map(|summary| summary.updates),
                "final_val_ce": summary.as_ref().and_then(|summary| summary.final_val_ce),
                "best_val_ce": summary.as_ref().and_then(|summary| summary.best_val_ce),
            }));
        }
    } else {
        out!("{}", table::status(&plan, &rows));
    }
    Ok(is_done)
}

fn promote(common: &Common, opened: &Opened, dry_run: bool) -> Result<()> {
    let mut coordinator;
    let next = if dry_run {
        coordinator = opened.as_it_stands()?;
        coordinator.preview()?
    } else {
        coordinator = opened.coordinator(Options { slots: 1, ..Options::default() })?;
        coordinator.decide()?
    };
    for event in &next {
        if common.json {
            print::json(event);
        } else if let Some(line) = table::event(event) {
            out!("{line}");
        }
    }
    if next.is_empty() {
        err!("nothing to decide: {}", coordinator.why_nothing_is_decided());
    }
    Ok(())
}

/// Writes the report of a study beside its plan, and prints the judgement.
fn report(common: &Common, study: &StudyArgs, opened: &Opened, keep: Option<&Path>) -> Result<()> {
    let mut coordinator = opened.as_it_stands()?;
    let asked = study.asked();
    let beside = Beside {
        name: open::name(&opened.folder),
        findings: Some(coordinator.findings()?),
        commands: vec![format!("moelab suite run {asked}"), format!("moelab suite report {asked}")],
    };
    let gathered = gather(&mut coordinator, &opened.suite, beside)?;
    let files = report::write(&opened.folder, &gathered)?;
    if let Some(folder) = keep {
        report::keep(folder, &gathered)?;
    }
    err!("{} files in {}, {} first", files.len(), print::path(&opened.folder), files[0]);
    judged(common, &mut coordinator)
}

/// Prints the judgement of a study. Arms that a refusal of the audit is about get no verdict.
fn judged(common: &Common, coordinator: &mut Coordinator<Folders>) -> Result<()> {
    let judged = coordinator.judged()?;
    audit::show(&judged.findings);
    if common.json {
        for outcome in &judged.outcomes {
            print::json(&serde_json::json!({ "outcome": outcome, "without_verdict": judged.without_verdict }));
        }
    } else {
        out!("{}", judged.text);
    }
    Ok(())
}

fn watch(common: &Common, opened: &Opened) -> Result<()> {
    loop {
        if status(common, opened)? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(2));
        if !common.json {
            out!("");
        }
    }
}

/// The exit reason of a study. A run that another process holds is left alone, so the same command may succeed later.
fn reason(is_complete: bool, is_stopped: bool, failed: usize) -> ExitReason {
    match (is_stopped, is_complete) {
        (true, _) => ExitReason::Interrupted,
        (false, _) if failed > 0 => ExitReason::Failed,
        (false, true) => ExitReason::Completed,
        (false, false) => ExitReason::Interrupted,
    }
}

/// Shows an event of a study.
fn show(common: &Common, event: &SuiteEvent) {
    if common.json {
        print::json(event);
    }
    if let Some(line) = table::event(event) {
        err!("{line}");
    }
}
