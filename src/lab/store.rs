//! Storage of a run: primitive operations on one run folder.
//!
//! The trait is synchronous and as small as the protocol of `run_folder` allows, and that protocol is implemented once on
//! top of it, so a new medium implements storage but no policy. Three implementations: a directory (package `moelab-native`),
//! [`super::memory::Memory`], and the log of [`stored_log`](super::stored_log) for the browser's private file system. Its calls are asynchronous only
//! while handles are obtained; reading, writing and flushing through a sync access handle in a worker are not. So the browser opens two
//! handles before a study starts, the only `async` part, and all files of the study are one log behind them; nothing in the lab has
//! to await.
//!
//! Paths are relative to the run folder, with `/` between names, and `""` is the run folder itself. Every name must pass
//! [`check_name`], in every implementation, so no path leaves the folder.

use crate::run::{checkpoint::CheckpointError, protocol::Problem, summary::ExitReason};

/// One run folder. `write` and `append` need not survive a power failure until [`Store::sync`]; `rename` must be
/// atomic, and durable after a `sync` of the parent folder.
pub trait Store {
    /// The content of a file, or `None` if it does not exist.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// A part of a file, from byte `offset` on: `length` bytes, or fewer at the end of the file; `None` if it does not
    /// exist. A medium that cannot seek reads all of it.
    fn read_at(&self, path: &str, offset: u64, length: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let part = |bytes: Vec<u8>| {
            let start = usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
            bytes[start..][..length.min(bytes.len() - start)].to_vec()
        };
        Ok(self.read(path)?.map(part))
    }

    /// Creates or replaces a file, and creates its parent folders.
    fn write(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Appends to an existing file. After an error the file is unchanged, if the medium allows.
    fn append(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Truncates an existing file to `length` bytes; a shorter one is unchanged. A medium that cannot truncate replaces the file.
    fn truncate(&mut self, path: &str, length: u64) -> Result<(), StoreError> {
        let Some(bytes) = self.read(path)?.filter(|bytes| bytes.len() as u64 > length) else { return Ok(()) };
        let draft = format!("{path}.tmp-cut");
        self.write(&draft, &bytes[..usize::try_from(length).unwrap_or(bytes.len())])?;
        self.sync(&draft)?;
        self.rename(&draft, path)
    }

    /// Returns once the content of a file, or the entries of a folder, would survive a power failure.
    fn sync(&mut self, path: &str) -> Result<(), StoreError>;

    /// Moves a file, replacing the target, or a folder, whose target must not exist.
    fn rename(&mut self, from: &str, to: &str) -> Result<(), StoreError>;

    /// Removes a file, or a folder with its contents. It is not an error if it does not exist.
    fn remove(&mut self, path: &str) -> Result<(), StoreError>;

    /// The names in a folder, sorted; empty if it does not exist.
    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError>;

    /// Free space in bytes, if the medium reports it.
    fn free_bytes(&self) -> Option<u64>;
}

/// Why something could not be stored or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The medium failed.
    #[error("cannot {action} `{path}`: {problem}")]
    Medium {
        /// The attempted operation.
        action: &'static str,
        /// The path.
        path: String,
        /// The medium's message.
        problem: String,
    },
    /// The medium is full.
    #[error("cannot {action} `{path}`: {problem}: free some space")]
    NoSpace {
        /// The attempted operation.
        action: &'static str,
        /// The path.
        path: String,
        /// The medium's message.
        problem: String,
    },
    /// Too little space for a checkpoint.
    #[error("a checkpoint needs {wanted} bytes free (twice its size), {free} are available: free some space or keep fewer")]
    Full {
        /// Bytes needed.
        wanted: u64,
        /// Bytes free.
        free: u64,
    },
    /// A name that could leave the run folder or that some system cannot store.
    #[error("`{name}` cannot be the name of a run or file: {problem}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Another process writes this run.
    #[error("`{path}` is being written by {holder}: wait for it or stop it")]
    Busy {
        /// The run folder.
        path: String,
        /// The content of its lock file.
        holder: String,
    },
    /// The folder already has a run.
    #[error("there is already a run in `{path}`: resume it, or choose another folder")]
    Occupied {
        /// The run folder.
        path: String,
    },
    /// A file that a run would write exists but does not belong to a run.
    #[error("`{path}` already exists, but no run wrote it: choose another folder, or move it away")]
    Foreign {
        /// The file.
        path: String,
    },
    /// There is no run in the folder, or its start was interrupted.
    #[error(
        "`{missing}` is missing: no run was started here, or its start was interrupted. \
         Give the command again that starts it (`moelab train` or `moelab import`)"
    )]
    Unstarted {
        /// The missing file.
        missing: &'static str,
    },
    /// A file that defines a run was changed or damaged.
    #[error(
        "`{path}` is not as the run wrote it: restore it from a backup. If it was changed on purpose, remove `SHA256SUMS`: the file is then accepted"
    )]
    Changed {
        /// The file.
        path: String,
    },
    /// The log lacks lines that it had when the checkpoint was saved.
    #[error(
        "`metrics.jsonl` was truncated or belongs to another run: it does not have the {} that it had at the checkpoint of update {update} (it has {found} up to there). \
         Restore it from a backup; or remove it, and `moelab resume` continues without the lines up to update {update}",
        .wanted.map_or("lines".to_string(), |wanted| format!("{wanted} lines"))
    )]
    LogLost {
        /// Update of the checkpoint.
        update: u32,
        /// Lines at the checkpoint, if known.
        wanted: Option<u64>,
        /// Lines found.
        found: u64,
    },
    /// A line for this update is already written.
    #[error("metrics.jsonl already has a line of kind `{kind}` for update {update} or later")]
    Doubled {
        /// Kind of the line.
        kind: &'static str,
        /// Its update.
        update: u32,
    },
    /// A file of the run cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// The checkpoint to be saved is invalid, or the saved one cannot be read back.
    #[error("the checkpoint was not saved: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// There are checkpoints, but none is intact.
    #[error("no checkpoint can be used:\n  {}", .0.join("\n  "))]
    Exhausted(
        /// One line each: the folder and the problem.
        Vec<String>,
    ),
}

impl StoreError {
    /// Whether the failure was in reading, so that no data is lost.
    pub fn is_of_reading(&self) -> bool {
        matches!(self, Self::Medium { action: "list" | "open" | "read" | "use", .. })
    }
}

impl ExitReason {
    /// The exit reason of an error of a run's folder, during a run or before one.
    pub fn of_store(error: &StoreError) -> ExitReason {
        match error {
            StoreError::Full { .. } | StoreError::NoSpace { .. } => Self::OutOfSpace,
            StoreError::Medium { .. } if !error.is_of_reading() => Self::SaveFailed,
            StoreError::Checkpoint(_) => Self::SaveFailed,
            _ => Self::Failed,
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Problem {
        let problem = Problem { reason: ExitReason::of_store(&error), ..Problem::new(error.to_string()) };
        match error {
            StoreError::Full { wanted, free } => Problem {
                wanted: Some(format!("{wanted} bytes free").into()),
                found: Some(format!("{free} bytes free").into()),
                remedy: Some("free some space or keep fewer checkpoints".into()),
                ..problem
            },
            StoreError::Busy { path, holder } => Problem {
                place: Some(path.into()),
                found: Some(format!("it is being written by {holder}").into()),
                remedy: Some("wait for it or stop it".into()),
                is_temporary: true,
                ..problem
            },
            StoreError::Occupied { path } => {
                Problem { place: Some(path.into()), remedy: Some("resume the run, or choose another folder".into()), ..problem }
            }
            StoreError::Foreign { path } => {
                Problem { place: Some(path.into()), remedy: Some("choose another folder, or move it away".into()), ..problem }
            }
            StoreError::Medium { path, problem: found, .. } => Problem { place: Some(path.into()), found: Some(found.into()), ..problem },
            StoreError::NoSpace { path, problem: found, .. } => {
                Problem { place: Some(path.into()), found: Some(found.into()), remedy: Some("free some space".into()), ..problem }
            }
            StoreError::Changed { path } => Problem { place: Some(path.into()), ..problem },
            StoreError::Unstarted { missing } => Problem { place: Some(missing.into()), ..problem },
            _ => problem,
        }
    }
}

const NAME_LIMIT: usize = 100;

/// Accepts `[A-Za-z0-9._-]{1,100}` without a leading or trailing dot that is not a device name of Windows.
pub fn check_name(name: &str) -> Result<(), StoreError> {
    let refuse = |problem| Err(StoreError::Name { name: name.to_string(), problem });
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > NAME_LIMIT {
        return refuse("it must have 1 to 100 characters");
    }
    if !name.bytes().all(allowed) {
        return refuse("only letters, digits, `.`, `_` and `-` are allowed");
    }
    if name.starts_with('.') || name.ends_with('.') {
        return refuse("it must not start or end with a dot");
    }
    let stem = name.split('.').next().unwrap_or(name).to_ascii_uppercase();
    let numbered = |device: &str| stem.strip_prefix(device).is_some_and(|n| n.len() == 1 && n != "0" && n < "a");
    if ["CON", "PRN", "AUX", "NUL"].contains(&stem.as_str()) || numbered("COM") || numbered("LPT") {
        return refuse("Windows reserves it for a device");
    }
    Ok(())
}

/// Checks every name of a path; `""` is the run folder itself.
pub fn check_path(path: &str) -> Result<(), StoreError> {
    match path {
        "" => Ok(()),
        path => path.split('/').try_for_each(check_name),
    }
}
