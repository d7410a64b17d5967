//! What a driver tells a session ([`Command`]), and what the session tells its driver ([`SessionEvent`]).
//!
//! Plain data that is sent to wherever the trainer lives: the command line's loop, a thread of a desktop app, a browser's worker.
//! Nothing else passes between a front end and a trainer. As JSON a message is one object whose `command` or `event` names its kind.
//! Floats return to the bit and non-finite values are kept (see [`exact`]).
//!
//! The records of the log are the payloads of the events that tell of them, so that a front end that follows a run and one
//! that reads its folder meet the same types.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    exact,
    records::{EvalRecord, Event, IncidentRecord, RewoundRecord, SampleRecord, Time, UpdateRecord},
    series::Record,
    summary::{ExitReason, Summary},
};
use crate::config_file::Class;

/// What a session is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Starts a new run. Answered by [`SessionEvent::Opening`], then [`SessionEvent::Opened`] or [`SessionEvent::Failed`].
    Start {
        /// Where the run is kept: a name that the environment resolves.
        run: String,
        /// The config, as TOML that refers to no other file.
        config: String,
        /// Changes to single keys of it, each `key=value`.
        #[serde(default)]
        sets: Vec<String>,
    },
    /// Resumes a run from its newest good checkpoint, or from its start if it has none yet. Answered as [`Command::Start`] is.
    Resume {
        /// Where the run is kept.
        run: String,
        /// Changes to single keys of its config, each `key=value`.
        #[serde(default)]
        sets: Vec<String>,
        /// Classes of settings that may differ from what the run was trained with.
        #[serde(default)]
        allow: Vec<Class>,
    },
    /// Submits no further update. The updates under way are finished, and so are the evaluation and the checkpoint that are due after
    /// the last of them; then [`SessionEvent::Paused`] follows.
    Pause,
    /// Ends a pause.
    Continue,
    /// Makes one update, with the evaluation and the checkpoint that are due after it, and pauses.
    Step,
    /// Ends the run soon: the updates under way are finished and a checkpoint is saved. The run can be resumed.
    Stop,
    /// Saves a checkpoint of the newest update, although none is due. Answered by [`SessionEvent::Saved`].
    Save,
    /// Evaluates the newest weights on the whole validation set, although no evaluation is due. Answered by
    /// [`SessionEvent::Evaluated`] with `requested`: the log, the best checkpoint, alarms and early stopping do not see it, so that the
    /// run stays what it would have been.
    Evaluate,
    /// Generates text from the newest weights. Answered by [`SessionEvent::Sampled`] with `requested`; the log does not see it.
    Sample(SampleRequest),
    /// States what is told of updates from here on, in this run and those after it.
    Subscribe(Subscription),
}

impl Command {
    /// Its name, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Resume { .. } => "resume",
            Self::Pause => "pause",
            Self::Continue => "continue",
            Self::Step => "step",
            Self::Stop => "stop",
            Self::Save => "save",
            Self::Evaluate => "evaluate",
            Self::Sample(_) => "sample",
            Self::Subscribe(_) => "subscribe",
        }
    }
}

/// A text that is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleRequest {
    /// What the text begins with.
    pub prompt: String,
    /// Tokens to generate. Default: the config's.
    #[serde(default)]
    pub tokens: Option<u32>,
    /// Divides the logits; 0 takes the likeliest token. Default: the config's.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// Samples from the fewest likeliest tokens that together have this probability. Default: the config's.
    #[serde(default)]
    pub top_p: Option<f64>,
    /// Selects the random numbers: texts of another number are other texts.
    #[serde(default)]
    pub number: u32,
}

/// Which series a front end wants, and how often. Evaluations, samples, checkpoints and incidents are always told: they are rare.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// Names of series of updates, rows of the [table](super::series). None by default.
    #[serde(default)]
    pub series: Vec<String>,
    /// Least seconds between two blocks; 0 tells of each update as soon as it came back.
    #[serde(default)]
    pub every_seconds: f64,
    /// Whether the whole record of each update that has a line in the log is told as well ([`SessionEvent::Update`]).
    #[serde(default)]
    pub records: bool,
}

/// What a session tells. Everything that must last is in the run's folder before it is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SessionEvent {
    /// A part of the opening is about to begin.
    Opening {
        /// Which.
        phase: OpeningPhase,
        /// Of it, how many are done.
        done: u32,
        /// How many there are; 0 where that is not counted.
        total: u32,
        /// Name of the kernel that is next.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// The run is open and makes updates.
    Opened(Box<Opened>),
    /// Values of the subscribed series.
    Series(SeriesBlock),
    /// An update that has a line in the log, where [`Subscription::records`] asks for it.
    Update(Box<UpdateRecord>),
    /// An evaluation is complete.
    Evaluated {
        /// What it found.
        record: Box<EvalRecord>,
        /// It was asked for by [`Command::Evaluate`] and is in no file.
        requested: bool,
    },
    /// A text is complete.
    Sampled {
        /// Prompt and text.
        record: Box<SampleRecord>,
        /// It was asked for by [`Command::Sample`] and is in no file.
        requested: bool,
    },
    /// A checkpoint was saved.
    Saved {
        /// Updates that it holds.
        update: u32,
        /// Its folder in the run's.
        folder: String,
        /// Hash of its weights.
        weights_sha256: String,
    },
    /// Something out of the ordinary.
    Incident(Box<IncidentRecord>),
    /// The run went back to a checkpoint, when it was resumed or because it diverged: what was told of later updates is not part of it
    /// any more.
    Rewound(RewoundRecord),
    /// No update is under way, and none is submitted before [`Command::Continue`] or [`Command::Step`].
    Paused {
        /// Updates finished.
        update: u32,
    },
    /// The pause is over.
    Continued,
    /// Something that the user should read.
    Warning {
        /// A sentence.
        text: String,
    },
    /// The run is over and its summary and report are written.
    Ended(Box<Summary>),
    /// The run could not be opened, or its end could not be written. No run is open any more.
    Failed(Box<Problem>),
    /// A command could not be followed; nothing else changed.
    Rejected {
        /// Its name.
        command: String,
        /// Why.
        problem: Box<Problem>,
    },
}

impl SessionEvent {
    /// The line of the log that it tells of, if it tells of one.
    pub fn log_record(&self) -> Option<Event> {
        match self {
            Self::Update(record) => Some(Event::Update(record.as_ref().clone())),
            Self::Evaluated { record, requested: false } => Some(Event::Eval(record.as_ref().clone())),
            Self::Sampled { record, requested: false } => Some(Event::Sample(record.as_ref().clone())),
            Self::Incident(record) => Some(Event::Incident(record.as_ref().clone())),
            _ => None,
        }
    }
}

/// Parts of opening a run, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpeningPhase {
    /// The adapter is asked for a device.
    Device,
    /// Texts are read and tokenized.
    Data,
    /// Kernels are compiled: counted.
    Kernels,
    /// The model's buffers are made and its weights set.
    Model,
    /// Simple predictors are fitted, whose losses those of the run are held against.
    Baselines,
    /// The run's folder is made or read.
    Folder,
}

/// What a run is, once it is open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// Its name.
    pub name: String,
    /// Updates finished: 0, or those of the checkpoint that it was resumed from.
    pub update: u32,
    /// Updates that it shall make.
    pub updates: u32,
    /// Earlier starts of the run.
    pub session: u32,
    /// Name of the adapter.
    pub adapter: String,
    /// Name and version of its driver.
    pub driver: String,
    /// The config with every default filled in, TOML.
    pub config: String,
}

/// Values of series over updates, in the order in which these came back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeriesBlock {
    /// The updates.
    pub updates: Vec<u32>,
    /// When each came back.
    pub times: Vec<Time>,
    /// One for each subscribed series.
    pub columns: Vec<Column>,
}

/// Values of one series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Name of the series.
    pub series: String,
    /// The values, those of an update together; `null` where nothing was measured.
    pub values: Vec<Value>,
}

/// A value of a series.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Value(#[serde(with = "exact::option")] pub Option<f64>);

impl SeriesBlock {
    /// An empty block of these series.
    pub fn new(series: &[String]) -> SeriesBlock {
        let column = |series: &String| Column { series: series.clone(), values: Vec::new() };
        SeriesBlock { columns: series.iter().map(column).collect(), ..SeriesBlock::default() }
    }

    /// Adds an update.
    pub fn push(&mut self, record: &UpdateRecord) {
        self.updates.push(record.update);
        self.times.push(record.time);
        for column in &mut self.columns {
            let Some(source) = UpdateRecord::COLUMNS.iter().find(|source| source.series.name == column.series) else { continue };
            let values = (source.values)(record);
            // What was not measured still has its place, so that a row of the block is an update.
            let unmeasured = (values.is_empty() && !source.series.is_array()).then_some(Value(None));
            column.values.extend(values.into_iter().map(|value| Value(Some(value))).chain(unmeasured));
        }
    }

    /// The value of a series of one value an update, at a row of the block.
    pub fn scalar(&self, series: &str, row: usize) -> Option<f64> {
        let column = self.columns.iter().find(|column| column.series == series)?;
        column.values.get(row)?.0
    }
}

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The whole message for a person: what is wrong, where, what was wanted and found, what to do.
    pub what: String,
    /// The key, file or tensor, where the error states it apart.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// What was wanted, where the error states it apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// What was found, where the error states it apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// What to do, where the error states it apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// What it is to a run; the exit code of the command line follows from it.
    pub reason: ExitReason,
    /// The same command may succeed later: another process holds the run.
    #[serde(default)]
    pub is_temporary: bool,
}

impl Problem {
    /// A fault that is no special one.
    pub fn new(what: impl Into<String>) -> Problem {
        Problem { what: what.into(), place: None, wanted: None, found: None, remedy: None, reason: ExitReason::Failed, is_temporary: false }
    }

    /// Exit code of the command line, see [`ExitReason::exit_code`].
    pub fn exit_code(&self) -> u8 {
        if self.is_temporary { ExitReason::Interrupted.exit_code() } else { self.reason.exit_code() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_objects_that_name_their_kind_and_return_to_the_bit() {
        let commands = [
            (Command::Pause, r#"{"command":"pause"}"#),
            (
                Command::Resume { run: "a".into(), sets: vec!["seed=2".into()], allow: vec![Class::Optimisation] },
                r#"{"command":"resume","run":"a","sets":["seed=2"],"allow":["optimisation"]}"#,
            ),
            (
                Command::Sample(SampleRequest { prompt: "ab".into(), ..SampleRequest::default() }),
                r#"{"command":"sample","prompt":"ab","tokens":null,"temperature":null,"top_p":null,"number":0}"#,
            ),
        ];
        for (command, text) in commands {
            assert_eq!(serde_json::to_string(&command).unwrap(), text);
            assert_eq!(serde_json::from_str::<Command>(text).unwrap(), command);
            assert!(text.contains(&format!("\"{}\"", command.name())));
        }
        let short = r#"{"command":"start","run":"a","config":""}"#;
        assert_eq!(
            serde_json::from_str::<Command>(short).unwrap(),
            Command::Start { run: "a".into(), config: String::new(), sets: Vec::new() }
        );
        assert!(serde_json::from_str::<Command>(r#"{"command":"start","run":"a","config":"","set":[]}"#).is_err());

        let mut block = SeriesBlock::new(&["train_ce".into(), "z".into(), "expert_load".into(), "none".into()]);
        let loads = vec![vec![0.25, 0.75], vec![1.0, 0.0]];
        block.push(&UpdateRecord { update: 3, train_ce: f64::INFINITY, expert_load: loads, ..UpdateRecord::default() });
        let text = serde_json::to_string(&SessionEvent::Series(block.clone())).unwrap();
        assert!(text.starts_with(r#"{"event":"series","updates":[3],"#), "{text}");
        assert!(text.contains(r#"{"series":"train_ce","values":["inf"]},{"series":"z","values":[null]}"#), "{text}");
        assert!(text.ends_with(r#"{"series":"expert_load","values":[0.25,0.75,1.0,0.0]},{"series":"none","values":[]}]}"#), "{text}");
        assert_eq!(serde_json::from_str::<SessionEvent>(&text).unwrap(), SessionEvent::Series(block.clone()));
        assert_eq!((block.scalar("train_ce", 0), block.scalar("z", 0), block.scalar("train_ce", 1)), (Some(f64::INFINITY), None, None));
    }
}
