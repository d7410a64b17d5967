//! The run that the app makes, has open for reading, or watches while another process makes it.

use std::collections::VecDeque;

use crate::lab::{
    process::{Process, ProcessState},
    workspace::Watched,
};
use crate::run::{
    protocol::{Opened, OpeningPhase, Problem, Routed, SessionEvent},
    records::SampleRecord,
    summary::{Baselines, Summary},
};

/// Updates from which the speed of the run is taken.
const PACE: usize = 50;

/// The run.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Its name.
    pub run: String,
    /// Whether another process makes it.
    pub is_remote: bool,
    /// Where it stands.
    pub stage: Stage,
    /// Updates made.
    pub update: u32,
    /// Updates in total.
    pub updates: u32,
    /// Adapter and driver.
    pub adapter: String,
    /// Its config with every default filled in.
    pub config: String,
    /// Reference values for its losses.
    pub baselines: Option<Baselines>,
    /// Training cross-entropy of the newest update, nats per token.
    pub train_ce: Option<f64>,
    /// Validation cross-entropy of the newest evaluation, nats per token.
    pub val_ce: Option<f64>,
    /// Training tokens per second.
    pub tokens_per_second: Option<f64>,
    /// Texts that were asked for, the newest last.
    pub samples: Vec<SampleRecord>,
    /// The experts of the tokens that were asked about last.
    pub routed: Option<Routed>,
    /// Whether a text was asked for and has not arrived.
    pub is_sampling: bool,
    pace: VecDeque<(u32, f64)>,
}

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Stage {
    /// It was asked for.
    #[default]
    Asked,
    /// It is being opened.
    Opening {
        /// What is done.
        phase: OpeningPhase,
        /// Completed items.
        done: u32,
        /// All items; 0 if they are not counted.
        total: u32,
        /// The next one.
        detail: Option<String>,
    },
    /// It makes updates.
    Training,
    /// It is paused.
    Paused,
    /// Its last update is made; texts are generated and files written.
    Finishing {
        /// Texts generated.
        done: u32,
        /// Texts in all.
        texts: u32,
    },
    /// It was asked to stop.
    Stopping,
    /// It is open for reading.
    Inspected,
    /// It was open for reading.
    Closed,
    /// It is over.
    Ended(Box<Summary>),
    /// It failed.
    Failed(Box<Problem>),
}

impl Live {
    /// A run that was asked for.
    pub fn new(run: &str) -> Live {
        Live { run: run.into(), ..Live::default() }
    }

    /// A run that another process makes.
    pub fn remote(run: &str, updates: u32) -> Live {
        Live { is_remote: true, updates, ..Live::new(run) }
    }

    /// Whether the run is over.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Ended(_) | Stage::Failed(_) | Stage::Inspected | Stage::Closed)
    }

    /// Estimated seconds until the last update, from the speed of the last ones.
    pub fn seconds_left(&self) -> Option<f64> {
        let ((first, then), (last, now)) = (self.pace.front()?, self.pace.back()?);
        let is_enough = last > first && now - then >= 1.0 && self.update < self.updates;
        is_enough.then(|| f64::from(self.updates.saturating_sub(self.update)) * (now - then) / f64::from(last - first))
    }
}

impl Live {
    /// Takes in where a run of another process stands.
    pub fn watch(&mut self, watched: &Watched) {
        if let Some(record) = watched.newest.as_ref().filter(|record| self.pace.back().is_none_or(|(last, _)| *last != record.update)) {
            (self.update, self.train_ce) = (record.update, Some(record.train_ce));
            self.tokens_per_second = record.time.tokens_per_second.or(self.tokens_per_second);
            self.pace.push_back((record.update, record.time.seconds));
            self.pace.drain(..self.pace.len().saturating_sub(PACE));
        }
        self.update = watched.process.and_then(|process| process.update).map_or(self.update, |update| update.max(self.update));
        self.stage = match (watched.process, &watched.summary) {
            (Some(_), _) if self.stage == Stage::Stopping => Stage::Stopping,
            (Some(Process { state: ProcessState::Paused, .. }), _) => Stage::Paused,
            (Some(_), _) => Stage::Training,
            (None, Some(summary)) => {
                (self.update, self.val_ce) = (summary.updates, summary.final_val_ce.or(self.val_ce));
                Stage::Ended(Box::new(summary.clone()))
            }
            (None, None) => Stage::Failed(Box::new(Problem::new("the process that made it is gone; the run can be resumed"))),
        };
    }

    /// Takes in an event of its session.
    pub fn take(&mut self, event: &SessionEvent) {
        match event {
            SessionEvent::Opening { phase, done, total, detail } => {
                self.stage = Stage::Opening { phase: *phase, done: *done, total: *total, detail: detail.clone() };
            }
            SessionEvent::Opened(opened) => {
                let Opened { update, updates, adapter, driver, config, baselines, .. } = &**opened;
                self.baselines = *baselines;
                (self.update, self.updates, self.stage) = (*update, *updates, Stage::Training);
                self.adapter = self::adapter(adapter, driver);
                self.config = config.clone();
                self.pace.clear();
                self.is_sampling = false;
            }
            SessionEvent::Series(block) => {
                for (row, (update, time)) in block.updates.iter().zip(&block.times).enumerate() {
                    self.update = *update;
                    self.train_ce = block.scalar("train_ce", row);
                    self.tokens_per_second = time.tokens_per_second.or(self.tokens_per_second);
                    self.pace.push_back((*update, time.seconds));
                }
                while self.pace.len() > PACE {
                    self.pace.pop_front();
                }
            }
            SessionEvent::Evaluated { record, .. } => self.val_ce = Some(record.val_ce),
            SessionEvent::Sampled { record, requested: true } => {
                self.samples.push((**record).clone());
                self.is_sampling = false;
            }
            SessionEvent::Routed(routed) => self.routed = Some((**routed).clone()),
            SessionEvent::Rewound(record) => {
                self.update = record.to;
                self.pace.clear();
            }
            SessionEvent::Paused { update } => (self.update, self.stage) = (*update, Stage::Paused),
            SessionEvent::Finishing { texts } => self.stage = Stage::Finishing { done: 0, texts: *texts },
            SessionEvent::Sampled { requested: false, .. } => {
                if let Stage::Finishing { done, .. } = &mut self.stage {
                    *done += 1;
                }
            }
            SessionEvent::Continued => {
                self.stage = Stage::Training;
                self.pace.clear();
            }
            SessionEvent::Ended(summary) => {
                self.update = summary.updates;
                self.val_ce = summary.final_val_ce.or(self.val_ce);
                self.stage = Stage::Ended(summary.clone());
            }
            SessionEvent::Inspected(inspected) => {
                (self.update, self.stage, self.is_sampling) = (inspected.update, Stage::Inspected, false);
                self.adapter = adapter(&inspected.adapter, &inspected.driver);
                self.config = inspected.config.clone();
            }
            SessionEvent::Closed => self.stage = Stage::Closed,
            SessionEvent::Failed(problem) => self.stage = Stage::Failed(problem.clone()),
            SessionEvent::Rejected { command, .. } if command == "sample" => self.is_sampling = false,
            _ => {}
        }
    }
}

/// Adapter and driver; browsers name neither.
fn adapter(adapter: &str, driver: &str) -> String {
    [adapter, driver].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
}
