//! Fault injection. Every file operation that changes a run, an export or the cache goes through this module, so that a test can
//! stop the binary at each of them; a test can also simulate a lost device.
//!
//! In a debug build `MOELAB_FAULT=KIND:N` makes the N-th of these operations (counted from 0) fail, and `MOELAB_FAULT_LOG=FILE`
//! lists them, one per line. A release build reads none of these variables and calls the operations directly.
//!
//! | kind | what happens |
//! |---|---|
//! | `kill` | the process ends before the operation, as by `SIGKILL`, without unwinding |
//! | `torn` | it ends in the middle: half of the bytes are written, half of a folder is removed |
//! | `eio` | the operation fails and does nothing |
//! | `enospc` | the same, with "no space left" |
//! | `short` | a write writes half of its bytes and fails with "no space left"; other operations fail |
//! | `panic` | the thread panics before the operation |
//! | `full` | every write from the N-th on fails with "no space left" |
//!
//! `MOELAB_FAULT_RUNS=KIND:RUN,RUN` makes every write to the logs of these runs fail, by the names of their folders: in a study, the
//! other runs go on.
//!
//! `MOELAB_FAULT_DEVICE=N` loses the device after update N.

use std::fs::File;
use std::io;
use std::path::Path;

#[cfg(debug_assertions)]
pub use injected::{device_is_lost_after, operation, remove_dir_all, write_all};

/// Runs an operation, unless a fault is injected.
#[cfg(not(debug_assertions))]
#[inline]
pub fn operation(_action: &str, _path: &Path) -> io::Result<()> {
    Ok(())
}

/// Writes to an open file.
#[cfg(not(debug_assertions))]
#[inline]
pub fn write_all(file: &mut File, bytes: &[u8], _path: &Path) -> io::Result<()> {
    io::Write::write_all(file, bytes)
}

/// Removes a folder with its contents.
#[cfg(not(debug_assertions))]
#[inline]
pub fn remove_dir_all(folder: &Path) -> io::Result<()> {
    std::fs::remove_dir_all(folder)
}

/// Whether a test simulates a lost device after this update.
#[cfg(not(debug_assertions))]
#[inline]
pub fn device_is_lost_after(_update: u32) -> bool {
    false
}

#[cfg(debug_assertions)]
mod injected {
    use super::*;
    use std::fs::{self, OpenOptions};
    use std::io::{ErrorKind, Write};
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use moelab::lab::files::METRICS;

    #[derive(Clone, Copy, PartialEq)]
    enum Kind {
        Kill,
        Torn,
        Panic,
        Error,
        NoSpace,
        Short,
        Full,
    }

    impl Kind {
        fn named(name: &str) -> Option<Kind> {
            Some(match name {
                "kill" => Kind::Kill,
                "torn" => Kind::Torn,
                "panic" => Kind::Panic,
                "eio" => Kind::Error,
                "enospc" => Kind::NoSpace,
                "short" => Kind::Short,
                "full" => Kind::Full,
                _ => return None,
            })
        }
    }

    static FAULT: LazyLock<Option<(Kind, u64)>> = LazyLock::new(|| {
        let text = std::env::var("MOELAB_FAULT").ok()?;
        let (kind, number) = text.split_once(':')?;
        Some((Kind::named(kind)?, number.parse().ok()?))
    });
    /// The runs whose logs cannot be written.
    static RUNS: LazyLock<Option<(Kind, Vec<String>)>> = LazyLock::new(|| {
        let text = std::env::var("MOELAB_FAULT_RUNS").ok()?;
        let (kind, runs) = text.split_once(':')?;
        Some((Kind::named(kind)?, runs.split(',').map(str::to_owned).collect()))
    });
    static OPERATIONS: AtomicU64 = AtomicU64::new(0);

    /// Counts an operation; returns the fault to inject, if any.
    fn next(action: &str, path: &Path) -> Option<Kind> {
        let now = OPERATIONS.fetch_add(1, Ordering::Relaxed);
        if let Some(log) = std::env::var_os("MOELAB_FAULT_LOG") {
            let file = OpenOptions::new().create(true).append(true).open(log);
            // If the list cannot be written, the test finds no operations.
            let _ = file.and_then(|mut file| writeln!(file, "{action} {}", path.display()));
        }
        if let Some((kind, runs)) = RUNS.as_ref()
            && action == "write"
            && path.ends_with(METRICS)
            && runs.iter().any(|run| path.parent().is_some_and(|folder| folder.ends_with(run)))
        {
            return Some(*kind);
        }
        let (kind, at) = (*FAULT)?;
        let falls = if kind == Kind::Full { now >= at && action == "write" } else { now == at };
        falls.then_some(kind)
    }

    fn failure(kind: Kind) -> io::Error {
        match kind {
            Kind::Kill | Kind::Torn => std::process::abort(),
            Kind::Panic => panic!("injected panic"),
            Kind::Error => io::Error::other("injected I/O error"),
            Kind::NoSpace | Kind::Short | Kind::Full => io::Error::new(ErrorKind::StorageFull, "injected: no space left on device"),
        }
    }

    /// Whether a test simulates a lost device after this update.
    pub fn device_is_lost_after(update: u32) -> bool {
        static UPDATE: LazyLock<Option<u32>> = LazyLock::new(|| std::env::var("MOELAB_FAULT_DEVICE").ok()?.parse().ok());
        *UPDATE == Some(update)
    }

    /// Runs an operation, unless a fault is injected.
    pub fn operation(action: &str, path: &Path) -> io::Result<()> {
        next(action, path).map_or(Ok(()), |kind| Err(failure(kind)))
    }

    /// Writes to an open file.
    pub fn write_all(file: &mut File, bytes: &[u8], path: &Path) -> io::Result<()> {
        let kind = next("write", path);
        let half = matches!(kind, Some(Kind::Torn | Kind::Short));
        match kind {
            None => file.write_all(bytes),
            Some(_) if half => file.write_all(&bytes[..bytes.len() / 2]),
            Some(_) => Ok(()),
        }?;
        kind.map_or(Ok(()), |kind| Err(failure(kind)))
    }

    /// Removes a folder with its contents.
    pub fn remove_dir_all(folder: &Path) -> io::Result<()> {
        let kind = next("remove", folder);
        if kind == Some(Kind::Torn) {
            let entries: Vec<_> = fs::read_dir(folder)?.collect::<io::Result<_>>()?;
            for entry in &entries[..entries.len() / 2] {
                fs::remove_file(entry.path())?;
            }
        }
        kind.map_or_else(|| fs::remove_dir_all(folder), |kind| Err(failure(kind)))
    }
}
