//! The state machine: which run goes to which slot, and what follows when none is left.
//!
//! Long because it is one state machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::{
    audit::{self, Judged},
    folder::{DECISIONS, RunStatus, SuiteError, SuiteFolder, SuiteStore, decisions, is_started, until},
    gating,
    outcome::{self, Outcome},
    pace::{Pace, Progress},
};
use crate::{
    lab::{
        audit::Finding,
        evaluation::EvalPoint,
        gates::DecisionRecord,
        repeats::{self, Wanted},
        results,
        store::StoreError,
    },
    run::{
        protocol::{Command, OpeningPhase, Problem, SessionEvent, Subscription},
        suite::{Repeats, Suite},
        summary::{ExitReason, Summary},
    },
};

/// How often a run is tried whose device is lost.
const ATTEMPTS: u32 = 3;
/// The series that a coordinator receives.
const SERIES: [&str; 1] = ["train_ce"];
/// Seconds between two blocks of them.
const EVERY_SECONDS: f64 = 0.2;

/// How a study is run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Number of slots: runs made at once.
    pub slots: usize,
    /// Tries runs again that failed.
    pub retry_failed: bool,
    /// The last stage to run; by default the whole study.
    pub until_stage: Option<String>,
}

/// A command for a slot's session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The slot, from 0.
    pub slot: usize,
    /// The command.
    pub command: Command,
}

/// What happens in a study.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SuiteEvent {
    /// The study is open.
    Opened {
        /// Its question.
        question: String,
        /// Its arms, the control first.
        arms: Vec<String>,
        /// Planned runs.
        runs: usize,
        /// Runs that were over already.
        over: usize,
        /// Decisions of the gates so far.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        decisions: Vec<DecisionRecord>,
    },
    /// A run was handed to a slot.
    RunStarted {
        /// The run.
        run: String,
        /// The slot.
        slot: usize,
        /// The update at which it is to be paused or ends.
        until: u32,
        /// Whether it is resumed.
        is_resumed: bool,
    },
    /// A run is being opened.
    RunOpening {
        /// The run.
        run: String,
        /// What is done.
        phase: OpeningPhase,
    },
    /// A run has made updates.
    RunAdvanced {
        /// The run.
        run: String,
        /// Updates made.
        update: u32,
        /// Updates in total.
        updates: u32,
        /// Training cross-entropy of the last one, nats per token.
        train_ce: Option<f64>,
    },
    /// A run was evaluated.
    RunEvaluated {
        /// The run.
        run: String,
        /// Updates made.
        update: u32,
        /// Validation cross-entropy, nats per token.
        val_ce: f64,
    },
    /// A slot is done with a run for now.
    RunEnded {
        /// The run.
        run: String,
        /// What has become of it.
        status: RunStatus,
        /// Its last validation cross-entropy, nats per token.
        val_ce: Option<f64>,
        /// Seconds that the slot spent on it.
        seconds: f64,
        /// Of these, seconds of training.
        training_seconds: f64,
    },
    /// A gate has decided about an arm.
    Decided {
        /// The decision; its `run` is the arm.
        record: Box<DecisionRecord>,
    },
    /// Runs were added, because a verdict needs more repeats.
    Added {
        /// The runs.
        runs: Vec<String>,
        /// Why, in words.
        reason: String,
    },
    /// Something that the user should know.
    Warning {
        /// The run, if it is about one.
        run: Option<String>,
        /// The text.
        text: String,
    },
    /// What the audit finds in the arms, before the first run.
    Audited {
        /// The findings, the most severe first.
        findings: Vec<Finding>,
    },
    /// Where the study stands.
    Standing {
        /// In numbers.
        progress: Progress,
        /// In a line.
        line: String,
        /// A row for each run: see [`table::row`](super::table::row).
        rows: Vec<Vec<String>>,
    },
    /// No update is in flight, and nothing goes on until the study is continued.
    Paused,
    /// The pause has ended.
    Continued,
    /// What the study shows.
    Judged(Box<Judged>),
    /// The report.
    Reported {
        /// Name and content of each file.
        files: Vec<(String, String)>,
    },
    /// A command was rejected; nothing else changed.
    Rejected {
        /// The name of the command.
        command: String,
        /// The reason.
        problem: Box<Problem>,
    },
    /// The study cannot be opened, or its folder cannot be read or written. It is closed.
    Failed(Box<Problem>),
    /// No run is under way, and none is left or the study was stopped.
    Ended {
        /// Whether all runs that were asked for are made, up to the stage that was asked for.
        is_complete: bool,
    },
}

/// A run in a slot.
struct Active {
    run: usize,
    until: u32,
    /// When it was handed over, and when its session was open.
    ordered: f64,
    is_open: bool,
    /// Update and time of the last update seen.
    last: Option<(u32, f64)>,
    training: f64,
    update: u32,
    is_stopping: bool,
    is_paused: bool,
}

/// Runs a study. See the [module](super).
pub struct Coordinator<S> {
    folder: SuiteFolder<S>,
    suite: Suite,
    options: Options,
    /// In the order of the plan.
    status: Vec<RunStatus>,
    attempts: Vec<u32>,
    /// Runs that this process leaves alone: another one holds them, or they have just failed.
    set_aside: BTreeSet<usize>,
    /// Runs whose failure is to be recorded.
    failures: Vec<usize>,
    /// Evaluations of runs, as far as they were read.
    evaluations: BTreeMap<String, Vec<EvalPoint>>,
    slots: Vec<Option<Active>>,
    /// The stage that runs are brought to now.
    stage: usize,
    decisions: Vec<DecisionRecord>,
    is_stopping: bool,
    is_out_of_space: bool,
    /// Since when, and whether that was told.
    paused: Option<(f64, bool)>,
    has_ended: bool,
    pace: Pace,
    orders: VecDeque<Order>,
    events: VecDeque<SuiteEvent>,
    /// Seconds since 1970, for the records of decisions.
    clock: fn() -> f64,
}

impl<S: SuiteStore> Coordinator<S> {
    /// Opens a study.
    ///
    /// # Errors
    /// If its folder cannot be read.
    pub fn new(folder: SuiteFolder<S>, suite: Suite, options: Options, clock: fn() -> f64) -> Result<Coordinator<S>, SuiteError> {
        let decisions = decisions(folder.store.root())?;
        let status: Vec<RunStatus> =
            folder.plan.runs.iter().map(|run| Ok(RunStatus::of(&folder.store, &run.id)?.0)).collect::<Result<_, StoreError>>()?;
        let slots = options.slots.max(1);
        let mut coordinator = Coordinator {
            attempts: vec![0; status.len()],
            set_aside: BTreeSet::new(),
            failures: Vec::new(),
            evaluations: BTreeMap::new(),
            slots: (0..slots).map(|_| None).collect(),
            stage: gating::stage_reached(&folder.plan, &suite.gates, &decisions),
            decisions,
            is_stopping: false,
            is_out_of_space: false,
            paused: None,
            has_ended: false,
            pace: Pace::default(),
            orders: VecDeque::new(),
            events: VecDeque::new(),
            folder,
            suite,
            options,
            status,
            clock,
        };
        if coordinator.options.retry_failed {
            for (run, status) in coordinator.folder.plan.runs.iter().zip(&mut coordinator.status) {
                if matches!(status, RunStatus::Failed(_)) {
                    *status = if is_started(&coordinator.folder.store, &run.id)? { RunStatus::Partial(0) } else { RunStatus::Waiting };
                }
            }
        }
        let plan = &coordinator.folder.plan;
        let opened = SuiteEvent::Opened {
            question: plan.question.clone(),
            arms: plan.arms.iter().map(|arm| arm.name.clone()).collect(),
            runs: plan.runs.len(),
            over: coordinator.status.iter().filter(|status| status.is_over()).count(),
            decisions: coordinator.decisions.clone(),
        };
        coordinator.events.push_back(opened);
        Ok(coordinator)
    }

    /// The study's folder.
    pub fn folder(&self) -> &SuiteFolder<S> {
        &self.folder
    }

    /// What has become of each run, in the order of the plan.
    pub fn status(&self) -> &[RunStatus] {
        &self.status
    }

    /// The decisions of the gates so far.
    pub fn decisions(&self) -> &[DecisionRecord] {
        &self.decisions
    }

    /// Stops: the runs under way save a checkpoint, and no other is started.
    pub fn stop(&mut self) {
        self.is_stopping = true;
        self.slots.iter_mut().flatten().for_each(|active| active.is_stopping = true);
        self.tell_all(&Command::Stop);
    }

    /// Pauses: the runs under way stay open, and finish the updates in flight; no other is started. [`SuiteEvent::Paused`] follows.
    pub fn pause(&mut self, now: f64) {
        if self.paused.is_none() && !self.has_ended {
            self.paused = Some((now, false));
            self.tell_all(&Command::Pause);
        }
    }

    /// Ends a pause. Its time counts for no run.
    pub fn resume(&mut self, now: f64) {
        let Some((since, _)) = self.paused.take() else { return };
        for (slot, active) in self.slots.iter_mut().enumerate() {
            let Some(active) = active else { continue };
            active.ordered += now - since;
            active.is_paused = false;
            // Where it is to pause holds again: to continue alone would end that, too.
            let is_short = active.until < self.folder.plan.runs[active.run].updates;
            let command = if is_short { Command::PauseAt { update: active.until } } else { Command::Continue };
            self.orders.push_back(Order { slot, command });
        }
        self.events.push_back(SuiteEvent::Continued);
    }

    /// Whether it is paused, or about to be.
    pub fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Whether the study stopped because the disk was full.
    pub fn is_out_of_space(&self) -> bool {
        self.is_out_of_space
    }

    /// Whether no run is under way and none will be.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// The runs that are in slots: slot, run, update, and the number of its updates.
    pub fn active(&self) -> impl Iterator<Item = (usize, &str, u32, u32)> {
        self.slots.iter().enumerate().filter_map(|(slot, active)| {
            let active = active.as_ref()?;
            let run = &self.folder.plan.runs[active.run];
            Some((slot, run.id.as_str(), active.update, run.updates))
        })
    }

    /// Where the study stands.
    pub fn progress(&self) -> Progress {
        let runs = &self.folder.plan.runs;
        let (mut total, mut left, mut open) = (0.0, 0.0, 0);
        for (place, run) in runs.iter().enumerate() {
            let active = self.slots.iter().flatten().find(|active| active.run == place);
            let made = match (&self.status[place], active) {
                (_, Some(active)) => active.update,
                (RunStatus::Partial(update), None) => *update,
                (RunStatus::Waiting, None) => 0,
                (RunStatus::Ended(_) | RunStatus::Failed(_), None) => run.updates,
            };
            let until = if self.is_stopped(&run.arm) || self.set_aside.contains(&place) { made } else { run.updates };
            let share = f64::from(until.saturating_sub(made)) / f64::from(run.updates.max(1));
            total += run.flop;
            left += run.flop * share;
            open += usize::from(share > 0.0);
        }
        let overhead = self.pace.overhead();
        Progress {
            over: self.status.iter().filter(|status| status.is_over()).count(),
            failed: self.status.iter().filter(|status| outcome::is_missing(status)).count(),
            active: self.slots.iter().flatten().count(),
            runs: runs.len(),
            done: if total > 0.0 { 1.0 - left / total } else { 1.0 },
            seconds_left: self.pace.seconds_for(left, open, self.slots.len().min(open.max(1))),
            overhead_seconds: overhead.map(|(seconds, _)| seconds),
            overhead_share: overhead.map(|(_, share)| share),
        }
    }

    /// Takes note of an event of a slot's session.
    pub fn observe(&mut self, slot: usize, event: SessionEvent, now: f64) {
        let Some(active) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        let run = &self.folder.plan.runs[active.run];
        let id = run.id.clone();
        match event {
            SessionEvent::Opening { phase, done: 0, .. } => self.events.push_back(SuiteEvent::RunOpening { run: id, phase }),
            SessionEvent::Opened(opened) => {
                (active.is_open, active.update) = (true, opened.update);
            }
            SessionEvent::Series(block) => {
                let per_update = run.flop / f64::from(run.updates.max(1));
                for (row, (update, time)) in block.updates.iter().zip(&block.times).enumerate() {
                    if let Some((before, seconds)) = active.last.filter(|(before, _)| before < update) {
                        let took = time.seconds - seconds;
                        self.pace.train(took, per_update * f64::from(update - before));
                    }
                    (active.last, active.training, active.update) = (Some((*update, time.seconds)), time.seconds, *update);
                    if row + 1 == block.updates.len() {
                        let train_ce = block.scalar(SERIES[0], row);
                        self.events.push_back(SuiteEvent::RunAdvanced { run: id.clone(), update: *update, updates: run.updates, train_ce });
                    }
                }
            }
            SessionEvent::Evaluated { record, requested: false } => {
                self.events.push_back(SuiteEvent::RunEvaluated { run: id, update: record.update, val_ce: record.val_ce });
            }
            SessionEvent::Paused { update } if !active.is_stopping => {
                let command = if update >= active.until {
                    active.is_stopping = true;
                    Command::Stop
                } else if self.paused.is_some() {
                    active.is_paused = true;
                    return;
                } else {
                    // A roll-back took the run back while it was about to be paused.
                    Command::PauseAt { update: active.until }
                };
                self.orders.push_back(Order { slot, command });
            }
            // A run that has made its last update ends instead of being paused.
            SessionEvent::Rejected { command, .. } if ["pause", "pause_at", "continue"].contains(&command.as_str()) => {}
            SessionEvent::Warning { text } => self.events.push_back(SuiteEvent::Warning { run: Some(id), text }),
            SessionEvent::Rejected { problem, .. } => {
                self.events.push_back(SuiteEvent::Warning { run: Some(id), text: problem.to_string() });
            }
            SessionEvent::Incident(record) => {
                let text = format!("update {}: {}: {}", record.update, record.incident.words(), record.detail);
                self.events.push_back(SuiteEvent::Warning { run: Some(id), text });
            }
            SessionEvent::Ended(summary) => self.ended(slot, &summary, now),
            SessionEvent::Failed(problem) => self.failed(slot, &problem, now),
            _ => {}
        }
    }

    /// Hands out runs, decides at the end of stages, and adds repeats. Returns the commands for the slots.
    ///
    /// # Errors
    /// If the study's folder cannot be read or written.
    pub fn advance(&mut self, now: f64) -> Result<Vec<Order>, SuiteError> {
        for run in std::mem::take(&mut self.failures) {
            if let RunStatus::Failed(problem) = self.status[run].clone() {
                let id = self.folder.plan.runs[run].id.clone();
                match self.folder.set_failure(&id, Some(&problem)) {
                    // The runs in the other slots are stopped with checkpoints if those still fit.
                    Err(error) if ExitReason::of_store(&error) == ExitReason::OutOfSpace => {
                        self.stop_for_space(Some(run), &format!("{problem}; {error}"));
                    }
                    written => written?,
                }
            }
        }
        if !self.is_stopping
            && let Some((_, is_told @ false)) = &mut self.paused
            && self.slots.iter().flatten().all(|active| active.is_paused)
        {
            *is_told = true;
            self.events.push_back(SuiteEvent::Paused);
        }
        while !self.is_stopping && !self.has_ended && self.paused.is_none() {
            let mut is_idle = true;
            while let (Some(slot), Some(run)) = (self.slots.iter().position(Option::is_none), self.next_run()) {
                self.start(slot, run, now)?;
                is_idle = false;
            }
            is_idle &= self.slots.iter().all(Option::is_none);
            if !is_idle || !self.next_stage()? && !self.add_repeats()? {
                self.has_ended = is_idle;
                break;
            }
        }
        if self.is_stopping && self.slots.iter().all(Option::is_none) {
            self.has_ended = true;
        }
        if self.has_ended && !matches!(self.events.back(), Some(SuiteEvent::Ended { .. })) {
            let is_complete = !self.is_stopping && self.set_aside.is_empty();
            self.events.push_back(SuiteEvent::Ended { is_complete });
        }
        Ok(self.orders.drain(..).collect())
    }

    /// Decides what can be decided now, without making runs: at the end of a stage which arms continue, at the end of the study which
    /// repeats are added. Returns what was decided.
    ///
    /// # Errors
    /// If the study's folder cannot be read or written.
    pub fn decide(&mut self) -> Result<Vec<SuiteEvent>, SuiteError> {
        self.events.clear();
        if self.next_run().is_none() && !self.next_stage()? {
            self.add_repeats()?;
        }
        Ok(self.take_events())
    }

    /// The decisions of the gate that [`Coordinator::decide`] would record.
    ///
    /// # Errors
    /// If the runs cannot be read.
    pub fn preview(&self) -> Result<Vec<SuiteEvent>, SuiteError> {
        let stages = &self.folder.plan.stages;
        if self.next_run().is_some() || self.stage + 1 >= stages.len() {
            return Ok(Vec::new());
        }
        let (name, end) = &stages[self.stage];
        let records = gating::decide(&self.folder, &self.suite.gates, &self.decisions, name, *end, (self.clock)())?;
        Ok(records.into_iter().map(|record| SuiteEvent::Decided { record: Box::new(record) }).collect())
    }

    /// Why [`Coordinator::decide`] decided nothing.
    pub fn why_nothing_is_decided(&self) -> String {
        match self.next_run() {
            Some(run) => format!("run `{}` is missing, and perhaps others: `moelab suite run` makes them", self.folder.plan.runs[run].id),
            None if self.suite.repeats == Repeats::UntilClear => "every arm has its verdict, or the budget is spent".into(),
            None => "all planned runs are made".into(),
        }
    }

    /// What the study shows so far.
    ///
    /// # Errors
    /// If a run cannot be read.
    pub fn judge(&mut self) -> Result<Vec<Outcome>, SuiteError> {
        Ok(outcome::judge(&self.folder, &self.suite, &self.decisions, &self.status, &mut self.evaluations)?)
    }

    /// The same with what the audit finds, which withholds the verdicts that do not follow.
    ///
    /// # Errors
    /// If a run cannot be read; an override of something that is no check.
    pub fn judged(&mut self) -> Result<Judged, SuiteError> {
        let outcomes = self.judge()?;
        let findings = self.findings()?;
        Ok(Judged::new(outcomes, findings, &self.folder.plan))
    }

    /// What the audit finds in the arms and in the runs so far.
    ///
    /// # Errors
    /// An override of something that is no check.
    pub fn findings(&self) -> Result<Vec<Finding>, SuiteError> {
        audit::findings(&self.suite, &self.folder.plan, Some(&self.folder.store))
    }

    /// What has happened since the last call.
    pub fn take_events(&mut self) -> Vec<SuiteEvent> {
        self.events.drain(..).collect()
    }

    fn tell_all(&mut self, command: &Command) {
        let busy = self.slots.iter().enumerate().filter(|(_, active)| active.is_some());
        self.orders.extend(busy.map(|(slot, _)| Order { slot, command: command.clone() }));
    }

    /// The update that a run is brought to now.
    fn until(&self, run: usize) -> u32 {
        until(&self.folder.plan, self.stage, &self.folder.plan.runs[run])
    }

    fn is_stopped(&self, arm: &str) -> bool {
        gating::is_stopped(&self.decisions, &self.suite.gates, arm)
    }

    fn next_run(&self) -> Option<usize> {
        (0..self.folder.plan.runs.len()).find(|run| {
            let is_active = self.slots.iter().flatten().any(|active| active.run == *run);
            let is_short = match self.status[*run] {
                RunStatus::Waiting => true,
                RunStatus::Partial(update) => update < self.until(*run),
                RunStatus::Ended(_) | RunStatus::Failed(_) => false,
            };
            is_short && !is_active && !self.set_aside.contains(run) && !self.is_stopped(&self.folder.plan.runs[*run].arm)
        })
    }

    fn start(&mut self, slot: usize, run: usize, now: f64) -> Result<(), SuiteError> {
        let until = self.until(run);
        let id = self.folder.plan.runs[run].id.clone();
        if self.options.retry_failed {
            self.folder.set_failure(&id, None)?;
        }
        let planned = &self.folder.plan.runs[run];
        let is_resumed = !matches!(self.status[run], RunStatus::Waiting);
        let command = if is_resumed {
            Command::Resume { run: planned.id.clone(), sets: Vec::new(), allow: Vec::new() }
        } else {
            let config = planned.config().map_err(|problems| StoreError::Unreadable(problems.to_string()))?;
            Command::Start { run: planned.id.clone(), config: config.to_effective_toml(), sets: Vec::new() }
        };
        // Again for each run: the slot may be a new one.
        let subscription = Subscription { series: SERIES.map(str::to_string).to_vec(), every_seconds: EVERY_SECONDS, records: false };
        self.orders.push_back(Order { slot, command: Command::Subscribe(subscription) });
        self.orders.push_back(Order { slot, command });
        if until < planned.updates {
            self.orders.push_back(Order { slot, command: Command::PauseAt { update: until } });
        }
        self.events.push_back(SuiteEvent::RunStarted { run: planned.id.clone(), slot, until, is_resumed });
        let update = if let RunStatus::Partial(update) = self.status[run] { update } else { 0 };
        self.slots[slot] = Some(Active {
            run,
            until,
            ordered: now,
            is_open: false,
            last: None,
            training: 0.0,
            update,
            is_stopping: false,
            is_paused: false,
        });
        Ok(())
    }

    /// A session has ended, with its summary and report.
    fn ended(&mut self, slot: usize, summary: &Summary, now: f64) {
        let Some(active) = self.slots[slot].take() else { return };
        let run = active.run;
        self.status[run] = match summary.exit {
            reason @ (ExitReason::Completed | ExitReason::EarlyStopped | ExitReason::StoppedByGate | ExitReason::Diverged) => {
                RunStatus::Ended(reason)
            }
            ExitReason::Interrupted => RunStatus::Partial(summary.updates),
            ExitReason::DeviceLost => self.attempted(run, summary.updates, "the device was lost"),
            ExitReason::OutOfSpace => {
                self.stop_for_space(Some(run), "the disk is full; free some space and run it again");
                RunStatus::Partial(summary.updates)
            }
            ExitReason::SaveFailed | ExitReason::Failed => {
                self.set_aside.insert(run);
                RunStatus::Failed(summary.detail.clone().unwrap_or_else(|| summary.exit.words().into()))
            }
        };
        self.evaluations.remove(&self.folder.plan.runs[run].id);
        self.close(active, summary.final_val_ce, now);
    }

    /// A run could not be opened, or its end could not be written.
    fn failed(&mut self, slot: usize, problem: &Problem, now: f64) {
        let Some(active) = self.slots[slot].take() else { return };
        let run = active.run;
        match problem.reason {
            _ if problem.is_temporary => {
                self.set_aside.insert(run);
                self.warn(Some(run), format!("left alone: {problem}"));
            }
            ExitReason::Interrupted => {}
            ExitReason::DeviceLost => self.status[run] = self.attempted(run, 0, "the device was lost"),
            ExitReason::OutOfSpace => {
                self.stop_for_space(Some(run), &problem.to_string());
            }
            _ => {
                self.set_aside.insert(run);
                self.status[run] = RunStatus::Failed(problem.to_string());
            }
        }
        self.close(active, None, now);
    }

    fn close(&mut self, active: Active, val_ce: Option<f64>, now: f64) {
        let seconds = now - active.ordered;
        if matches!(self.status[active.run], RunStatus::Failed(_)) {
            self.failures.push(active.run);
        }
        if active.is_open {
            self.pace.end(seconds - active.training);
        }
        let event = SuiteEvent::RunEnded {
            run: self.folder.plan.runs[active.run].id.clone(),
            status: self.status[active.run].clone(),
            val_ce,
            seconds,
            training_seconds: active.training,
        };
        self.events.push_back(event);
    }

    /// What becomes of a run that may be tried again.
    fn attempted(&mut self, run: usize, update: u32, problem: &str) -> RunStatus {
        self.attempts[run] += 1;
        if self.attempts[run] < ATTEMPTS {
            self.warn(Some(run), format!("{problem}: the run is resumed (attempt {} of {ATTEMPTS})", self.attempts[run] + 1));
            return RunStatus::Partial(update);
        }
        self.set_aside.insert(run);
        RunStatus::Failed(format!("{problem}, {ATTEMPTS} times"))
    }

    fn stop_for_space(&mut self, run: Option<usize>, problem: &str) {
        self.warn(run, format!("the study stops: {problem}"));
        self.is_out_of_space = true;
        self.stop();
    }

    fn warn(&mut self, run: Option<usize>, text: String) {
        let run = run.map(|run| self.folder.plan.runs[run].id.clone());
        self.events.push_back(SuiteEvent::Warning { run, text });
    }

    /// Decides about the arms at the end of a stage. Returns whether there is a next one.
    fn next_stage(&mut self) -> Result<bool, SuiteError> {
        let stages = &self.folder.plan.stages;
        let (name, end) = stages[self.stage].clone();
        if self.stage + 1 >= stages.len() || self.options.until_stage.as_deref() == Some(&name) {
            return Ok(false);
        }
        for record in gating::decide(&self.folder, &self.suite.gates, &self.decisions, &name, end, (self.clock)())? {
            self.folder.append(DECISIONS, &serde_json::to_string(&record).expect("strings and numbers serialise"))?;
            self.decisions.push(record.clone());
            if !record.decision.continues(&self.suite.gates) {
                self.conclude(&record)?;
            }
            self.events.push_back(SuiteEvent::Decided { record: Box::new(record) });
        }
        self.stage += 1;
        Ok(true)
    }

    /// Records in the runs of an arm that a gate stopped them.
    fn conclude(&mut self, record: &DecisionRecord) -> Result<(), SuiteError> {
        let reason = format!("gate after stage `{}`: {}", record.stage, record.decision.reason);
        for run in 0..self.folder.plan.runs.len() {
            let planned = &self.folder.plan.runs[run];
            if planned.arm == record.run && matches!(self.status[run], RunStatus::Partial(_)) {
                results::conclude(&mut *self.folder.store.run_mut(&planned.id)?, &reason)?;
                self.status[run] = RunStatus::Ended(ExitReason::StoppedByGate);
            }
        }
        Ok(())
    }

    /// Adds the repeats that verdicts need. Returns whether there are any.
    fn add_repeats(&mut self) -> Result<bool, SuiteError> {
        if self.suite.repeats != Repeats::UntilClear || self.options.until_stage.is_some() {
            return Ok(false);
        }
        let comparison = outcome::comparison(&self.folder, &self.suite, &self.decisions, &self.status, &mut self.evaluations)?;
        let step = repeats::next(&comparison, &outcome::repeats(&self.suite));
        let arm_of = |wanted: &Wanted| match wanted.arm {
            None => Some(0),
            Some(arm) => self.folder.plan.arms.iter().position(|known| known.name == comparison.arms[arm].name),
        };
        let wanted: Vec<(usize, u64)> = step.runs.iter().filter_map(|wanted| Some((arm_of(wanted)?, wanted.seed))).collect();
        let before = self.folder.plan.runs.len();
        for (arm, seed) in wanted {
            self.folder.plan.add(arm, seed);
        }
        let added: Vec<String> = self.folder.plan.runs[before..].iter().map(|run| run.id.clone()).collect();
        if added.is_empty() {
            return Ok(false);
        }
        self.folder.save_plan()?;
        self.status.resize(self.folder.plan.runs.len(), RunStatus::Waiting);
        self.attempts.resize(self.folder.plan.runs.len(), 0);
        let open = comparison.arms.iter().zip(&step.arms).filter(|(_, state)| matches!(state, repeats::State::Open { .. }));
        let open: Vec<&str> = open.map(|(arm, _)| arm.name.as_str()).collect();
        let reason = format!("not clear yet: {}", open.join(", "));
        self.events.push_back(SuiteEvent::Added { runs: added, reason });
        Ok(true)
    }
}
