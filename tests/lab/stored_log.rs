//! The log behind a study's files: what is stored is always a prefix of the changes.

use std::{cell::RefCell, rc::Rc};

use moelab::{
    lab::{
        store::Store,
        stored_log::{Folders, Log, Medium},
        suite::SuiteStore,
    },
    random::philox4x32,
};

/// A medium in memory. Clones share it, so that it can be opened again, and cut as a crash does.
#[derive(Clone, Default)]
pub struct File(pub Rc<RefCell<Vec<u8>>>);

impl Medium for File {
    fn read(&self) -> Result<Vec<u8>, String> {
        Ok(self.0.borrow().clone())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), String> {
        let mut file = self.0.borrow_mut();
        let (start, end) = (at as usize, at as usize + bytes.len());
        let length = file.len().max(end);
        file.resize(length, 0);
        file[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn truncate(&mut self, length: u64) -> Result<(), String> {
        self.0.borrow_mut().truncate(length as usize);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), String> {
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
    let whole = media[0].0.borrow().clone();
    let mut reached = 0;
    for length in 0..=whole.len() {
        let cut = [File(Rc::new(RefCell::new(whole[..length].to_vec()))), File::default()];
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
    *media[0].0.borrow_mut().last_mut().unwrap() ^= 1;
    let found = Log::open(media, None).unwrap().folders();
    assert_eq!(found.folder("r").unwrap().read("x").unwrap(), Some(b"first".to_vec()));
}

#[test]
fn a_long_log_is_written_anew_and_either_medium_opens() {
    let media = [File::default(), File::default()];
    let mut log = Log::open(media.clone(), Some(100 << 20)).unwrap();
    let mut store = log.folders().folder("r").unwrap();
    store.write("kept", b"small").unwrap();
    let copy = |media: &[File; 2]| media.each_ref().map(|file| File(Rc::new(RefCell::new(file.0.borrow().clone()))));
    let mut before = None;
    for round in 0_u8..12 {
        store.write("x", &vec![round; 1 << 20]).unwrap();
        let old = copy(&media);
        log.save().unwrap();
        if media[0].0.borrow().is_empty() && before.is_none() {
            before = Some((round, old));
        }
    }
    let (round, old) = before.expect("it was written anew");
    let lengths = media.each_ref().map(|file| file.0.borrow().len());
    assert!(lengths[0] == 0 && lengths[1] < 12 << 20, "{lengths:?}");
    let free = store.free_bytes().unwrap();
    assert!(free.abs_diff((100 << 20) - lengths[1] as u64) < 1000, "{free} bytes free after {lengths:?}");
    // The process is killed after the new header: both media are whole.
    let newer = copy(&media);
    *newer[0].0.borrow_mut() = old[0].0.borrow().clone();
    for (media, wanted) in [(media, 11), (newer, 11), (old, round - 1)] {
        let found = Log::open(media, None).unwrap().folders().run("r").unwrap().unwrap();
        assert_eq!(found.read("x").unwrap().unwrap()[0], wanted);
        assert_eq!(found.read("kept").unwrap(), Some(b"small".to_vec()));
    }
    assert!(Log::open([File::default(), File::default()], None).unwrap().folders().run("r").unwrap().is_none());
}
