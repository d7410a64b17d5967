//! The messages to a study that is driven by messages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A message to a study; [`SuiteEvent`](super::SuiteEvent)s answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum SuiteCommand {
    /// Plans a study and opens its folder. Runs that the folder has already are kept.
    Open {
        /// The name of the study's file among `files`.
        study: String,
        /// The study and the configs that it names, as TOML, by file name: folders in the paths of a study are ignored.
        files: BTreeMap<String, String>,
    },
    /// Opens the study that the folder has.
    Reopen,
    /// Makes the runs that are missing.
    Run {
        /// Tries runs again that failed.
        #[serde(default)]
        retry_failed: bool,
    },
    /// Pauses after the updates in flight. What is under way stays open.
    Pause,
    /// Ends a pause.
    Continue,
    /// Stops: the run under way saves a checkpoint. [`SuiteCommand::Run`] goes on from there.
    Stop,
    /// Judges the runs made so far.
    Judge,
    /// Makes the report of the runs made so far.
    Report,
}

impl SuiteCommand {
    /// Its name, as in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Open { .. } => "open",
            Self::Reopen => "reopen",
            Self::Run { .. } => "run",
            Self::Pause => "pause",
            Self::Continue => "continue",
            Self::Stop => "stop",
            Self::Judge => "judge",
            Self::Report => "report",
        }
    }
}
