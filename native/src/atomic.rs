//! Atomic writes of files and folders: exports, the cache, and everything else that is written as a whole.
//!
//! The content is written to a draft next to its destination (`NAME.tmp-PROCESS-NUMBER`), synced and renamed, and the parent folder is
//! synced.
//!
//! | a crash | leaves |
//! |---|---|
//! | before the rename | the previous content, and a draft, which the next write to the same destination removes |
//! | after the rename, before the sync of the parent folder | the new content; after a power failure the old or the new |
//!
//! A writer holds a lock on its draft, so an unlocked draft was left by a crash. Where folders cannot be locked (Windows), the draft
//! of a folder stays until it is removed by hand.

use crate::fault;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The infix of a draft's name.
pub const DRAFT: &str = ".tmp-";

/// Creates or replaces a file. The parent folder must exist.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    remove_drafts(path)?;
    let (draft, mut file) = loop {
        let draft = draft_of(path)?;
        fault::operation("create", &draft)?;
        let file = File::create_new(&draft)?;
        // A concurrent cleaner may have taken the lock between the two lines above and removes the draft.
        file.lock()?;
        if draft.exists() {
            break (draft, file);
        }
    };
    let written = fault::write_all(&mut file, bytes, &draft)
        .and_then(|()| fault::operation("sync", &draft))
        .and_then(|()| file.sync_all())
        .and_then(|()| fault::operation("rename", path))
        .and_then(|()| fs::rename(&draft, path));
    written.inspect_err(|_| {
        // The first error is the relevant one.
        let _ = fs::remove_file(&draft);
    })?;
    sync_parent(path)
}

/// Creates a folder with these files. It must not exist; its parent folder must.
pub fn write_folder(folder: &Path, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    if folder.exists() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "it already exists"));
    }
    remove_drafts(folder)?;
    let (draft, _lock) = loop {
        let draft = draft_of(folder)?;
        fault::operation("create", &draft)?;
        fs::create_dir(&draft)?;
        let lock = lock_folder(&draft);
        if draft.exists() {
            break (draft, lock);
        }
    };
    let write = || {
        for (name, bytes) in files {
            let place = draft.join(name);
            fault::operation("create", &place)?;
            let mut file = File::create_new(&place)?;
            fault::write_all(&mut file, bytes, &place)?;
            fault::operation("sync", &place)?;
            file.sync_all()?;
        }
        fault::operation("sync", &draft)?;
        sync_folder(&draft)?;
        fault::operation("rename", folder)?;
        fs::rename(&draft, folder)
    };
    write().inspect_err(|_| {
        // The first error is the relevant one.
        let _ = fs::remove_dir_all(&draft);
    })?;
    sync_parent(folder)
}

/// Removes drafts that a crash left behind for `path`.
pub fn remove_drafts(path: &Path) -> io::Result<()> {
    let mut prefix = name(path)?.to_os_string();
    prefix.push(DRAFT);
    let prefix = prefix.to_string_lossy().into_owned();
    let entries = match fs::read_dir(parent(path)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().strip_prefix(&prefix).is_some_and(is_tag) {
            continue;
        }
        let (draft, kind) = (entry.path(), entry.file_type()?);
        let lock = if kind.is_dir() { lock_folder(&draft) } else { File::open(&draft).ok().filter(|file| file.try_lock().is_ok()) };
        if lock.is_none() {
            continue;
        }
        let removed = match kind.is_dir() {
            true => fault::remove_dir_all(&draft),
            false => fault::operation("remove", &draft).and_then(|()| fs::remove_file(&draft)),
        };
        removed.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
    }
    Ok(())
}

/// Makes the entries of a folder durable. POSIX only: does nothing on other systems.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(folder)?.sync_all(),
        false => Ok(()),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = parent(path);
    fault::operation("sync", parent)?;
    sync_folder(parent)
}

/// Locks a folder, if the system supports it and nobody else holds the lock.
fn lock_folder(folder: &Path) -> Option<File> {
    File::open(folder).ok().filter(|file| file.try_lock().is_ok())
}

fn draft_of(path: &Path) -> io::Result<PathBuf> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mut draft = OsString::from(name(path)?);
    draft.push(format!("{DRAFT}{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(draft))
}

/// `PROCESS-NUMBER`.
fn is_tag(text: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('-').is_some_and(|(process, number)| is_number(process) && is_number(number))
}

fn name(path: &Path) -> io::Result<&std::ffi::OsStr> {
    path.file_name().ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "the path has no file name"))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_write_replaces_and_leaves_no_draft() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.txt");
        // A crash leaves drafts of a process that no longer exists. Other files stay.
        fs::write(folder.path().join("a.txt.tmp-1-0"), b"torn").unwrap();
        fs::write(folder.path().join("a.txt.tmp-notes"), b"mine").unwrap();
        write(&file, b"one").unwrap();
        write(&file, b"two").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"two");
        assert_eq!(names(folder.path()), ["a.txt", "a.txt.tmp-notes"]);
    }

    #[test]
    fn a_draft_in_use_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let draft = folder.path().join("a.txt.tmp-1-0");
        let used = File::create(&draft).unwrap();
        used.lock().unwrap();
        write(&folder.path().join("a.txt"), b"one").unwrap();
        assert_eq!(names(folder.path()), ["a.txt", "a.txt.tmp-1-0"]);
        drop(used);
        write(&folder.path().join("a.txt"), b"two").unwrap();
        assert_eq!(names(folder.path()), ["a.txt"]);
    }

    #[test]
    fn a_folder_is_written_atomically_and_never_replaces_another() {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        fs::create_dir(folder.path().join("model.tmp-1-0")).unwrap();
        fs::write(folder.path().join("model.tmp-1-0/a"), b"torn").unwrap();
        let files = [("a".to_string(), b"1".to_vec()), ("b".to_string(), b"2".to_vec())];
        write_folder(&model, &files).unwrap();
        assert_eq!((names(folder.path()), names(&model)), (vec!["model".to_string()], vec!["a".to_string(), "b".to_string()]));
        assert_eq!(write_folder(&model, &files).unwrap_err().kind(), ErrorKind::AlreadyExists);
        let broken = [("a/b".to_string(), b"1".to_vec())];
        assert!(write_folder(&folder.path().join("other"), &broken).is_err(), "there is no folder `a`");
        assert_eq!(names(folder.path()), ["model"]);
    }
}
