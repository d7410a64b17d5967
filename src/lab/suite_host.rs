//! Runs a study on one slot, driven by messages: [`SuiteCommand`]s in, [`SuiteEvent`]s out.
//!
//! For a program with one thread for training, such as a browser's worker: it owns the study's [`Coordinator`] and the [`Host`] of its runs. Natively
//! the slots are threads, and the command line drives the same coordinator itself.
//!
//! [`SuiteHost::advance`] keeps its budget as [`Host::advance`] does; to open a study, to judge it and to write its report takes one call each,
//! however long.

use std::collections::{BTreeMap, VecDeque};

use super::{
    host::{Activity, Clock, Environment, Host},
    results,
    study_report::{Beside, files, gather, report},
    suite::{Coordinator, Options, RunStatus, SuiteCommand, SuiteError, SuiteEvent, SuiteFolder, SuiteStore, audit, stored, table},
};
use crate::{
    config_file::Unreadable,
    run::{
        protocol::{Command, Problem},
        suite::{self, Plan, Suite},
    },
};

/// Seconds between two [`SuiteEvent::Standing`], unless something has ended.
const STANDING_SECONDS: f64 = 0.5;

/// At most one study, and its runs one after another.
pub struct SuiteHost<E, S> {
    host: Host<E>,
    folders: S,
    name: String,
    clock: Clock,
    seconds_since_1970: fn() -> f64,
    commands: VecDeque<SuiteCommand>,
    events: Vec<SuiteEvent>,
    study: Option<Study<S>>,
}

/// A study that is open.
struct Study<S> {
    suite: Suite,
    plan: Plan,
    coordinator: Coordinator<S>,
    is_running: bool,
    /// Update, training and validation loss of each run, as far as they are known.
    newest: BTreeMap<String, Newest>,
    /// When it was told where the study stands.
    told: f64,
}

#[derive(Clone, Copy, Default)]
struct Newest {
    update: u32,
    train_ce: Option<f64>,
    val_ce: Option<f64>,
}

impl<E: Environment, S: SuiteStore + Clone> SuiteHost<E, S> {
    /// A host of the study of this name whose files are in `folders`, where the environment must keep its runs as well.
    pub fn new(environment: E, folders: S, name: &str, seconds_since_1970: fn() -> f64) -> SuiteHost<E, S> {
        let clock = environment.clock();
        SuiteHost {
            host: Host::new(environment),
            folders,
            name: name.into(),
            clock,
            seconds_since_1970,
            commands: VecDeque::new(),
            events: Vec::new(),
            study: None,
        }
    }

    /// Queues a command; [`SuiteHost::advance`] executes it.
    pub fn send(&mut self, command: SuiteCommand) {
        self.commands.push_back(command);
    }

    /// Follows the commands that are there and works for `budget` seconds at most, as [`Host::advance`] does. Tells what happened, and what
    /// the host waits for now.
    pub fn advance(&mut self, budget: f64) -> (Vec<SuiteEvent>, Activity) {
        while let Some(command) = self.commands.pop_front() {
            let name = command.name();
            if let Err(problem) = self.follow(command) {
                self.events.push(SuiteEvent::Rejected { command: name.into(), problem: Box::new(problem) });
            }
        }
        let activity = self.proceed(budget).unwrap_or_else(|error| {
            self.events.push(SuiteEvent::Failed(Box::new(problem(error))));
            self.study = None;
            self.host.send(Command::Stop);
            Activity::Busy
        });
        (std::mem::take(&mut self.events), activity)
    }

    /// Whether the runs of a study are being made.
    pub fn is_running(&self) -> bool {
        self.study.as_ref().is_some_and(|study| study.is_running)
    }

    /// Blocks until the device has completed work. Only works natively.
    pub fn wait(&mut self) {
        self.host.wait();
    }

    fn follow(&mut self, command: SuiteCommand) -> Result<(), Problem> {
        let now = (self.clock)();
        match (command, &mut self.study) {
            (SuiteCommand::Open { .. } | SuiteCommand::Reopen, Some(study)) if study.is_running => {
                Err(Problem::new("a study is under way: stop it first"))
            }
            (SuiteCommand::Open { study, files }, _) => {
                let read = |path: &str| {
                    let name = path.rsplit('/').next().unwrap_or(path);
                    files.get(name).cloned().ok_or_else(|| Unreadable::from(format!("the file `{name}` was not given with the study")))
                };
                let suite = suite::load(&read, &study, &[])?;
                let plan = suite::plan(&suite, &read, &study).map_err(|error| Problem::new(error.to_string()))?;
                self.open(suite, plan)
            }
            (SuiteCommand::Reopen, _) => {
                let (suite, plan) = stored(self.folders.root(), &[]).map_err(problem)?;
                self.open(suite, plan)
            }
            (_, None) => Err(Problem::new("no study is open")),
            (SuiteCommand::Run { .. }, Some(study)) if study.is_running => Err(Problem::new("the study is under way")),
            (SuiteCommand::Run { retry_failed }, Some(_)) => self.run(retry_failed),
            (SuiteCommand::Judge, Some(study)) => {
                let judged = study.coordinator.judged().map_err(problem)?;
                self.events.push(SuiteEvent::Judged(Box::new(judged)));
                Ok(())
            }
            (SuiteCommand::Report, Some(study)) => {
                let beside =
                    Beside { name: self.name.clone(), findings: Some(study.coordinator.findings().map_err(problem)?), ..Beside::default() };
                let gathered = gather(&mut study.coordinator, &study.suite, beside).map_err(problem)?;
                self.events.push(SuiteEvent::Reported { files: files(&gathered, &report(&gathered)) });
                Ok(())
            }
            (_, Some(study)) if !study.is_running => Err(Problem::new("the study is not under way")),
            (SuiteCommand::Pause, Some(study)) => {
                study.coordinator.pause(now);
                Ok(())
            }
            (SuiteCommand::Continue, Some(study)) => {
                study.coordinator.resume(now);
                Ok(())
            }
            (SuiteCommand::Stop, Some(study)) => {
                study.coordinator.stop();
                Ok(())
            }
        }
    }

    fn open(&mut self, suite: Suite, plan: Plan) -> Result<(), Problem> {
        let folder = SuiteFolder::open(self.folders.clone(), &suite, plan).map_err(problem)?;
        let plan = folder.plan.clone();
        let mut newest = BTreeMap::new();
        for run in &plan.runs {
            let Some(store) = self.folders.run(&run.id)? else { continue };
            let Some(summary) = results::summary(&*store)? else { continue };
            newest.insert(run.id.clone(), Newest { update: summary.updates, train_ce: None, val_ce: summary.final_val_ce });
        }
        let mut coordinator = Coordinator::new(folder, suite.clone(), Options::default(), self.seconds_since_1970).map_err(problem)?;
        self.events.extend(coordinator.take_events());
        let mut study = Study { suite, plan, coordinator, is_running: false, newest, told: f64::NEG_INFINITY };
        self.events.push(study.standing());
        self.study = Some(study);
        Ok(())
    }

    /// Makes the missing runs, unless the audit refuses the study.
    fn run(&mut self, retry_failed: bool) -> Result<(), Problem> {
        let Some(study) = &mut self.study else { return Ok(()) };
        let findings = audit::findings(&study.suite, &study.plan, None::<&S>).map_err(problem)?;
        let refusal = audit::refusal(&findings);
        self.events.push(SuiteEvent::Audited { findings });
        if let Some(refusal) = refusal {
            return Err(Problem::new(refusal));
        }
        let folder = SuiteFolder::open(self.folders.clone(), &study.suite, study.plan.clone()).map_err(problem)?;
        let options = Options { slots: 1, retry_failed, until_stage: None };
        study.coordinator = Coordinator::new(folder, study.suite.clone(), options, self.seconds_since_1970).map_err(problem)?;
        study.is_running = true;
        Ok(())
    }

    fn proceed(&mut self, budget: f64) -> Result<Activity, SuiteError> {
        let Some(study) = self.study.as_mut().filter(|study| study.is_running) else {
            // What a study left that has failed.
            return Ok(self.host.advance(budget).1);
        };
        for order in study.coordinator.advance((self.clock)())? {
            self.host.send(order.command);
        }
        let has_ended = study.coordinator.has_ended();
        let (events, activity) = if has_ended { (Vec::new(), Activity::Idle) } else { self.host.advance(budget) };
        let activity = if events.is_empty() { activity } else { Activity::Busy };
        let now = (self.clock)();
        for event in events {
            study.coordinator.observe(0, event, now);
        }
        let events = study.coordinator.take_events();
        events.iter().for_each(|event| study.note(event));
        let is_news = |event: &SuiteEvent| {
            matches!(event, SuiteEvent::RunStarted { .. } | SuiteEvent::RunEnded { .. } | SuiteEvent::Paused | SuiteEvent::Ended { .. })
        };
        let is_due = events.iter().any(is_news) || now >= study.told + STANDING_SECONDS && activity != Activity::Idle;
        self.events.extend(events);
        if is_due {
            study.told = now;
            let standing = study.standing();
            self.events.push(standing);
        }
        if has_ended {
            study.is_running = false;
            let judged = study.coordinator.judged()?;
            self.events.push(SuiteEvent::Judged(Box::new(judged)));
        }
        Ok(activity)
    }
}

impl<S: SuiteStore> Study<S> {
    fn note(&mut self, event: &SuiteEvent) {
        match event {
            SuiteEvent::RunAdvanced { run, update, train_ce, .. } => {
                let newest = self.newest.entry(run.clone()).or_default();
                (newest.update, newest.train_ce) = (*update, *train_ce);
            }
            SuiteEvent::RunEvaluated { run, update, val_ce } => {
                let newest = self.newest.entry(run.clone()).or_default();
                (newest.update, newest.val_ce) = (*update, Some(*val_ce));
            }
            _ => {}
        }
    }

    fn standing(&mut self) -> SuiteEvent {
        let progress = self.coordinator.progress();
        let line = table::progress(&progress, self.coordinator.active());
        let active: Vec<&str> = self.coordinator.active().map(|(_, run, ..)| run).collect();
        let row = |(run, status): (&suite::PlannedRun, &RunStatus)| {
            let newest = self.newest.get(&run.id).copied().unwrap_or_default();
            let words = match status {
                _ if active.contains(&run.id.as_str()) => if self.coordinator.is_paused() { "paused" } else { "training" }.into(),
                RunStatus::Failed(problem) => format!("failed: {problem}"),
                status => status.words(),
            };
            table::row(run, &words, newest.update, newest.train_ce, newest.val_ce)
        };
        let rows = self.coordinator.folder().plan.runs.iter().zip(self.coordinator.status()).map(row).collect();
        SuiteEvent::Standing { progress, line, rows }
    }
}

fn problem(error: SuiteError) -> Problem {
    match error {
        SuiteError::Store(error) => error.into(),
        SuiteError::Study(problems) => problems.into(),
        error => Problem::new(error.to_string()),
    }
}
