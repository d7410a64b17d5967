//! The log of a run: one JSON object per line in `metrics.jsonl`.
//!
//! Guarantees: the same run writes the same bytes, except for the object `time` of a line. It contains everything that depends on
//! the clock or the number of restarts, so that a comparison leaves it out, together with the `check` that a run folder
//! adds. Floats are preserved bit-exactly, and non-finite values are written as strings (see [`exact`]). Values that were not
//! measured are `null`, never 0.
//!
//! `train.log_every` is the number of updates per line. A line describes only its own update, not a mean over those in between,
//! so that a resumed run writes the same lines wherever it was stopped. Incidents (including skipped updates), evaluations and the
//! last update are always written. The trainer has no clock: its driver provides `time`.

use super::exact;
pub use super::series::{EvalRecord, UpdateRecord};
use serde::{Deserialize, Serialize};

/// Version of the lines; the first line of a file carries it. In files of version 1 the arrays of a record stand in its line, and nothing
/// was kept of what a run went back on.
pub const SCHEMA: u32 = 2;

/// One line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Event {
    /// The first line of every file.
    Header(Header),
    /// One optimizer update.
    Update(UpdateRecord),
    /// One evaluation.
    Eval(EvalRecord),
    /// A generated text.
    Sample(SampleRecord),
    /// Something out of the ordinary.
    Incident(IncidentRecord),
    /// The run was rewound: earlier lines for updates after this one are discarded.
    Rewound(RewoundRecord),
}

/// The first line of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the lines that follow.
    pub schema: u32,
    /// Hash of the effective config.
    pub config: String,
}

/// Wall-clock times: the only values in which two runs with the same bits may differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Time {
    /// Number of times the run was resumed.
    pub session: u32,
    /// Seconds since the current start.
    #[serde(with = "exact")]
    pub seconds: f64,
    /// Training tokens per second, over the last updates of the current start: at most
    /// [`RATE_UPDATES`] of them, at least [`RATE_LEAST_UPDATES`] and [`RATE_SECONDS`], with the evaluations and checkpoints
    /// between them. `None` before there are that many, and in lines other than updates.
    #[serde(with = "exact::option", default)]
    pub tokens_per_second: Option<f64>,
}

/// Maximum number of updates over which the speed is measured.
pub const RATE_UPDATES: usize = 50;
/// Minimum number of updates over which the speed is measured.
pub const RATE_LEAST_UPDATES: usize = 2;
/// Minimum time over which the speed is measured: results of several updates can arrive together.
pub const RATE_SECONDS: f64 = 1.0;

/// A generated text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SampleRecord {
    /// Updates finished when it was generated.
    pub update: u32,
    /// The prompt.
    pub prompt: String,
    /// The continuation.
    pub text: String,
    /// Softmax temperature.
    pub temperature: f64,
    /// Probability mass of nucleus sampling.
    pub top_p: f64,
    /// Wall-clock times.
    pub time: Time,
}

/// Something out of the ordinary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncidentRecord {
    /// Updates finished when it happened.
    pub update: u32,
    /// What it was.
    pub incident: Incident,
    /// Where, how many, what was done.
    pub detail: String,
    /// The first update that it concerns, if it was detected later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u32>,
    /// Wall-clock times.
    pub time: Time,
}

/// The run was rewound to an earlier update and continues from there: after a crash, or because it diverged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RewoundRecord {
    /// The update to which it was rewound.
    pub to: u32,
    /// The newest update that was discarded.
    pub from: u32,
    /// Number of lines that were discarded.
    pub lines: u64,
}

/// The kinds of incidents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Incident {
    /// A loss or gradient was not finite and the update was skipped.
    NonFinite,
    /// The run rolled back to a checkpoint.
    RolledBack,
    /// The loss is finite but far too high (see [`alarms`](super::alarms)); the run continued.
    BlowUp,
    /// Nearly all tokens of a layer go to the same experts (see [`routing_alarms`](super::routing_alarms)); the run continued.
    RouterCollapsed,
    /// Experts without tokens; the run continued.
    ExpertDead,
    /// Experts with far fewer tokens than the mean; the run continued.
    ExpertStarved,
    /// The device was lost and opened again.
    DeviceLost,
    /// A checkpoint could not be saved; the run continued.
    CheckpointFailed,
    /// A checkpoint was damaged and an older one was used.
    CheckpointDamaged,
    /// The run continued with another adapter or driver: equal bits are no longer guaranteed.
    AdapterChanged,
    /// The run continued with other settings.
    SettingsChanged,
    /// Lines of the log were damaged or lost; the run continued.
    LogDamaged,
}

impl Incident {
    /// Whether it is an alarm of the routers.
    pub fn is_of_routing(self) -> bool {
        matches!(self, Self::RouterCollapsed | Self::ExpertDead | Self::ExpertStarved)
    }

    /// As text.
    pub fn words(self) -> &'static str {
        match self {
            Self::NonFinite => "not finite",
            Self::RolledBack => "rolled back",
            Self::BlowUp => "blew up",
            Self::RouterCollapsed => "router collapsed",
            Self::ExpertDead => "experts dead",
            Self::ExpertStarved => "experts starved",
            Self::DeviceLost => "device lost",
            Self::CheckpointFailed => "checkpoint not saved",
            Self::CheckpointDamaged => "checkpoint damaged",
            Self::AdapterChanged => "other adapter",
            Self::SettingsChanged => "settings changed",
            Self::LogDamaged => "log damaged",
        }
    }
}

impl Event {
    /// Updates finished at this line, or rewound to; `None` for the header.
    pub fn update(&self) -> Option<u32> {
        match self {
            Event::Header(_) => None,
            Event::Update(record) => Some(record.update),
            Event::Eval(record) => Some(record.update),
            Event::Sample(record) => Some(record.update),
            Event::Incident(record) => Some(record.update),
            Event::Rewound(record) => Some(record.to),
        }
    }

    /// Wall-clock times; none in the header and in `rewound` lines.
    pub fn time(&self) -> Option<&Time> {
        match self {
            Event::Header(_) | Event::Rewound(_) => None,
            Event::Update(record) => Some(&record.time),
            Event::Eval(record) => Some(&record.time),
            Event::Sample(record) => Some(&record.time),
            Event::Incident(record) => Some(&record.time),
        }
    }

    /// The same without time: equal for runs with equal bits.
    pub fn timeless(&self) -> Event {
        let mut event = self.clone();
        match &mut event {
            Event::Header(_) | Event::Rewound(_) => {}
            Event::Update(record) => record.time = Time::default(),
            Event::Eval(record) => record.time = Time::default(),
            Event::Sample(record) => record.time = Time::default(),
            Event::Incident(record) => record.time = Time::default(),
        }
        event
    }

    /// The event as one line, with its line feed.
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("keys are strings and losses are written by `exact`");
        line.push('\n');
        line
    }

    /// Parses one line.
    ///
    /// # Errors
    /// [`LineError::Content`]: this knows no checks.
    pub fn from_line(line: &str) -> Result<Event, LineError> {
        serde_json::from_str(line).map_err(|error| LineError::Content(error.to_string()))
    }
}

/// Why a line of the log cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// Its content is no event.
    #[error("{0}")]
    Content(
        /// The reader's message.
        String,
    ),
    /// Its check is that of another content.
    #[error("it is damaged: its check does not match")]
    Check,
    /// It has no check, although others of the log have.
    #[error("it is damaged: it has no check")]
    NoCheck,
}

/// The lines of a file that end in a line feed, without it.
pub fn complete_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'))
}

/// Determines which entries of an append-only file belong to the current state of the run.
///
/// A `rewound` entry takes the run back to an update and discards the entries before it of later updates. So does a second entry
/// of an update, in case the `rewound` entry was damaged.
#[derive(Clone, Debug, Default)]
pub struct Rewinds {
    /// Position of each rewinding entry and, once finished, the smallest update to which it or a later one rewinds.
    entries: Vec<(u64, u32)>,
    newest: Option<u32>,
}

impl Rewinds {
    /// Adds the next entry of an update.
    pub fn note_update(&mut self, position: u64, update: u32) {
        if self.newest.is_some_and(|newest| update <= newest) {
            self.entries.push((position, update.saturating_sub(1)));
        }
        self.newest = Some(update);
    }

    /// Adds the next `rewound` entry.
    pub fn note_rewound(&mut self, position: u64, to: u32) {
        self.entries.push((position, to));
        self.newest = self.newest.map(|newest| newest.min(to));
    }

    /// Adds an event of a log.
    pub fn note(&mut self, position: u64, event: &Event) {
        match event {
            Event::Update(record) => self.note_update(position, record.update),
            Event::Rewound(record) => self.note_rewound(position, record.to),
            _ => {}
        }
    }

    /// After the last entry.
    pub fn finish(mut self) -> Rewinds {
        let mut least = u32::MAX;
        for entry in self.entries.iter_mut().rev() {
            least = least.min(entry.1);
            entry.1 = least;
        }
        self
    }

    /// Whether an entry belongs to the current state. Call it on the result of [`Rewinds::finish`].
    pub fn keeps(&self, position: u64, update: u32) -> bool {
        let later = self.entries.partition_point(|(at, _)| *at <= position);
        self.entries.get(later).is_none_or(|(_, to)| update <= *to)
    }
}
