//! The files by which a process that makes a run or study is watched and controlled from outside ([`moelab::lab::process`]).
//!
//! They are a service to others: a disk on which they cannot be written does not disturb the run, which then takes no commands.

use std::{
    fs,
    io::{ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use moelab::{
    lab::{
        process::{COMMANDS, MOST_BYTES, PROCESS, Process, ProcessState},
        suite::SuiteCommand,
    },
    run::protocol::{Command, Problem, SessionEvent},
};
use serde::de::DeserializeOwned;

use crate::{atomic::DRAFT, input, machine, store::options};

/// Time between two looks at the commands: they cost a call of the system each, and people do not notice the delay.
const PAUSE: Duration = Duration::from_millis(200);
/// Most bytes of commands that are kept for a process, and that it reads at once.
const MOST: u64 = 64 << 10;

/// The files of a process that has locked their folder. They are removed when it is dropped.
pub struct Door {
    folder: PathBuf,
    /// How much of the commands was read.
    read: u64,
    looked: Instant,
}

/// What a door lets in.
///
/// Two implementations: commands to a run, and to a study.
pub trait Admitted: DeserializeOwned {
    /// The command, if it may come from another process.
    ///
    /// # Errors
    /// Why it may not.
    fn admit(self) -> Result<Self, Problem>;
}

impl Admitted for Command {
    fn admit(self) -> Result<Command, Problem> {
        moelab::lab::process::for_run(self)
    }
}

impl Admitted for SuiteCommand {
    fn admit(self) -> Result<SuiteCommand, Problem> {
        moelab::lab::process::for_study(self)
    }
}

impl Door {
    /// Takes commands for the run or study in a folder that this process has locked, from now on.
    pub fn open(folder: &Path) -> Door {
        let read = fs::metadata(folder.join(COMMANDS)).map_or(0, |data| data.len());
        Door { folder: folder.to_path_buf(), read, looked: Instant::now() }
    }

    /// Tells others where the process stands.
    pub fn tell(&self, state: ProcessState, update: Option<u32>) {
        let draft = self.folder.join(format!("{PROCESS}{DRAFT}{}", machine::tag()));
        let write = || {
            let text = serde_json::to_vec(&Process { state, update })?;
            options().write(true).create(true).truncate(true).open(&draft)?.write_all(&text)?;
            fs::rename(&draft, self.folder.join(PROCESS))
        };
        // If it cannot be written, others see that the process takes no commands, or where it stood before.
        let _: std::io::Result<()> = write();
    }

    /// Tells others what an event of the run changes.
    pub fn observe(&self, event: &SessionEvent) {
        match event {
            SessionEvent::Opened(opened) => self.tell(ProcessState::Training, Some(opened.update)),
            SessionEvent::Paused { update } => self.tell(ProcessState::Paused, Some(*update)),
            SessionEvent::Continued => self.tell(ProcessState::Training, None),
            _ => {}
        }
    }

    /// The commands since the last call; nothing if that was just now. What is no command is returned as the reason to ignore it.
    pub fn commands<C: Admitted>(&mut self) -> Vec<Result<C, String>> {
        if self.looked.elapsed() < PAUSE {
            return Vec::new();
        }
        self.looked = Instant::now();
        let Some(text) = self.unread() else { return Vec::new() };
        // A line whose end is missing is still being written.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.read += whole as u64;
        let lines = text[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let command = |line: &[u8]| {
            if line.len() > MOST_BYTES {
                return Err(format!("{COMMANDS}: a line of {} bytes, expected at most {MOST_BYTES}", line.len()));
            }
            let command: C = serde_json::from_slice(line).map_err(|error| format!("{COMMANDS}: {error}"))?;
            command.admit().map_err(|problem| format!("{COMMANDS}: {problem}"))
        };
        lines.map(command).collect()
    }

    fn unread(&self) -> Option<Vec<u8>> {
        let path = self.folder.join(COMMANDS);
        // Most of the time there is no such file.
        let length = fs::symlink_metadata(&path).ok().filter(fs::Metadata::is_file)?.len();
        if length <= self.read {
            return None;
        }
        let mut file = input::open(&path).ok()?;
        file.seek(SeekFrom::Start(self.read)).ok()?;
        let mut text = Vec::new();
        file.take(MOST).read_to_end(&mut text).ok()?;
        Some(text)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // What stays is ignored by the next process.
        [PROCESS, COMMANDS].iter().for_each(|name| drop(fs::remove_file(self.folder.join(name))));
    }
}

/// Appends a line to the commands for the process that has locked a folder.
///
/// # Errors
/// If it cannot be written, or if the process leaves too many commands unread.
pub fn append(folder: &Path, line: &str) -> std::io::Result<()> {
    let path = folder.join(COMMANDS);
    let mut file = options().append(true).create(true).open(&path)?;
    let data = file.metadata()?;
    if !data.is_file() || data.len() + line.len() as u64 >= MOST {
        return Err(std::io::Error::new(ErrorKind::InvalidInput, format!("{COMMANDS} is no file, or has over {MOST} bytes of commands")));
    }
    // One write, so that the lines of several processes do not mix.
    file.write_all(format!("{line}\n").as_bytes())
}
