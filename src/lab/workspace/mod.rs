//! A folder of runs and studies, driven and read by messages: [`Request`]s in, [`Reply`]s out.
//!
//! This is what a front end with windows talks to, wherever the trainer lives: on a thread of the desktop app, in a browser's worker, on
//! another machine. Messages are plain data; as JSON a message is one object whose `request` or `reply` names its kind. What concerns
//! one run or one study is passed on to its session or its coordinator as it is ([`Command`], [`SuiteCommand`]). Everything else
//! only reads, and works for runs of other processes too.
//!
//! A run is named by the path of its folder: `NAME`, or `STUDY/RUN` for a run of a study.

mod list;
mod probed;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use list::{facts, list, read, watched};
pub use probed::{Adapter, Buffers, KernelTime, Probed};

use super::{
    audit::Finding,
    evaluation::EvalPoint,
    process::{Process, ProcessState},
    suite::{SuiteCommand, SuiteEvent},
};
use crate::run::{
    exact,
    protocol::{Command, Problem, SessionEvent, Value},
    records::{IncidentRecord, SampleRecord, UpdateRecord},
    summary::{ExitReason, Summary},
};

/// A message to a workspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// To the session of a single run.
    Session {
        /// The command.
        command: Command,
    },
    /// To a study.
    Study {
        /// The name of its folder.
        study: String,
        /// The command.
        command: SuiteCommand,
    },
    /// Lists runs and studies. Answered by [`Reply::Listed`].
    List,
    /// Asks for the facts of a run. Answered by [`Reply::Looked`].
    Look {
        /// The run.
        run: String,
    },
    /// Audits the config and the results of a run by itself, without data or device. Answered by [`Reply::Audited`].
    Audit {
        /// The run.
        run: String,
    },
    /// Reads series of a run. Answered by [`Reply::Read`].
    Read(Query),
    /// Asks what a config costs on this machine: opens the device and makes a few updates, which leave no trace. A run or a study that is
    /// started meanwhile ends the probe without an answer. Answered by [`Reply::Probed`].
    Probe {
        /// The config, as TOML that refers to no other file.
        config: String,
        /// Whether to time each kernel too, which takes seconds in one call; where the trainer's thread must not block, none is timed.
        #[serde(default)]
        kernels: bool,
    },
    /// Asks for a run as one file, an [archive](super::archive). Answered by [`Reply::Exported`].
    Export {
        /// The run.
        run: String,
    },
    /// Adds a run from such a file. Answered by [`Reply::Imported`].
    Import {
        /// The name of its folder, which must not exist.
        name: String,
        /// The file, which goes beside the text of the message.
        #[serde(skip)]
        archive: Vec<u8>,
    },
    /// Keeps a text for runs to learn, by the name that `data.paths` of their configs has: where there are no files. One of the same name is
    /// replaced. Answered by [`Reply::Kept`].
    Keep {
        /// Its name.
        name: String,
        /// The text.
        text: String,
    },
    /// Asks where a run stands that another process makes. Answered by [`Reply::Watched`].
    Watch {
        /// The run.
        run: String,
    },
    /// To the process that makes a run, this one or another. Answered only if it is refused: [`Reply::Watched`] shows what follows.
    Control {
        /// The run.
        run: String,
        /// The command; a run of another process takes those of [`for_run`](super::process::for_run).
        command: Command,
    },
    /// Removes a run or a study with all its files. Answered by [`Reply::Listed`].
    Remove {
        /// The name of its folder.
        name: String,
    },
}

impl Request {
    /// Its name, as in JSON, with that of the command.
    pub fn name(&self) -> String {
        match self {
            Self::Session { command } => command.name().into(),
            Self::Study { command, .. } => format!("study {}", command.name()),
            Self::List => "list".into(),
            Self::Look { .. } => "look".into(),
            Self::Audit { .. } => "audit".into(),
            Self::Read(_) => "read".into(),
            Self::Probe { .. } => "probe".into(),
            Self::Export { .. } => "export".into(),
            Self::Import { .. } => "import".into(),
            Self::Keep { .. } => "keep".into(),
            Self::Watch { .. } => "watch".into(),
            Self::Control { command, .. } => command.name().into(),
            Self::Remove { .. } => "remove".into(),
        }
    }

    /// Whether it only reads: it writes nothing, trains nothing and uses no GPU.
    pub fn only_reads(&self) -> bool {
        match self {
            Self::List | Self::Look { .. } | Self::Audit { .. } | Self::Read(_) | Self::Watch { .. } => true,
            Self::Study { command, .. } => matches!(command, SuiteCommand::Reopen | SuiteCommand::Judge | SuiteCommand::Report),
            _ => false,
        }
    }

    /// The run or study that it is about.
    pub fn about(&self) -> Option<&str> {
        match self {
            Self::Session { command: Command::Start { run, .. } | Command::Resume { run, .. } | Command::Inspect { run, .. } } => Some(run),
            Self::Study { study, .. } => Some(study),
            Self::Look { run } | Self::Audit { run } | Self::Watch { run } | Self::Control { run, .. } | Self::Export { run } => Some(run),
            Self::Read(query) => Some(&query.run),
            Self::Remove { name } | Self::Import { name, .. } | Self::Keep { name, .. } => Some(name),
            Self::Session { .. } | Self::List | Self::Probe { .. } => None,
        }
    }

    /// The reply that refuses it.
    pub fn refused(&self, problem: Problem) -> Reply {
        Reply::Refused { request: self.name(), about: self.about().map(str::to_string), problem: Box::new(problem) }
    }
}

/// A message from a workspace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// From the session of a single run.
    Session {
        /// The run.
        run: String,
        /// The event.
        event: SessionEvent,
    },
    /// From a study.
    Study {
        /// The name of its folder.
        study: String,
        /// The event.
        event: SuiteEvent,
    },
    /// All runs and studies.
    Listed {
        /// The runs, those of studies included, in the order of their names.
        runs: Vec<RunEntry>,
        /// The studies.
        studies: Vec<StudyEntry>,
    },
    /// The facts of a run.
    Looked(Box<Facts>),
    /// What the audit found in a run by itself.
    Audited {
        /// The run.
        run: String,
        /// The findings, the most severe first.
        findings: Vec<Finding>,
    },
    /// Series of a run.
    Read(Box<Answer>),
    /// What a config costs on this machine.
    Probed(Box<Probed>),
    /// A run as one file.
    Exported {
        /// The run.
        run: String,
        /// The file, which goes beside the text of the message.
        #[serde(skip)]
        archive: Vec<u8>,
    },
    /// A run was added.
    Imported {
        /// The run.
        run: String,
    },
    /// A text is kept.
    Kept {
        /// Its name.
        name: String,
    },
    /// Where a run stands.
    Watched(Box<Watched>),
    /// A warning for the user.
    Warned {
        /// The text.
        text: String,
    },
    /// The trainer stopped by an error of its own, and was started again: nothing is open any more.
    Failed(Box<Problem>),
    /// A request could not be followed; nothing else changed.
    Refused {
        /// The [name](Request::name) of the request.
        request: String,
        /// The run or study that it was about.
        about: Option<String>,
        /// The reason.
        problem: Box<Problem>,
    },
}

/// A run in a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RunEntry {
    /// Its name.
    pub name: String,
    /// The study that it belongs to.
    pub study: Option<String>,
    /// Its arm in that study.
    pub arm: Option<String>,
    /// Its seed.
    pub seed: u64,
    /// The settings that differ from the defaults: key and TOML literal.
    pub settings: BTreeMap<String, String>,
    /// Updates in total.
    pub updates: u32,
    /// Updates made.
    pub made: u32,
    /// Why it ended; `None` while it has not.
    pub exit: Option<ExitReason>,
    /// Validation cross-entropy after the last update, nats per token.
    #[serde(with = "exact::option", default)]
    pub val_ce: Option<f64>,
    /// Lowest validation cross-entropy, nats per token.
    #[serde(with = "exact::option", default)]
    pub best_val_ce: Option<f64>,
    /// Training tokens per second.
    #[serde(with = "exact::option", default)]
    pub tokens_per_second: Option<f64>,
    /// Name of its adapter; empty before the run has ended.
    pub adapter: String,
    /// What the process does that makes it now, this one or another; `None` if there is none.
    #[serde(default)]
    pub process: Option<ProcessState>,
    /// Why it ended with an error, or why its folder cannot be read.
    pub problem: Option<String>,
}

/// A study in a list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StudyEntry {
    /// The name of its folder.
    pub name: String,
    /// Its question.
    pub question: String,
    /// Its arms, the control first.
    pub arms: Vec<String>,
    /// Planned runs.
    pub runs: usize,
    /// Runs that are over.
    pub over: usize,
    /// Why its folder cannot be read.
    pub problem: Option<String>,
}

/// The facts of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The run.
    pub run: String,
    /// Its config with every default filled in, TOML.
    pub config: String,
    /// Its summary, once it has ended.
    pub summary: Option<Summary>,
    /// Its evaluations.
    pub evaluations: Vec<EvalPoint>,
    /// The last texts that it generated.
    pub samples: Vec<SampleRecord>,
    /// The first incidents.
    pub incidents: Vec<IncidentRecord>,
    /// The number of all incidents.
    pub incident_count: usize,
}

/// Where a run stands that some process makes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// The run.
    pub run: String,
    /// The process that makes it; `None` if there is none.
    pub process: Option<Process>,
    /// The newest update in its log.
    pub newest: Option<UpdateRecord>,
    /// Its summary, if it has ended and no process makes it.
    pub summary: Option<Summary>,
}

/// A question about series.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// The run.
    pub run: String,
    /// Keys of series, rows of the [table](crate::run::series).
    pub series: Vec<String>,
    /// The first update.
    pub from: u32,
    /// The last update.
    pub to: u32,
    /// Most points of each series, at least 1.
    pub points: u32,
}

/// What a run has measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The question.
    pub query: Query,
    /// One for each of its series.
    pub curves: Vec<Curve>,
}

/// Values of a series over updates. A point covers one update, or several if there are more updates than points.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// The key of the series.
    pub series: String,
    /// The length of each axis of the series; empty for a scalar.
    pub shape: Vec<usize>,
    /// The last update of each point.
    pub updates: Vec<u32>,
    /// Updates whose value was not finite.
    pub not_finite: Vec<u32>,
    /// For each point, the mean of each element.
    pub mean: Vec<Value>,
    /// The minimum, likewise; empty if it is the mean, because every point is one update.
    pub min: Vec<Value>,
    /// The maximum, likewise.
    pub max: Vec<Value>,
}
