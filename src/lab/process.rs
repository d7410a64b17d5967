//! A run or study that another process makes: how it tells where it stands, and how it is told what to do.
//!
//! The process holds the lock of the folder, and keeps two files in it while it does:
//!
//! | file | content |
//! |---|---|
//! | `process.json` | a [`Process`], replaced when the run is opened, paused and continued |
//! | `commands.jsonl` | commands of others, one JSON object a line: of a run those that [`for_run`] accepts, of a study those that [`for_study`] accepts |
//!
//! What was in `commands.jsonl` before the process started is ignored, and both files are removed when it ends. Whether there is a process at all
//! is told by the lock and not by a file, so that a process that was killed leaves nothing that looks alive. A folder that is locked without
//! `process.json` belongs to a process that takes no commands: one that still opens the run, or the desktop app.
//!
//! Commands that open a run are never taken from a file, nor those whose results would only be sent to the process itself (evaluations, texts).

use serde::{Deserialize, Serialize};

use super::suite::SuiteCommand;
use crate::run::protocol::{Command, Problem};

/// Name of the file that tells where a process stands.
pub const PROCESS: &str = "process.json";
/// Name of the file with commands.
pub const COMMANDS: &str = "commands.jsonl";
/// Most bytes of a line with a command, and of `process.json`.
pub const MOST_BYTES: usize = 256;

/// Where a process stands with the run or study whose folder it has locked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// What it does.
    pub state: ProcessState,
    /// Updates made, where it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<u32>,
}

/// What a process does with a run or study.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// It does not tell, and takes no commands.
    #[default]
    Unknown,
    /// It makes updates.
    Training,
    /// It is paused.
    Paused,
}

impl Process {
    /// What the file of a process says; [`ProcessState::Unknown`] if it is missing or cannot be read.
    pub fn read(file: Option<&[u8]>) -> Process {
        let known = file.filter(|bytes| bytes.len() <= MOST_BYTES).and_then(|bytes| serde_json::from_slice(bytes).ok());
        known.unwrap_or_default()
    }
}

/// Checks that a command is one that a run takes from other processes.
///
/// # Errors
/// Other commands.
pub fn for_run(command: Command) -> Result<Command, Problem> {
    match command {
        Command::Pause | Command::Continue | Command::Step | Command::Stop | Command::Save => Ok(command),
        command => Err(refused(command.name(), "pause, continue, step, stop and save")),
    }
}

/// Checks that a command is one that a study takes from other processes.
///
/// # Errors
/// Other commands.
pub fn for_study(command: SuiteCommand) -> Result<SuiteCommand, Problem> {
    match command {
        SuiteCommand::Pause | SuiteCommand::Continue | SuiteCommand::Stop => Ok(command),
        command => Err(refused(command.name(), "pause, continue and stop")),
    }
}

/// The command to a study that does to it what a command does to a run.
///
/// # Errors
/// Commands that a study has no equivalent of.
pub fn of_study(command: &Command) -> Result<SuiteCommand, Problem> {
    match command {
        Command::Pause => Ok(SuiteCommand::Pause),
        Command::Continue => Ok(SuiteCommand::Continue),
        Command::Stop => Ok(SuiteCommand::Stop),
        command => Err(refused(command.name(), "pause, continue and stop, because its study is made by one process")),
    }
}

fn refused(name: &str, wanted: &str) -> Problem {
    Problem::new(format!("another process makes it, and takes no `{name}`: it takes {wanted}"))
}
