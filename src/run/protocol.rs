//! The messages between a driver and a session: [`Command`]s in, [`SessionEvent`]s out.
//!
//! Messages are plain data, sent to where the trainer lives: the command line's loop, a thread of a desktop app, a browser's worker.
//! Front ends and trainers exchange nothing else. As JSON a message is one object whose `command` or `event` names its kind.
//! Floats are preserved bit-exactly, including non-finite values (see [`exact`]).
//!
//! Events carry the records of the log, so that a front end that follows a run and one that reads its folder use the same
//! types.
//!
//! Long because it has every message of one protocol.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    exact,
    records::{EvalRecord, Event, IncidentRecord, RewoundRecord, SampleRecord, Time, UpdateRecord},
    series::{Record, RecordKind, Series},
    summary::{Baselines, ExitReason, Summary},
};
use crate::config_file::{Class, Problems};

/// A message to a session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Starts a new run. Answered by [`SessionEvent::Opening`], then [`SessionEvent::Opened`] or [`SessionEvent::Failed`].
    Start {
        /// The run's name, which the environment resolves to a folder.
        run: String,
        /// The config, as TOML that refers to no other file.
        config: String,
        /// Changes to single keys of it, each `key=value`.
        #[serde(default)]
        sets: Vec<String>,
    },
    /// Resumes a run from its newest intact checkpoint, or from its start if it has none yet. Answered like [`Command::Start`].
    Resume {
        /// The run's name.
        run: String,
        /// Changes to single keys of its config, each `key=value`.
        #[serde(default)]
        sets: Vec<String>,
        /// Classes of settings that may differ from what the run was trained with.
        #[serde(default)]
        allow: Vec<Class>,
    },
    /// Opens a run for reading, to [evaluate](Command::Evaluate) and [sample from](Command::Sample) the weights of a checkpoint.
    /// Writes nothing and takes no lock, so that the run may be trained meanwhile. Answered by [`SessionEvent::Opening`], then
    /// [`SessionEvent::Inspected`] or [`SessionEvent::Failed`]; [`Command::Stop`] closes it.
    Inspect {
        /// The run's name.
        run: String,
        /// The checkpoint.
        #[serde(default)]
        checkpoint: Checkpoint,
        /// The text to evaluate on, all of it, instead of the run's validation set: a path, as in `data.paths` of a config.
        #[serde(default)]
        data: Option<String>,
    },
    /// Submits no further update. The updates in flight are finished, as are the evaluation and the checkpoint due after the last
    /// of them; then [`SessionEvent::Paused`] follows.
    Pause,
    /// Pauses like [`Command::Pause`], but not before this number of updates is made. A run that ends earlier is not paused.
    PauseAt {
        /// The number of updates.
        update: u32,
    },
    /// Ends a pause.
    Continue,
    /// Makes one update, with the evaluation and the checkpoint that are due after it, and pauses.
    Step,
    /// Stops the run: the updates in flight are finished and a checkpoint is saved. The run can be resumed. A run that is open for reading
    /// is closed at once.
    Stop,
    /// Saves a checkpoint of the newest update, although none is due. Answered by [`SessionEvent::Saved`].
    Save,
    /// Evaluates the newest weights on the whole validation set, although no evaluation is due. Answered by
    /// [`SessionEvent::Evaluated`] with `requested`: it does not affect the log, the best checkpoint, alarms and early stopping, so that
    /// the run is unchanged.
    Evaluate,
    /// Generates text from the newest weights. Answered by [`SessionEvent::Sampled`] with `requested`; it is not logged.
    Sample(SampleRequest),
    /// Asks for the experts of each token of a text, or of the beginning of the validation set, with the newest weights. Answered by
    /// [`SessionEvent::Routed`]; the run is unchanged.
    Route {
        /// The text; none for the validation set.
        #[serde(default)]
        text: Option<String>,
    },
    /// Selects what is reported about updates from now on, in this run and later ones.
    Subscribe(Subscription),
}

impl Command {
    /// Its name, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Resume { .. } => "resume",
            Self::Inspect { .. } => "inspect",
            Self::Pause => "pause",
            Self::PauseAt { .. } => "pause_at",
            Self::Continue => "continue",
            Self::Step => "step",
            Self::Stop => "stop",
            Self::Save => "save",
            Self::Evaluate => "evaluate",
            Self::Sample(_) => "sample",
            Self::Route { .. } => "route",
            Self::Subscribe(_) => "subscribe",
        }
    }
}

/// Which checkpoint of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Checkpoint {
    /// That with the lowest validation loss, or the newest where no evaluation was saved.
    #[default]
    Best,
    /// The newest.
    Newest,
}

/// A request for generated text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleRequest {
    /// The text to continue.
    pub prompt: String,
    /// Tokens to generate. Default: the config's.
    #[serde(default)]
    pub tokens: Option<u32>,
    /// Divides the logits; 0 picks the most likely token. Default: the config's.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// Samples from the fewest most likely tokens with this total probability. Default: the config's.
    #[serde(default)]
    pub top_p: Option<f64>,
    /// Selects the random numbers: another number results in another text.
    #[serde(default)]
    pub number: u32,
}

impl SampleRequest {
    /// Values outside the limits that a config has too: each field with what is wrong with it.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut number = |field: &'static str, found: Option<f64>, most: f64, meaning: &str| match found {
            Some(number) if !(0.0..=most).contains(&number) => {
                problems.push((field, format!("{number}, expected 0 to {most}; {meaning}")));
            }
            _ => {}
        };
        number("tokens", self.tokens.map(f64::from), 65_536.0, "the number of tokens to generate");
        number("temperature", self.temperature, 100.0, "it divides the logits, 0 picks the most likely token");
        number("top_p", self.top_p, 1.0, "a probability, 1 samples from all tokens");
        problems
    }
}

/// The series that a front end receives, and how often. Evaluations, samples, checkpoints and incidents are rare and always sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscription {
    /// Names of series of updates, rows of the [table](super::series). None by default.
    #[serde(default)]
    pub series: Vec<String>,
    /// Minimum seconds between two blocks; 0 sends each update as soon as it is complete.
    #[serde(default)]
    pub every_seconds: f64,
    /// Whether to send the whole record of each update that has a line in the log as well ([`SessionEvent::Update`]).
    #[serde(default)]
    pub records: bool,
}

impl Subscription {
    /// Checks that it can be followed.
    ///
    /// # Errors
    /// Names that are no series of updates, or a time that is none.
    pub fn check(&self) -> Result<(), Problem> {
        let names = || Series::all().filter(|series| series.record == RecordKind::Update).map(|series| series.name);
        let unknown: Vec<&str> = self.series.iter().map(String::as_str).filter(|series| !names().any(|name| name == *series)).collect();
        if !unknown.is_empty() {
            let (found, wanted) = (unknown.join(", "), names().collect::<Vec<_>>().join(", "));
            let what = format!("series: {found}: no series of updates; there are {wanted}");
            return Err(Problem {
                place: Some("series".into()),
                wanted: Some(wanted.into()),
                found: Some(found.into()),
                ..Problem::new(what)
            });
        }
        if !(0.0..f64::INFINITY).contains(&self.every_seconds) {
            let found = self.every_seconds.to_string();
            let what = format!("every_seconds: {found}, expected 0 or more");
            return Err(Problem {
                place: Some("every_seconds".into()),
                wanted: Some("0 or more".into()),
                found: Some(found.into()),
                ..Problem::new(what)
            });
        }
        Ok(())
    }
}

/// A message from a session. Everything persistent is in the run folder before the event is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SessionEvent {
    /// A phase of the opening is about to start.
    Opening {
        /// Which.
        phase: OpeningPhase,
        /// Number of completed items of the phase.
        done: u32,
        /// Number of items; 0 if they are not counted.
        total: u32,
        /// Name of the next kernel.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// The run is open and makes updates from now on.
    Opened(Box<Opened>),
    /// The run is open for reading.
    Inspected(Box<Inspected>),
    /// Values of the subscribed series.
    Series(SeriesBlock),
    /// An update that has a line in the log, if [`Subscription::records`] is set.
    Update(Box<UpdateRecord>),
    /// An evaluation is complete.
    Evaluated {
        /// Its result.
        record: Box<EvalRecord>,
        /// Whether [`Command::Evaluate`] requested it; it is then not logged.
        requested: bool,
    },
    /// A text is complete.
    Sampled {
        /// Prompt and text.
        record: Box<SampleRecord>,
        /// Whether [`Command::Sample`] requested it; it is then not logged.
        requested: bool,
    },
    /// The experts of each token, on [request](Command::Route).
    Routed(Box<Routed>),
    /// A checkpoint was saved.
    Saved {
        /// Number of updates at the checkpoint.
        update: u32,
        /// Its folder within the run folder.
        folder: String,
        /// Hash of its weights.
        weights_sha256: String,
    },
    /// An incident.
    Incident(Box<IncidentRecord>),
    /// The run was rewound to a checkpoint, because it was resumed or because it diverged: events about later updates are no longer part
    /// of it.
    Rewound(RewoundRecord),
    /// No update is in flight, and none is submitted before [`Command::Continue`] or [`Command::Step`].
    Paused {
        /// Updates finished.
        update: u32,
    },
    /// The pause has ended.
    Continued,
    /// The last update is made and saved. What is left are the config's sample texts, then the files of the run's end.
    Finishing {
        /// Number of texts to generate.
        texts: u32,
    },
    /// A warning for the user.
    Warning {
        /// The text.
        text: String,
    },
    /// The run is over and its summary and report are written.
    Ended(Box<Summary>),
    /// The run that was open for reading is closed.
    Closed,
    /// The run could not be opened, or its end could not be written. No run is open any more.
    Failed(Box<Problem>),
    /// A command was rejected; nothing else changed.
    Rejected {
        /// The name of the command.
        command: String,
        /// The reason.
        problem: Box<Problem>,
    },
}

impl SessionEvent {
    /// The line of the log that corresponds to the event, if any.
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

/// Phases of opening a run, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OpeningPhase {
    /// A device is requested from the adapter.
    Device,
    /// Texts are read and tokenized.
    Data,
    /// The kernels that no earlier run on the device had are compiled, with a count.
    Kernels,
    /// The model's buffers are created and its weights initialised.
    Model,
    /// The baselines are fitted.
    Baselines,
    /// The run folder is created or read.
    Folder,
}

/// Facts about a run that has been opened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// Its name.
    pub name: String,
    /// Updates finished: 0, or those of the checkpoint that it was resumed from.
    pub update: u32,
    /// Total number of updates.
    pub updates: u32,
    /// Earlier starts of the run.
    pub session: u32,
    /// Name of the adapter.
    pub adapter: String,
    /// Name and version of its driver.
    pub driver: String,
    /// The config with every default filled in, TOML.
    pub config: String,
    /// Reference values for the losses, where the data have them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baselines: Option<Baselines>,
}

/// Facts about a run that is open for reading.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inspected {
    /// Its name.
    pub name: String,
    /// Number of updates at the checkpoint.
    pub update: u32,
    /// Its folder within the run folder.
    pub folder: String,
    /// Hash of its weights.
    pub weights_sha256: String,
    /// Name of the adapter.
    pub adapter: String,
    /// Name and version of its driver.
    pub driver: String,
    /// The config with every default filled in, TOML.
    pub config: String,
}

/// The experts of the tokens of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routed {
    /// Number of updates of the weights.
    pub update: u32,
    /// The ids of its tokens `[N]`.
    pub ids: Vec<u32>,
    /// Each id that occurs, in order, and its text.
    pub tokens: Vec<(u32, String)>,
    /// The domain of each token `[N]`, where the data have domains; empty otherwise.
    pub domains: Vec<u32>,
    /// K.
    pub experts_per_token: u32,
    /// For each router call, the experts of each token, the largest selection score first [N, K].
    pub experts: Vec<Vec<u32>>,
}

impl Routed {
    /// The text of an id.
    pub fn text(&self, id: u32) -> Option<&str> {
        let place = self.tokens.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(&self.tokens[place].1)
    }
}

/// Values of series over updates, in the order of completion.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeriesBlock {
    /// The updates.
    pub updates: Vec<u32>,
    /// When each was completed.
    pub times: Vec<Time>,
    /// One for each subscribed series.
    pub columns: Vec<Column>,
}

/// Values of one series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Name of the series.
    pub series: String,
    /// The values, grouped by update; `null` if nothing was measured.
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
            let is_it = |series: &&Series| series.record == RecordKind::Update && series.name == column.series;
            let Some(series) = Series::all().find(is_it) else { continue };
            let Some(source) = UpdateRecord::COLUMNS.iter().find(|source| source.series.name == series.read_from()) else { continue };
            let (_, values) = series.derive(&(source.shape)(record), &(source.values)(record));
            // Values that were not measured keep their place, so that a row of the block is an update.
            let unmeasured = (values.is_empty() && !series.is_array()).then_some(Value(None));
            column.values.extend(values.into_iter().map(|value| Value(Some(value))).chain(unmeasured));
        }
    }

    /// The value of a series with one value per update, at a row of the block.
    pub fn scalar(&self, series: &str, row: usize) -> Option<f64> {
        let column = self.columns.iter().find(|column| column.series == series)?;
        column.values.get(row)?.0
    }
}

/// The description of a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The complete message: what is wrong, where, what was expected and found, how to fix it.
    pub what: String,
    /// The key, file or tensor, if the error states it separately.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Box<str>>,
    /// What was expected, if the error states it separately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<Box<str>>,
    /// What was found, if the error states it separately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<Box<str>>,
    /// How to fix it, if the error states it separately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Box<str>>,
    /// The corresponding exit reason, which determines the exit code of the command line.
    pub reason: ExitReason,
    /// Whether the same command may succeed later, because another process holds the run.
    #[serde(default)]
    pub is_temporary: bool,
}

impl Problem {
    /// A failure without a specific reason.
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

impl From<Problems> for Problem {
    fn from(problems: Problems) -> Problem {
        let place = problems.iter().find_map(|(problem, place)| {
            place.map(|place| format!("{}:{}:{}", place.file, place.line, place.column)).or(problem.key.clone())
        });
        Problem { place: place.map(Into::into), ..Problem::new(problems.to_string()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_tagged_objects_that_survive_a_round_trip() {
        let commands = [
            (Command::Pause, r#"{"command":"pause"}"#),
            (
                Command::Resume { run: "a".into(), sets: vec!["seed=2".into()], allow: vec![Class::Optimisation] },
                r#"{"command":"resume","run":"a","sets":["seed=2"],"allow":["optimisation"]}"#,
            ),
            (
                Command::Inspect { run: "a".into(), checkpoint: Checkpoint::Newest, data: None },
                r#"{"command":"inspect","run":"a","checkpoint":"newest","data":null}"#,
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
        assert_eq!(
            serde_json::from_str::<Command>(r#"{"command":"inspect","run":"a"}"#).unwrap(),
            Command::Inspect { run: "a".into(), checkpoint: Checkpoint::Best, data: None }
        );

        let named = |name: &str| Subscription { series: vec!["train_ce".into(), name.into()], ..Subscription::default() }.check();
        assert_eq!(named("z"), Ok(()));
        assert_eq!(named("loss").map_err(|problem| problem.found), Err(Some("loss".into())));

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
