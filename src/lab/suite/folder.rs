//! The folder of a study.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::gating;
use crate::{
    config_file::{Problems, Unreadable},
    lab::{
        files::{EFFECTIVE_CONFIG, METRICS},
        gates::DecisionRecord,
        results,
        store::{Store, StoreError},
    },
    run::{
        suite::{self, Plan, PlanError, PlannedRun, Suite},
        summary::{ExitReason, Summary},
    },
};

/// Name of the file with the study.
pub const SUITE: &str = "suite.toml";
/// Name of the file with its runs.
pub const PLAN: &str = "plan.jsonl";
/// Name of the file with the decisions of its gates.
pub const DECISIONS: &str = "decisions.jsonl";

/// The folders of a study and of its runs.
///
/// Three implementations: directories, the browser's private file system, and memory.
pub trait SuiteStore {
    /// The folder of the study itself, for reading.
    fn root(&self) -> &dyn Store;

    /// The folder of the study itself, for writing.
    fn root_mut(&mut self) -> &mut dyn Store;

    /// The folder of a run for reading; `None` if it does not exist.
    ///
    /// # Errors
    /// A folder that cannot be opened.
    fn run(&self, id: &str) -> Result<Option<Box<dyn Store>>, StoreError>;

    /// The folder of a run for writing, which must exist.
    ///
    /// # Errors
    /// A folder that cannot be opened, or that another process is writing.
    fn run_mut(&mut self, id: &str) -> Result<Box<dyn Store>, StoreError>;
}

/// Whether a run was started, so that it must be resumed.
///
/// # Errors
/// If its folder cannot be read.
pub fn is_started<S: SuiteStore>(folders: &S, run: &str) -> Result<bool, StoreError> {
    let Some(store) = folders.run(run)? else { return Ok(false) };
    // The first line of the log commits the start.
    Ok(store.read(EFFECTIVE_CONFIG)?.is_some() && store.read_at(METRICS, 0, 1)?.is_some_and(|log| !log.is_empty()))
}

/// Name of the file in a study's folder that says why a run failed: one that could not be opened has no folder of its own.
pub fn failure_file(run: &str) -> String {
    format!("failed-{run}.txt")
}

/// What has become of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// It was not started yet.
    Waiting,
    /// It has made this many updates and can be resumed.
    Partial(u32),
    /// It has ended.
    Ended(ExitReason),
    /// It failed, for this reason, and is skipped.
    Failed(String),
}

impl RunStatus {
    /// Of a run, by its folder; and its summary, if it has ended.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn of<S: SuiteStore>(folders: &S, run: &str) -> Result<(RunStatus, Option<Summary>), StoreError> {
        let failure = || -> Result<Option<RunStatus>, StoreError> {
            let bytes = folders.root().read(&failure_file(run))?;
            Ok(bytes.map(|bytes| RunStatus::Failed(String::from_utf8_lossy(&bytes).trim_end().to_string())))
        };
        let unstarted = || Ok((failure()?.unwrap_or(RunStatus::Waiting), None));
        let (true, Some(store)) = (is_started(folders, run)?, folders.run(run)?) else { return unstarted() };
        let summary = results::summary(&*store)?;
        let status = match &summary {
            None => failure()?.unwrap_or(RunStatus::Partial(0)),
            Some(summary) => match summary.exit {
                ExitReason::Completed | ExitReason::EarlyStopped | ExitReason::StoppedByGate | ExitReason::Diverged => {
                    RunStatus::Ended(summary.exit)
                }
                ExitReason::Failed => RunStatus::Failed(summary.detail.clone().unwrap_or_default()),
                _ => failure()?.unwrap_or(RunStatus::Partial(summary.updates)),
            },
        };
        Ok((status, summary))
    }

    /// Whether nothing more is done about it.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Ended(_) | Self::Failed(_))
    }

    /// In a few words.
    pub fn words(&self) -> String {
        match self {
            Self::Waiting => "waiting".into(),
            Self::Partial(0) => "started".into(),
            Self::Partial(update) => format!("at update {update}"),
            Self::Ended(ExitReason::Completed) => "done".into(),
            Self::Ended(ExitReason::EarlyStopped) => "stopped early".into(),
            Self::Ended(ExitReason::StoppedByGate) => "stopped by a gate".into(),
            Self::Ended(reason) => format!("{reason:?}").to_lowercase(),
            Self::Failed(_) => "failed".into(),
        }
    }
}

/// Why a study cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// Its folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its file.
    #[error(transparent)]
    Study(#[from] Problems),
    /// It cannot be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It overrides what cannot be overridden.
    #[error("{0}")]
    Override(String),
    /// The folder belongs to a study that differs.
    #[error("the folder holds the runs of another study:\n  {}\nRun the study in another folder (`--out`), or restore what differs", .0.join("\n  "))]
    Other(Vec<String>),
    /// A file of the study.
    #[error(
        "`{file}`, line {line}: {problem}. Restore it from a backup; if it is `plan.jsonl`, remove it: it is planned again, and no run is lost"
    )]
    Line {
        /// The file.
        file: &'static str,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
}

/// A study's folder with its plan.
pub struct SuiteFolder<S> {
    /// The folders.
    pub store: S,
    /// The plan: that of the study, and the runs that were added to it.
    pub plan: Plan,
}

impl<S: SuiteStore> SuiteFolder<S> {
    /// Opens the folder of a study, and creates its files if there are none.
    ///
    /// # Errors
    /// A folder with runs of other settings; a file that cannot be read or written.
    pub fn open(store: S, suite: &Suite, plan: Plan) -> Result<SuiteFolder<S>, SuiteError> {
        let known = planned(store.root())?.len();
        let mut folder = SuiteFolder::read(store, plan)?;
        folder.replace(SUITE, &suite.to_effective_toml())?;
        if folder.plan.runs.len() != known {
            folder.save_plan()?;
        }
        Ok(folder)
    }

    /// Reads the folder of a study, also while another process makes its runs.
    ///
    /// # Errors
    /// A folder with runs of other settings; a file that cannot be read.
    pub fn read(store: S, mut plan: Plan) -> Result<SuiteFolder<S>, SuiteError> {
        let known = planned(store.root())?;
        differences(&plan, &known)?;
        for run in &known {
            let arm = plan.arms.iter().position(|arm| arm.name == run.arm);
            plan.runs.retain(|other| other.id != run.id);
            if arm.is_some() {
                plan.runs.push(run.clone());
            }
        }
        // Known runs keep their places: a job array refers to them by index.
        plan.runs.sort_by_key(|run| known.iter().position(|other| other.id == run.id).unwrap_or(usize::MAX));
        plan.runs.iter_mut().enumerate().for_each(|(index, run)| run.index = index);
        Ok(SuiteFolder { store, plan })
    }

    /// Writes the plan, after runs were added to it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save_plan(&mut self) -> Result<(), StoreError> {
        self.replace(PLAN, &self.plan.to_lines())
    }

    /// Appends a line to a file of the study.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&mut self, file: &str, line: &str) -> Result<(), StoreError> {
        let root = self.store.root_mut();
        if root.read(file)?.is_none() {
            root.write(file, b"")?;
            root.sync("")?;
        }
        root.append(file, format!("{line}\n").as_bytes())?;
        root.sync(file)
    }

    /// Records why a run failed, or that it is tried again.
    ///
    /// # Errors
    /// If the file cannot be written or removed.
    pub fn set_failure(&mut self, run: &str, problem: Option<&str>) -> Result<(), StoreError> {
        match problem {
            Some(problem) => self.replace(&failure_file(run), &format!("{problem}\n")),
            None => self.store.root_mut().remove(&failure_file(run)),
        }
    }

    /// Creates or replaces a file of the study, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn replace(&mut self, file: &str, text: &str) -> Result<(), StoreError> {
        self.replace_bytes(file, text.as_bytes())
    }

    /// The same for any content.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn replace_bytes(&mut self, file: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let root = self.store.root_mut();
        if root.read(file)?.is_some_and(|found| found == bytes) {
            return Ok(());
        }
        let draft = format!("{file}.tmp-new");
        root.write(&draft, bytes)?;
        root.sync(&draft)?;
        root.rename(&draft, file)?;
        root.sync("")
    }
}

/// The lines of a file of JSON lines. What a crash left at its end is left out.
pub(super) fn lines<T: serde::de::DeserializeOwned>(root: &dyn Store, file: &'static str) -> Result<Vec<T>, SuiteError> {
    let bytes = root.read(file)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let line = |(place, text): (usize, &str)| {
        serde_json::from_str(text).map_err(|error| SuiteError::Line { file, line: place + 1, problem: error.to_string() })
    };
    whole.lines().enumerate().map(line).collect()
}

/// The runs in `plan.jsonl`.
///
/// # Errors
/// A line that is no run.
pub fn planned(root: &dyn Store) -> Result<Vec<PlannedRun>, SuiteError> {
    lines(root, PLAN)
}

/// The study in a folder of its runs, with its plan: it needs none of the files that it was planned from.
///
/// # Errors
/// A file that is missing, or that this release refuses.
pub fn stored(root: &dyn Store, sets: &[String]) -> Result<(Suite, Plan), SuiteError> {
    let read = |_: &str| match root.read(SUITE) {
        Ok(bytes) => {
            bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).ok_or_else(|| Unreadable::from("no study is stored here"))
        }
        Err(error) => Err(error.to_string().into()),
    };
    let suite = suite::load(&read, SUITE, sets)?;
    let plan = Plan::from_runs(&suite, planned(root)?)?;
    Ok((suite, plan))
}

/// The decisions of the gates in a study's folder.
///
/// # Errors
/// A line that is no decision.
pub fn decisions(root: &dyn Store) -> Result<Vec<DecisionRecord>, SuiteError> {
    lines(root, DECISIONS)
}

/// The update that a run may be brought to now, by the decisions so far; `None` if its arm was stopped.
///
/// # Errors
/// If the decisions cannot be read.
pub fn target<S: SuiteStore>(store: &S, suite: &Suite, plan: &Plan, run: &PlannedRun) -> Result<Option<u32>, SuiteError> {
    let decisions = decisions(store.root())?;
    if gating::is_stopped(&decisions, &suite.gates, &run.arm) {
        return Ok(None);
    }
    Ok(Some(until(plan, gating::stage_reached(plan, &suite.gates, &decisions), run)))
}

/// The update at which a run reaches the end of a stage.
pub(super) fn until(plan: &Plan, stage: usize, run: &PlannedRun) -> u32 {
    if stage + 1 >= plan.stages.len() { run.updates } else { plan.stages[stage].1.min(run.updates) }
}

/// Refuses a folder whose runs have other settings than the plan states for them. Arms may be added, and lengths of evaluation and
/// bookkeeping may change as far as a run may resume with them.
fn differences(plan: &Plan, known: &[PlannedRun]) -> Result<(), SuiteError> {
    let mut found = Vec::new();
    for run in known {
        let Some(arm) = plan.arms.iter().find(|arm| arm.name == run.arm) else {
            found.push(format!("run `{}`: the study has no arm `{}` any more", run.id, run.arm));
            continue;
        };
        let now = plan.identity(arm, run.seed);
        let differs: Vec<&str> =
            now.iter().filter(|(class, hash)| run.identity.get(class) != Some(hash)).map(|(class, _)| class.name()).collect();
        if !differs.is_empty() {
            let keys = changed_keys(&run.settings, &plan.settings(arm, run.seed));
            found.push(format!("run `{}`: its {} settings differ: {}", run.id, differs.join(" and "), keys.join(", ")));
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    let more = found.len().saturating_sub(8);
    found.truncate(8);
    found.extend((more > 0).then(|| format!("and {more} more")));
    Err(SuiteError::Other(found))
}

fn changed_keys(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let value = |of: &BTreeMap<String, String>, key: &str| of.get(key).cloned().unwrap_or_else(|| "the default".into());
    let differing = keys.into_iter().filter(|key| before.get(*key) != now.get(*key));
    differing.map(|key| format!("`{key}` was {}, is {}", value(before, key), value(now, key))).collect()
}
