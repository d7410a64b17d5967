//! A run folder as a directory.
//!
//! One process writes a run: it holds an exclusive lock on `run.lock`, which the system releases when the process ends for
//! any reason, so there are no stale locks; the process id in the file is for messages. The file stays, unless nothing else was
//! written: then it is removed together with the folders that were created for it. If `run.lock` is no longer the file that was
//! locked, the run folder was removed, moved or replaced; every change is then an error, so that no run continues in a folder
//! that is not its own. Symbolic links are refused, in the folder and as the folder, so nothing is written outside of it.
//!
//! Every operation that changes something goes through [`crate::fault`].
//! Syncing a folder is specific to POSIX; elsewhere (Windows), `sync` of a folder does nothing.

use crate::atomic::sync_folder;
use crate::{fault, input, print};
use moelab::lab::store::{Store, StoreError, check_name, check_path};
use std::cell::Cell;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

const LOCK: &str = "run.lock";
/// How long somebody who looks at a lock may hold it, and how often a writer tries again.
const LOOK: Duration = Duration::from_millis(5);
const LOOKS: u32 = 4;

/// A run folder on disk. Clones share the lock.
#[derive(Clone, Debug)]
pub struct Directory {
    root: PathBuf,
    /// `None` for a reader.
    hold: Option<Rc<Hold>>,
}

/// The right to write a folder; dropped with its last user.
#[derive(Debug)]
struct Hold {
    root: PathBuf,
    lock: File,
    /// What was created to open the folder: folders, the outermost first, and then the lock file.
    made: Vec<PathBuf>,
    is_changed: Cell<bool>,
}

impl Directory {
    /// Opens a run folder for writing, and creates it if it does not exist. Fails if another process is writing it.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let absent = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        let mut made: Vec<PathBuf> = root.ancestors().take_while(absent).map(Path::to_path_buf).collect();
        made.reverse();
        let directory = Self { root: checked_root(root)?, hold: None };
        fault::operation("create", root)
            .and_then(|()| fs::create_dir_all(root))
            .map_err(|error| medium("make", &print::path(root), error))?;
        if let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            sync_folder(parent).map_err(|error| medium("sync", &print::path(parent), error))?;
        }
        let lock = root.join(LOCK);
        let is_new = !lock.exists();
        let file = directory.take_lock(LOOKS)?;
        made.extend(is_new.then_some(lock));
        let hold = Hold { root: root.to_path_buf(), lock: file, made, is_changed: Cell::new(false) };
        Ok(Self { hold: Some(Rc::new(hold)), ..directory })
    }

    /// Opens a run folder for reading, which needs no lock: another process may be writing it.
    pub fn read_only(root: &Path) -> Result<Self, StoreError> {
        let directory = Self { root: checked_root(root)?, hold: None };
        match directory.root.is_dir() {
            true => Ok(directory),
            false => Err(refused("open", &print::path(root), "there is no such folder")),
        }
    }

    /// Whether a process is writing a run folder.
    pub fn is_locked(root: &Path) -> Result<bool, StoreError> {
        let place = checked_root(root)?.join(LOCK);
        let file = match options().read(true).open(place) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            file => file.map_err(|error| medium("look at", LOCK, error))?,
        };
        // A shared lock, which many may hold at once; it is released with the file.
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(medium("look at", LOCK, error)),
        }
    }

    /// Takes the lock, after `looks` more attempts: somebody may just be [looking at](Self::is_locked) it.
    fn take_lock(&self, looks: u32) -> Result<File, StoreError> {
        let place = self.place(LOCK)?;
        let failed = |error: io::Error| medium("lock", LOCK, error);
        let mut file = options().read(true).write(true).create(true).truncate(false).open(&place).map_err(failed)?;
        match file.try_lock() {
            // Another process removed the file between the two lines above, because it had written nothing.
            Ok(()) if !is_same_file(&file, &place) => return self.take_lock(looks),
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
            Err(TryLockError::WouldBlock) if looks > 0 => {
                std::thread::sleep(LOOK);
                return self.take_lock(looks - 1);
            }
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&place).ok().filter(|text| !text.is_empty());
                let holder = holder.unwrap_or_else(|| "another process".to_string());
                return Err(StoreError::Busy { path: print::path(&self.root), holder });
            }
        }
        let holder = format!("process {}", std::process::id());
        file.set_len(0).and_then(|()| fault::write_all(&mut file, holder.as_bytes(), &place)).map_err(failed)?;
        Ok(file)
    }

    /// Resolves a path, none of whose names may be a symbolic link.
    fn place(&self, path: &str) -> Result<PathBuf, StoreError> {
        check_path(path)?;
        let mut place = self.root.clone();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            place.push(name);
            refuse_link(&place)?;
        }
        Ok(place)
    }

    /// Resolves a path that is to be changed.
    fn place_to_change(&mut self, path: &str) -> Result<PathBuf, StoreError> {
        let Some(hold) = &self.hold else { return Err(refused("change", path, "this run is open read-only")) };
        if !is_same_file(&hold.lock, &self.root.join(LOCK)) {
            return Err(refused("change", path, "the run's folder was removed, moved or replaced while the run was writing it"));
        }
        hold.is_changed.set(true);
        self.place(path)
    }

    fn make_parent(&self, place: &Path, path: &str) -> Result<(), StoreError> {
        let parent = place.parent().filter(|parent| !parent.exists());
        parent.map_or(Ok(()), fs::create_dir_all).map_err(|error| medium("make the folder of", path, error))
    }
}

impl Hold {
    /// Removes what was created to open the folder: the lock file first, then empty folders.
    fn remove_made(&self) -> io::Result<()> {
        self.made.iter().rev().try_for_each(|place| if place.is_dir() { fs::remove_dir(place) } else { fs::remove_file(place) })
    }
}

impl Drop for Hold {
    /// Closing the file would suffice, unless a process that is just being started still has a copy of it.
    fn drop(&mut self) {
        if !self.is_changed.get() && is_same_file(&self.lock, &self.root.join(LOCK)) {
            // What cannot be removed stays; another run may start there.
            let _ = self.remove_made();
        }
        // An error could not be reported, and the end of the process releases the lock anyway.
        let _ = self.lock.unlock();
    }
}

impl Store for Directory {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match input::read(&self.place(path)?, u64::MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(medium("read", path, error)),
        }
    }

    fn read_at(&self, path: &str, offset: u64, length: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let read = |mut file: File| {
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(length as u64).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        };
        match input::open(&self.place(path)?).and_then(read) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            result => result.map_err(|error| medium("read", path, error)),
        }
    }

    fn write(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let place = self.place_to_change(path)?;
        self.make_parent(&place, path)?;
        let write = || fault::write_all(&mut options().write(true).create(true).truncate(true).open(&place)?, bytes, &place);
        write().map_err(|error| medium("write", path, error))
    }

    fn append(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let place = self.place_to_change(path)?;
        let append = || {
            let mut file = options().append(true).open(&place)?;
            let before = file.metadata()?.len();
            fault::write_all(&mut file, bytes, &place).inspect_err(|_| {
                // The first error is the relevant one; a remaining fragment is a torn line, which readers ignore.
                let _ = file.set_len(before);
            })
        };
        append().map_err(|error| medium("append to", path, error))
    }

    fn truncate(&mut self, path: &str, length: u64) -> Result<(), StoreError> {
        let place = self.place_to_change(path)?;
        let truncate = || {
            let file = options().write(true).open(&place)?;
            if file.metadata()?.len() > length {
                fault::operation("truncate", &place)?;
                file.set_len(length)?;
            }
            Ok(())
        };
        truncate().map_err(|error| medium("cut", path, error))
    }

    fn sync(&mut self, path: &str) -> Result<(), StoreError> {
        let place = self.place_to_change(path)?;
        let synced = fault::operation("sync", &place).and_then(|()| match place.is_dir() {
            true => sync_folder(&place),
            false => options().append(true).open(&place).and_then(|file| file.sync_all()),
        });
        synced.map_err(|error| medium("sync", path, error))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), StoreError> {
        let (old, new) = (self.place_to_change(from)?, self.place_to_change(to)?);
        fault::operation("rename", &old).and_then(|()| fs::rename(old, new)).map_err(|error| medium("rename", from, error))
    }

    fn remove(&mut self, path: &str) -> Result<(), StoreError> {
        let place = self.place_to_change(path)?;
        let removed = match place.is_dir() {
            true => fault::remove_dir_all(&place),
            false => fault::operation("remove", &place).and_then(|()| fs::remove_file(&place)),
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(medium("remove", path, error)),
            _ => Ok(()),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        let failed = |error| medium("list", folder, error);
        let entries = match fs::read_dir(self.place(folder)?) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            // Files with other names (`.DS_Store`) are not part of the run.
            let name = entry.map_err(failed)?.file_name().into_string();
            names.extend(name.ok().filter(|name| check_name(name).is_ok()));
        }
        names.sort();
        Ok(names)
    }

    #[cfg(unix)]
    fn free_bytes(&self) -> Option<u64> {
        let info = rustix::fs::statvfs(&self.root).ok()?;
        info.f_bavail.checked_mul(info.f_frsize)
    }

    #[cfg(not(unix))]
    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

/// The folder may be anywhere; its name must be a valid run name, and it must not be a link.
fn checked_root(root: &Path) -> Result<PathBuf, StoreError> {
    let name = root.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    check_name(name)?;
    refuse_link(root)?;
    Ok(root.to_path_buf())
}

fn refuse_link(place: &Path) -> Result<(), StoreError> {
    match fs::symlink_metadata(place) {
        Ok(data) if data.file_type().is_symlink() => Err(refused("use", &print::path(place), "it is a symbolic link")),
        _ => Ok(()),
    }
}

/// Options that do not follow a link which appeared after the check.
pub(crate) fn options() -> OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "the flag below is a Unix one"))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Then a named pipe in place of a file is an error instead of blocking.
        options.custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed());
    }
    options
}

/// Whether a path still leads to an open file.
#[cfg(unix)]
fn is_same_file(file: &File, place: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let found = file.metadata().and_then(|ours| Ok((ours, fs::symlink_metadata(place)?)));
    found.is_ok_and(|(ours, there)| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
}

/// Whether there is still a file where it was opened: an open file cannot be replaced on Windows.
#[cfg(not(unix))]
fn is_same_file(_file: &File, place: &Path) -> bool {
    place.exists()
}

fn medium(action: &'static str, path: &str, error: io::Error) -> StoreError {
    let (path, problem) = (path.to_string(), error.to_string());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => StoreError::NoSpace { action, path, problem },
        _ => StoreError::Medium { action, path, problem },
    }
}

fn refused(action: &'static str, path: &str, problem: &str) -> StoreError {
    StoreError::Medium { action, path: path.to_string(), problem: problem.to_string() }
}
