//! The log behind a study's files: what is stored is always a prefix of the changes.

use std::{
    cell::{Cell, RefCell, RefMut},
    rc::Rc,
};

use moelab::{
    lab::{
        store::Store,
        stored_log::{Folders, Log, LogError, Medium},
        suite::SuiteStore,
    },
    random::philox4x32,
};

/// A medium in memory. Clones share it, so that it can be opened again as after a crash of the process.
#[derive(Clone, Default)]
pub struct File {
    disk: Rc<RefCell<Disk>>,
    /// If set, as many operations succeed, of all files that share the number.
    left: Rc<Cell<Option<usize>>>,
}

#[derive(Default)]
struct Disk {
    bytes: Vec<u8>,
    /// What a power failure leaves at least, and what was written since.
    flushed: Vec<u8>,
    unflushed: Vec<(u64, Vec<u8>)>,
}

fn put(file: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    let (start, end) = (at as usize, at as usize + bytes.len());
    file.resize(file.len().max(end), 0);
    file[start..end].copy_from_slice(bytes);
}

impl File {
    fn of(bytes: &[u8]) -> File {
        let disk = Disk { bytes: bytes.to_vec(), flushed: bytes.to_vec(), unflushed: Vec::new() };
        File { disk: Rc::new(RefCell::new(disk)), left: Rc::default() }
    }

    fn bytes(&self) -> Vec<u8> {
        self.disk.borrow().bytes.clone()
    }

    /// As after a power failure: what was not flushed is lost, or all of it but the last write, because a medium may reorder.
    fn after_power_failure(&self, keeps_last: bool) -> File {
        let disk = self.disk.borrow();
        let mut bytes = disk.flushed.clone();
        disk.unflushed.last().filter(|_| keeps_last).into_iter().for_each(|(at, written)| put(&mut bytes, *at, written));
        File::of(&bytes)
    }

    fn operate(&self, action: &'static str) -> Result<RefMut<'_, Disk>, LogError> {
        match self.left.get() {
            Some(0) => return Err(LogError::Medium { action, problem: "the power failed".into() }),
            Some(left) => self.left.set(Some(left - 1)),
            None => {}
        }
        Ok(self.disk.borrow_mut())
    }
}

impl Medium for File {
    fn read(&self) -> Result<Vec<u8>, LogError> {
        Ok(self.bytes())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), LogError> {
        let mut disk = self.operate("write")?;
        put(&mut disk.bytes, at, bytes);
        disk.unflushed.push((at, bytes.to_vec()));
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> Result<(), LogError> {
        let mut disk = self.operate("cut")?;
        disk.bytes.truncate(length as usize);
        // It may be on the medium before what was written earlier.
        disk.flushed.truncate(length as usize);
        disk.unflushed.retain(|(at, _)| *at < length);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), LogError> {
        let mut disk = self.operate("flush")?;
        disk.flushed = disk.bytes.clone();
        disk.unflushed.clear();
        Ok(())
    }
}

/// All files below a folder of a study and its run `r`.
fn files(folders: &Folders) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for (name, store) in [("", folders.folder("r").unwrap()), ("r/", folders.folder("q").unwrap())] {
        for folder in ["", "a", "b"] {
            for file in store.list(folder).unwrap() {
                let path = if folder.is_empty() { file } else { format!("{folder}/{file}") };
                found.extend(store.read(&path).unwrap().map(|bytes| (format!("{name}{path}"), bytes)));
            }
        }
    }
    found
}

/// A change that a run could make, drawn by number. Returns whether it was made: what fails changes nothing.
fn change(store: &mut dyn Store, number: u32) -> bool {
    let [kind, from, to, bytes] = philox4x32([number, 0, 0, 0], [7, 0]);
    let path = |choice: u32| ["x", "y", "a/x", "b/y"][choice as usize % 4];
    let content = vec![bytes as u8; bytes as usize % 50];
    match kind % 6 {
        0 | 1 => store.write(path(from), &content),
        2 => store.append(path(from), &content),
        3 => store.truncate(path(from), u64::from(to % 20)),
        4 => store.rename(["x", "y", "a", "b"][from as usize % 4], path(to)),
        _ => store.remove(["x", "y", "a", "b"][from as usize % 4]),
    }
    .is_ok()
}

#[test]
fn a_log_that_is_cut_anywhere_holds_a_prefix_of_the_changes() {
    let media = [File::default(), File::default()];
    let mut log = Log::open(media.clone(), None).unwrap();
    let folders = log.folders();
    let mut states = vec![files(&folders)];
    let mut made = 0;
    for number in 0..120 {
        let mut store = folders.folder(["r", "q"][number as usize % 2]).unwrap();
        if change(&mut *store, number) {
            made += 1;
            states.push(files(&folders));
            log.save().unwrap();
        }
    }
    assert!(made > 60, "{made}");
    let whole = media[0].bytes();
    let mut reached = 0;
    for length in 0..=whole.len() {
        let cut = [File::of(&whole[..length]), File::default()];
        let mut opened = Log::open(cut.clone(), None).unwrap();
        let found = files(&opened.folders());
        // Some changes leave the files as they are: the state is looked for from the last one on.
        reached += states[reached..].iter().position(|state| *state == found).unwrap_or_else(|| panic!("no state at {length}"));
        // It goes on from there.
        opened.folders().folder("r").unwrap().write("z", b"more").unwrap();
        opened.save().unwrap();
        let again = Log::open(cut, None).unwrap().folders();
        assert_eq!(again.folder("r").unwrap().read("z").unwrap(), Some(b"more".to_vec()));
    }
    assert_eq!(states[reached], *states.last().unwrap());
}

#[test]
fn a_damaged_change_ends_the_log_before_it() {
    let media = [File::default(), File::default()];
    let mut log = Log::open(media.clone(), None).unwrap();
    let mut store = log.folders().folder("r").unwrap();
    store.write("x", b"first").unwrap();
    store.write("x", b"second").unwrap();
    log.save().unwrap();
    *media[0].disk.borrow_mut().bytes.last_mut().unwrap() ^= 1;
    let found = Log::open(media, None).unwrap().folders();
    assert_eq!(found.folder("r").unwrap().read("x").unwrap(), Some(b"first".to_vec()));
}

#[test]
fn a_long_log_is_written_anew_and_either_medium_opens() {
    let media = [File::default(), File::default()];
    let mut log = Log::open(media.clone(), Some(100 << 20)).unwrap();
    let mut store = log.folders().folder("r").unwrap();
    store.write("kept", b"small").unwrap();
    let copy = |media: &[File; 2]| media.each_ref().map(|file| File::of(&file.bytes()));
    let mut before = None;
    for round in 0_u8..12 {
        store.write("x", &vec![round; 1 << 20]).unwrap();
        let old = copy(&media);
        log.save().unwrap();
        if media[0].bytes().is_empty() && before.is_none() {
            before = Some((round, old));
        }
    }
    let (round, old) = before.expect("it was written anew");
    let lengths = media.each_ref().map(|file| file.bytes().len());
    assert!(lengths[0] == 0 && lengths[1] < 12 << 20, "{lengths:?}");
    let free = store.free_bytes().unwrap();
    assert!(free.abs_diff((100 << 20) - lengths[1] as u64) < 1000, "{free} bytes free after {lengths:?}");
    // The process is killed after the new header: both media are whole.
    let newer = [File::of(&old[0].bytes()), File::of(&media[1].bytes())];
    for (media, wanted) in [(media, 11), (newer, 11), (old, round - 1)] {
        let found = Log::open(media, None).unwrap().folders().run("r").unwrap().unwrap();
        assert_eq!(found.read("x").unwrap().unwrap()[0], wanted);
        assert_eq!(found.read("kept").unwrap(), Some(b"small".to_vec()));
    }
    assert!(Log::open([File::default(), File::default()], None).unwrap().folders().run("r").unwrap().is_none());
}

/// The last change makes the log long enough to be written anew.
#[test]
fn a_power_failure_at_any_operation_loses_nothing_that_was_synced() {
    let started = [File::default(), File::default()];
    let write = |log: &mut Log<File>, bytes: &[u8]| {
        let mut store = log.folders().folder("r").unwrap();
        store.write("x", bytes).unwrap();
        store.sync("x").unwrap();
        log.save()
    };
    write(&mut Log::open(started.clone(), None).unwrap(), &vec![1; 9 << 20]).unwrap();
    let mut lost = Vec::new();
    for operations in 0.. {
        let left = Rc::new(Cell::new(None));
        let media = started.each_ref().map(|file| File { left: left.clone(), ..file.after_power_failure(false) });
        let mut log = Log::open(media.clone(), None).unwrap();
        left.set(Some(operations));
        let saved = write(&mut log, &[2]);
        for keeps_last in [false, true] {
            let found = Log::open(media.each_ref().map(|file| file.after_power_failure(keeps_last)), None).unwrap().folders();
            let found = found.folder("r").unwrap().read("x").unwrap().map(|bytes| bytes[0]);
            if !(found == Some(2) || saved.is_err() && found == Some(1)) {
                lost.push((operations, keeps_last, found));
            }
        }
        if saved.is_ok() {
            break;
        }
    }
    assert_eq!(lost, []);
}
