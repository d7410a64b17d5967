//! A run folder on a real disk: one writer, no way out, and a good checkpoint whatever fails or is killed.

use super::runs::{START, lines, mix, snapshot};
use crate::checkpoints::load_newest;
use crate::log::without_time;
use moelab::lab::run_folder::RunFolder;
use moelab::lab::store::{Store, StoreError};
use moelab::run::checkpoint::Expected;
use moelab::run::records::{Event, UpdateRecord};
use moelab::run::series::Series;
use moelab_native::store::Directory;
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let temporary = tempfile::tempdir().expect("a temporary folder can be made");
    let run = temporary.path().join("run-1");
    (temporary, run)
}

pub fn open(path: &Path) -> Directory {
    Directory::open(path).expect("the folder can be opened")
}

fn expected() -> Expected {
    Expected::of(&snapshot(1))
}

/// What an operation that is to fail does.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Nothing, and so do all after it: the process is as good as dead.
    Crash,
    /// Nothing, once.
    NoSpace,
    /// Half of its bytes, once.
    Short,
}

/// A directory of which one operation fails.
struct Faulty {
    inner: Directory,
    operations: Rc<Cell<u64>>,
    fault: (u64, Fault),
}

impl Faulty {
    /// Whether this operation does half of its work and fails.
    fn begin(&self, action: &'static str, path: &str) -> Result<Option<StoreError>, StoreError> {
        let now = self.operations.replace(self.operations.get() + 1);
        let error = StoreError::Medium { action, path: path.to_string(), problem: "injected".to_string() };
        match self.fault {
            (at, Fault::Crash) if now >= at => Err(error),
            (at, Fault::NoSpace) if now == at => Err(error),
            (at, Fault::Short) if now == at => Ok(Some(error)),
            _ => Ok(None),
        }
    }
}

impl Store for Faulty {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.read(path)
    }

    fn write(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        match self.begin("write", path)? {
            None => self.inner.write(path, bytes),
            Some(error) => self.inner.write(path, &bytes[..bytes.len() / 2]).and(Err(error)),
        }
    }

    fn append(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.begin("append", path)?.map_or(Ok(()), Err)?;
        self.inner.append(path, bytes)
    }

    fn sync(&mut self, path: &str) -> Result<(), StoreError> {
        self.begin("sync", path)?.map_or(Ok(()), Err)?;
        self.inner.sync(path)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), StoreError> {
        self.begin("rename", from)?.map_or(Ok(()), Err)?;
        self.inner.rename(from, to)
    }

    fn remove(&mut self, path: &str) -> Result<(), StoreError> {
        self.begin("remove", path)?.map_or(Ok(()), Err)?;
        self.inner.remove(path)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        self.inner.list(folder)
    }

    fn free_bytes(&self) -> Option<u64> {
        self.inner.free_bytes()
    }
}

/// Every write, sync, rename and removal of two saves fails in turn, in each way; the folder is then opened again.
#[test]
fn whatever_fails_a_verified_checkpoint_remains() {
    for fault in [Fault::Crash, Fault::NoSpace, Fault::Short] {
        let mut faults = 0;
        for at in 0.. {
            let (_temporary, path) = folder();
            let mut run = RunFolder::create(Box::new(open(&path)), "first", &START).expect("no fault yet");
            run.save_checkpoint(&snapshot(1), 1).expect("no fault yet");
            drop(run);
            let operations = Rc::new(Cell::new(0));
            let faulty = Faulty { inner: open(&path), operations: operations.clone(), fault: (at, fault) };
            let mut run = RunFolder::open(Box::new(faulty), "second").expect("reading does not fail");
            let saved: Vec<bool> = [2, 3].map(|update| run.save_checkpoint(&snapshot(update), 1).is_ok()).into();
            drop(run);
            let run = RunFolder::open(Box::new(open(&path)), "third").expect("the fault is over");
            let found = load_newest(&run, &expected()).expect("one is good").expect("one was saved").snapshot;
            assert_eq!(found, snapshot(found.state.update), "{fault:?} at {at}");
            let promised = 1 + saved.iter().rposition(|saved| *saved).map_or(0, |i| i as u32 + 1);
            assert!(found.state.update >= promised, "{fault:?} at {at}: {} was promised", promised);
            if operations.get() <= at {
                break;
            }
            faults += 1;
        }
        assert!(faults > 30, "{fault:?}: {faults} operations");
    }
}

/// The process that is killed below: trains and saves without end. Does nothing unless it is told a folder.
#[test]
fn a_process_to_be_killed() {
    let Some(path) = std::env::var_os("MOELAB_TEST_RUN_TO_KILL") else { return };
    let mut run = RunFolder::open(Box::new(open(Path::new(&path))), "child").expect("the parent made it");
    let first = load_newest(&run, &expected()).expect("one is good").map_or(0, |loaded| loaded.snapshot.state.update);
    run.rewind(first, "cafe", 2).expect("the folder is sound");
    for update in first + 1.. {
        for line in lines(update, 1) {
            run.append(&line).expect("the folder is sound");
        }
        run.save_checkpoint(&snapshot(update), 2).expect("the folder is sound");
    }
}

#[test]
fn killed_at_any_moment_the_newest_good_checkpoint_loads() {
    let (_temporary, path) = folder();
    drop(RunFolder::create(Box::new(open(&path)), "parent", &START).expect("the folder is empty"));
    let mut before = 0;
    for kill in 0..30 {
        let test = ["--exact", "directory::a_process_to_be_killed"];
        let program = std::env::current_exe().expect("a test has a program");
        let mut child = Command::new(program);
        child.args(test).env("MOELAB_TEST_RUN_TO_KILL", &path).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = child.spawn().expect("the test can start itself");
        // The first save of a child proves that it is at work; the kill then falls anywhere in a save or between two.
        let newest = |path: &Path| fs::read_to_string(path.join("checkpoints/latest")).unwrap_or_default();
        let start = newest(&path);
        while newest(&path) == start {
            assert_eq!(child.try_wait().ok().flatten(), None, "the child ended by itself");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(mix(kill) % 20_000));
        child.kill().expect("the child is running");
        child.wait().expect("it was killed");

        let mut run = RunFolder::open(Box::new(open(&path)), "parent").expect("the lock died with the child");
        let found = load_newest(&run, &expected()).expect("one is good").expect("one was saved");
        let update = found.snapshot.state.update;
        assert_eq!(found.snapshot, snapshot(update), "kill {kill}");
        assert!(update > before, "kill {kill}: no progress since update {before}");
        run.rewind(update, "cafe", 2).expect("the folder is sound");
        let reader = run.reader().expect("readable");
        let written: String = reader.events().skip(1).map(|event| event.expect("readable").to_line()).collect();
        // Arrays stand in records of their own.
        let without_arrays = |event: Event| match event {
            Event::Update(record) => Event::Update(UpdateRecord { expert_load: Vec::new(), router_entropy: Vec::new(), ..record }),
            event => event,
        };
        let straight: String = (1..=update).flat_map(|update| lines(update, 1)).map(|event| without_arrays(event).to_line()).collect();
        let load = Series::find("expert_load").expect("a series");
        let counts: u32 = reader.read(load, 0..=u32::MAX, 10).expect("readable").buckets.iter().map(|bucket| bucket.count).sum();
        assert_eq!(counts, update, "kill {kill}: each array record once");
        assert_eq!(without_time(&written), without_time(&straight), "kill {kill}: each line once");
        before = update;
    }
}

#[test]
fn one_process_writes() {
    let (_temporary, path) = folder();
    let first = open(&path);
    let problem = Directory::open(&path).expect_err("it is locked").to_string();
    assert!(problem.contains(&format!("is being written by process {}", std::process::id())), "{problem}");
    let mut reader = Directory::read_only(&path).expect("a reader needs no lock");
    assert!(reader.write("a", b"b").expect_err("it is a reader").to_string().contains("read-only"));
    drop(first);
    drop(open(&path));
}

#[test]
fn files_are_what_was_written() {
    let (_temporary, path) = folder();
    let mut store = open(&path);
    assert_eq!(store.read("a"), Ok(None));
    assert_eq!(store.list("checkpoints"), Ok(vec![]));
    store.write("a", b"one").expect("writable");
    store.write("a", b"1").expect("writable");
    store.append("a", b"2").expect("writable");
    assert!(store.append("b/c", b"3").is_err(), "only what is there is added to");
    store.write("b/c", b"3").expect("writable");
    assert_eq!(store.read("a"), Ok(Some(b"12".to_vec())));
    store.rename("b", "d").expect("writable");
    assert_eq!(store.read("d/c"), Ok(Some(b"3".to_vec())));
    assert!(store.rename("b", "e").is_err() && store.sync("b").is_err());
    store.sync("d/c").and_then(|()| store.sync("d")).and_then(|()| store.sync("")).expect("all is there");
    fs::write(path.join(".DS_Store"), b"").expect("writable");
    assert_eq!(store.list(""), Ok(["a", "d", "run.lock"].map(String::from).into()));
    store.remove("d").and_then(|()| store.remove("d")).expect("what is gone is no error");
    assert_eq!(store.list(""), Ok(["a", "run.lock"].map(String::from).into()));
    assert!(store.free_bytes().is_none_or(|free| free > 0));
}

#[test]
fn no_name_leads_out() {
    let (temporary, path) = folder();
    let mut store = open(&path);
    for name in ["../out", "/tmp/out", "a/../../out", "..", ".hidden", "a b", "a\0b", ""] {
        assert!(store.write(name, b"x").is_err(), "{name:?}");
    }
    for name in ["a b", ".hidden", "CON", ".."] {
        assert!(Directory::open(&temporary.path().join(name)).is_err(), "{name:?}");
    }
    assert_eq!(fs::read_dir(temporary.path()).expect("readable").count(), 1, "nothing was made outside");
}

#[cfg(unix)]
#[test]
fn links_are_refused() {
    use std::os::unix::fs::symlink;
    let (temporary, path) = folder();
    let mut store = open(&path);
    let outside = temporary.path().join("outside");
    fs::create_dir(&outside).expect("writable");
    fs::write(outside.join("file"), b"precious").expect("writable");
    symlink(outside.join("file"), path.join("link")).expect("writable");
    symlink(&outside, path.join("checkpoints")).expect("writable");
    for name in ["link", "checkpoints/file", "checkpoints"] {
        assert!(store.write(name, b"x").is_err() && store.append(name, b"x").is_err() && store.read(name).is_err(), "{name}");
        assert!(store.remove(name).is_err() && store.rename(name, "x").is_err() && store.sync(name).is_err(), "{name}");
    }
    assert_eq!(fs::read(outside.join("file")).expect("it is there"), b"precious");
    symlink(&path, temporary.path().join("run-2")).expect("writable");
    let problem = Directory::open(&temporary.path().join("run-2")).expect_err("it is a link").to_string();
    assert!(problem.contains("it is a symbolic link"), "{problem}");
}
