//! Where a run is kept: primitive operations on one run folder.
//!
//! The trait is synchronous and as small as the protocol of [`super::run_folder`] allows, and that protocol is written once over
//! it, so a new medium implements storage and no policy. Three implementations: a directory (package `moelab-native`),
//! [`super::memory::Memory`], and the browser's private file system. The last one's calls are asynchronous only
//! while handles are obtained; reading, writing and flushing through a sync access handle in a worker are not. So the browser opens a
//! pool of handles before the run starts, which is where its `async` stands, and maps names to them; nothing
//! in the lab has to await. It renames a folder by moving its files with the manifest last, which is enough: a
//! folder counts as a checkpoint by its verified manifest, not by its name.
//!
//! Paths are relative to the run folder, with `/` between names, and `""` is the run folder itself. Every name must pass
//! [`check_name`], in every implementation, so no path leaves the folder.

use crate::train::checkpoint::CheckpointError;

/// One run folder. `write` and `append` need not survive a power cut until [`Store::sync`]; `rename` must be
/// atomic, and durable after a `sync` of the parent folder.
pub trait Store {
    /// The content of a file, or `None` where there is none.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// A part of a file, from byte `offset` on: `length` bytes, or fewer where the file ends before; `None` where there is no
    /// file. A medium that cannot seek reads all of it.
    fn read_at(&self, path: &str, offset: u64, length: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let part = |bytes: Vec<u8>| {
            let start = usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
            bytes[start..][..length.min(bytes.len() - start)].to_vec()
        };
        Ok(self.read(path)?.map(part))
    }

    /// Makes or replaces a file, and the folders above it.
    fn write(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Adds to the end of a file that is there. After an error the file is as it was, as far as the medium allows.
    fn append(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Cuts a file that is there down to `length` bytes; a shorter one stays as it is. A medium that cannot cut replaces the file.
    fn truncate(&mut self, path: &str, length: u64) -> Result<(), StoreError> {
        let Some(bytes) = self.read(path)?.filter(|bytes| bytes.len() as u64 > length) else { return Ok(()) };
        let draft = format!("{path}.tmp-cut");
        self.write(&draft, &bytes[..usize::try_from(length).unwrap_or(bytes.len())])?;
        self.sync(&draft)?;
        self.rename(&draft, path)
    }

    /// Returns when the content of a file, or the names in a folder, would survive a power cut.
    fn sync(&mut self, path: &str) -> Result<(), StoreError>;

    /// Moves a file, replacing the target, or a folder, whose target must not exist.
    fn rename(&mut self, from: &str, to: &str) -> Result<(), StoreError>;

    /// Removes a file, or a folder with all that is in it. What is not there is no error.
    fn remove(&mut self, path: &str) -> Result<(), StoreError>;

    /// The names in a folder, sorted; none where there is no such folder.
    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError>;

    /// Bytes that can still be written, where the medium tells.
    fn free_bytes(&self) -> Option<u64>;
}

/// Why something could not be stored or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The medium failed.
    #[error("cannot {action} `{path}`: {problem}")]
    Medium {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// What the medium says.
        problem: String,
    },
    /// The medium is full.
    #[error("cannot {action} `{path}`: {problem}: free some space")]
    NoSpace {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// What the medium says.
        problem: String,
    },
    /// Too little room for a checkpoint.
    #[error("a checkpoint needs {wanted} bytes free (twice its size), there are {free}: free some space or keep fewer")]
    Full {
        /// Bytes wanted.
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
        /// What its lock file says.
        holder: String,
    },
    /// There is a run in the folder already.
    #[error("there is already a run in `{path}`: resume it, or choose another folder")]
    Occupied {
        /// The run folder.
        path: String,
    },
    /// A file that a run would write is there and is of no run.
    #[error("`{path}` is there already, and no run wrote it: choose another folder, or move it away")]
    Foreign {
        /// The file.
        path: String,
    },
    /// There is no run in the folder, though its start may have begun.
    #[error(
        "`{missing}` is missing: no run was started here, or its start was cut short. \
         Give the command again that starts it (`moelab train` or `moelab import`)"
    )]
    Unstarted {
        /// The file that a run has.
        missing: &'static str,
    },
    /// A file that says what a run is was changed or damaged.
    #[error(
        "`{path}` is not as the run wrote it: put it back from a copy. If it was changed on purpose, remove `SHA256SUMS`: the file is then taken as it is"
    )]
    Changed {
        /// The file.
        path: String,
    },
    /// The log lacks lines that were in it when the checkpoint was saved.
    #[error(
        "`metrics.jsonl` was cut or is another run's: it does not hold the {} that it had at the checkpoint of update {update} (it has {found} up to there). \
         Put it back from a copy; or remove it, and `moelab resume` goes on without the lines up to update {update}",
        .wanted.map_or("lines".to_string(), |wanted| format!("{wanted} lines"))
    )]
    LogLost {
        /// Update of the checkpoint.
        update: u32,
        /// Lines at the checkpoint, where it tells.
        wanted: Option<u64>,
        /// Lines that are there.
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
    /// The checkpoint to be saved is not sound, or the saved one does not read back.
    #[error("the checkpoint was not saved: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// There are checkpoints and none is good.
    #[error("no checkpoint can be used:\n  {}", .0.join("\n  "))]
    Exhausted(
        /// One line for each: its folder and what is wrong with it.
        Vec<String>,
    ),
}

impl StoreError {
    /// Whether something could not be read, so that nothing was about to be lost.
    pub fn is_of_reading(&self) -> bool {
        matches!(self, Self::Medium { action: "list" | "open" | "read" | "use", .. })
    }
}

const NAME_LIMIT: usize = 100;

/// Accepts `[A-Za-z0-9._-]{1,100}` without a leading or trailing dot that is no device name of Windows.
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
        return refuse("Windows keeps it for a device");
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
