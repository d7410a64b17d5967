//! The run folder keeps its promises on a disk that fails at every single operation.

use super::checkpoints::load_newest;
use super::disk::{Disk, Fault};
use super::folders::events;
use super::log::{self, current, without_time};
use super::runs::{START, lines, snapshot};
use moelab::lab::memory::Memory;
use moelab::lab::reader::AuditLine;
use moelab::lab::run_folder::RunFolder;
use moelab::lab::store::{Store, StoreError, check_name, check_path};
use moelab::run::checkpoint::Expected;
use moelab::run::records::{self, Event, SampleRecord, Time};
use moelab::run::series::Series;
use std::cell::{Cell, RefCell};

const UPDATES: u32 = 9;
const KEEP: usize = 2;

fn expected() -> Expected {
    Expected::of(&snapshot(1))
}

fn metrics_of(store: &dyn Store) -> String {
    String::from_utf8(store.read("metrics.jsonl").expect("readable").expect("present")).expect("UTF-8")
}

/// Trains from `first` to the end, saving after every second update. Returns the last update whose save returned.
fn train(run: &mut RunFolder, first: u32, session: u32, saved: &mut u32) -> Result<(), StoreError> {
    for update in first..=UPDATES {
        for line in lines(update, session) {
            run.append(&line)?;
        }
        if update % 2 == 0 || update == UPDATES {
            run.save_checkpoint(&snapshot(update), KEEP)?;
            *saved = update;
        }
    }
    Ok(())
}

fn straight(store: Box<dyn Store>) -> Result<(), StoreError> {
    train(&mut RunFolder::create(store, "first", &START)?, 1, 0, &mut 0)
}

fn good_lines() -> String {
    let memory = Memory::default();
    straight(Box::new(memory.clone())).expect("memory is sound");
    without_time(&metrics_of(&memory)).expect("every line is JSON")
}

/// One operation fails, the process lives: the save reports it, a good checkpoint remains, and the next save works.
#[test]
fn an_error_at_any_operation_leaves_a_good_checkpoint() {
    for fault in [Fault::Error, Fault::Short] {
        for operation in 0..40 {
            let disk = Disk::new();
            let mut run = RunFolder::create(Box::new(disk.clone()), "first", &START).expect("no fault yet");
            run.save_checkpoint(&snapshot(1), 1).expect("no fault yet");
            disk.fail_at(disk.operations() + operation, fault);
            let outcome = run.save_checkpoint(&snapshot(2), 1);
            let loaded = load_newest(&run, &expected()).expect("one is good").expect("one was saved").snapshot;
            let update = loaded.state.update;
            assert_eq!(loaded, snapshot(update), "{fault:?} at {operation}");
            assert!(outcome.is_err() || update == 2, "{fault:?} at {operation}: the save was said to work");
            disk.fail_at(u64::MAX, fault);
            run.save_checkpoint(&snapshot(3), 1).expect("the fault is over");
            let names = disk.list("checkpoints").expect("readable");
            assert_eq!(names, ["latest", "update-00000003"], "{fault:?} at {operation}: rests are cleaned up");
        }
    }
}

#[test]
fn a_line_that_was_not_written_can_be_written_again() {
    let disk = Disk::new();
    let mut run = RunFolder::create(Box::new(disk.clone()), "first", &START).expect("the folder is empty");
    disk.fail_at(disk.operations(), Fault::Error);
    let line = &lines(1, 0)[0];
    assert!(run.append(line).is_err());
    run.append(line).expect("the fault is over");
    assert_eq!(events(&run).len(), 2);
}

#[test]
fn a_full_disk_fails_the_save_alone() {
    let disk = Disk::new();
    let mut run = RunFolder::create(Box::new(disk.clone()), "first", &START).expect("the folder is empty");
    run.save_checkpoint(&snapshot(1), 2).expect("there is room");
    disk.set_free(1000);
    let problem = run.save_checkpoint(&snapshot(2), 2).expect_err("there is no room").to_string();
    assert!(problem.contains("1000 are available"), "{problem}");
    assert_eq!(load_newest(&run, &expected()).expect("readable").expect("saved").snapshot, snapshot(1));
}

#[test]
fn the_last_k_and_the_best_are_kept() {
    let memory = Memory::default();
    let mut run = RunFolder::create(Box::new(memory.clone()), "first", &START).expect("the folder is empty");
    for update in 1..=7 {
        run.save_checkpoint(&snapshot(update), KEEP).expect("memory is sound");
    }
    let names = memory.list("checkpoints").expect("readable");
    assert_eq!(names, ["best", "latest", "update-00000004", "update-00000006", "update-00000007"]);
    assert_eq!(run.read("checkpoints/latest").expect("readable").as_deref(), Some(&b"update-00000007"[..]));
    assert_eq!(run.load_best(&expected()).expect("readable").expect("saved").snapshot, snapshot(4));
    run.save_checkpoint(&snapshot(8), 0).expect("memory is sound");
    assert_eq!(memory.list("checkpoints").expect("readable"), ["best", "latest", "update-00000008"]);
}

/// A resume that fell back writes the damaged update again; with K = 1 no moment is without a good checkpoint.
#[test]
fn a_checkpoint_of_the_same_update_is_replaced() {
    let mut memory = Memory::default();
    let mut run = RunFolder::create(Box::new(memory.clone()), "first", &START).expect("the folder is empty");
    let folder = run.save_checkpoint(&snapshot(2), 1).expect("memory is sound");
    memory.write(&format!("{folder}/state.json"), b"{}").expect("memory is sound");
    let problem = load_newest(&run, &expected()).expect_err("the only one is damaged").to_string();
    assert!(problem.contains("update-00000002: `state.json` has 2 bytes"), "{problem}");
    run.save_checkpoint(&snapshot(2), 1).expect("memory is sound");
    assert_eq!(load_newest(&run, &expected()).expect("readable").expect("saved").snapshot, snapshot(2));
    assert_eq!(memory.list("checkpoints").expect("readable"), ["latest", "update-00000002"]);
}

/// The same for a power cut at every operation, where a good one is replaced by another good one of the same update.
#[test]
fn a_power_cut_while_replacing_leaves_one_of_the_two() {
    let mut other = snapshot(2);
    other.tensors[0].data[0] = 7.0;
    let save = |disk: &Disk, fault: Option<u64>| {
        let mut run = RunFolder::create(Box::new(disk.clone()), "first", &START).expect("no fault yet");
        run.save_checkpoint(&snapshot(2), 1).expect("no fault yet");
        let before = disk.operations();
        fault.into_iter().for_each(|operation| disk.fail_at(before + operation, Fault::Crash));
        (run.save_checkpoint(&other, 1).is_ok(), disk.operations() - before)
    };
    let (_, operations) = save(&Disk::new(), None);
    for operation in 0..=operations {
        for seed in 0..50 {
            let disk = Disk::new();
            let (saved, _) = save(&disk, Some(operation));
            disk.power_cut(1000 * seed + operation);
            let run = RunFolder::open(Box::new(disk), "second").expect("it was saved once");
            let loaded = load_newest(&run, &expected()).expect("one is good").expect("one was saved").snapshot;
            assert!(loaded == other || !saved && loaded == snapshot(2), "power cut at {operation}");
        }
    }
}

/// A reader's store, under which the writer saves, and prunes what the reader is about to read, before one of its reads.
struct Racing {
    memory: Memory,
    reads: Cell<u32>,
    writer: RefCell<(RunFolder, u32)>,
}

impl Store for Racing {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let left = self.reads.get();
        self.reads.set(left.wrapping_sub(1));
        if left == 0 {
            let (writer, update) = &mut *self.writer.borrow_mut();
            *update += 1;
            writer.save_checkpoint(&snapshot(*update), 1)?;
        }
        self.memory.read(path)
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        self.memory.list(folder)
    }

    fn write(&mut self, _: &str, _: &[u8]) -> Result<(), StoreError> {
        unreachable!("a reader writes nothing")
    }

    fn append(&mut self, _: &str, _: &[u8]) -> Result<(), StoreError> {
        unreachable!("a reader writes nothing")
    }

    fn sync(&mut self, _: &str) -> Result<(), StoreError> {
        unreachable!("a reader writes nothing")
    }

    fn rename(&mut self, _: &str, _: &str) -> Result<(), StoreError> {
        unreachable!("a reader writes nothing")
    }

    fn remove(&mut self, _: &str) -> Result<(), StoreError> {
        unreachable!("a reader writes nothing")
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

#[test]
fn a_reader_finds_a_checkpoint_while_the_writer_prunes() {
    for before in 0..40 {
        let memory = Memory::default();
        let mut writer = RunFolder::create(Box::new(memory.clone()), "first", &START).expect("the folder is empty");
        // One that is not the best, so that the next save prunes it.
        writer.save_checkpoint(&snapshot(5), 1).expect("memory is sound");
        let racing = Racing { memory, reads: Cell::new(before), writer: RefCell::new((writer, 5)) };
        let reader = RunFolder::open(Box::new(racing), "reader").expect("it is a run");
        for found in [load_newest(&reader, &expected()), reader.load_best(&expected())] {
            let loaded = found.unwrap_or_else(|problem| panic!("pruned before read {before}: {problem}")).expect("one is there");
            assert!(loaded.warnings.iter().all(|warning| warning.contains("the best evaluation")), "pruned before read {before}");
        }
    }
}

#[test]
fn a_renamed_folder_is_not_believed() {
    let mut memory = Memory::default();
    let mut run = RunFolder::create(Box::new(memory.clone()), "first", &START).expect("the folder is empty");
    let folder = run.save_checkpoint(&snapshot(2), 1).expect("memory is sound");
    memory.rename(&folder, "checkpoints/update-00000009").expect("memory is sound");
    let problem = load_newest(&run, &expected()).expect_err("it is the only one").to_string();
    assert!(problem.contains("it holds update 2: the folder was renamed"), "{problem}");
}

#[test]
fn rewinding_makes_later_lines_history_and_sets_later_checkpoints_aside() {
    let mut memory = Memory::default();
    let mut run = RunFolder::create(Box::new(memory.clone()), "first", &START).expect("the folder is empty");
    train(&mut run, 1, 0, &mut 0).expect("memory is sound");
    let before = metrics_of(&memory);
    memory.append("metrics.jsonl", br#"{"kind":"update","upd"#).expect("memory is sound");
    assert_eq!(run.rewind(8, "cafe", 2).expect("readable"), [""; 0], "a torn last line needs no warning");
    // Nothing that was whole is taken out; one line says that the last is history.
    let rewound = metrics_of(&memory);
    let added = rewound.strip_prefix(&before).expect("the log is only added to");
    assert!(added.starts_with(r#"{"kind":"rewound","to":8,"from":9,"lines":1,"check":""#) && added.lines().count() == 1, "{added}");
    let found = log::read(&current(&rewound).expect("every line is whole")).expect("every line is whole");
    assert_eq!(found, events(&run));
    assert_eq!(found.last().and_then(records::Event::update), Some(8));
    assert_eq!(found.len(), 1 + 8 + 4);
    assert!(memory.list("checkpoints").expect("readable").contains(&"set-aside-update-00000009".to_string()));
    assert_eq!(run.read("checkpoints/latest").expect("readable").as_deref(), Some(&b"update-00000008"[..]));
    assert!(matches!(run.append(&lines(8, 1)[0]), Err(StoreError::Doubled { kind: "update", update: 8 })));
    assert!(matches!(run.append(&lines(8, 1)[1]), Err(StoreError::Doubled { kind: "eval", update: 8 })));
    train(&mut run, 9, 1, &mut 0).expect("memory is sound");
    assert_eq!(without_time(&current(&metrics_of(&memory)).expect("JSON")).expect("JSON"), good_lines());
    // An audit sees both passes of update 9.
    let reader = run.reader().expect("memory is sound");
    let audit: Vec<AuditLine> = reader.audit().collect::<Result<_, _>>().expect("memory is sound");
    let ninth = audit.iter().filter(|line| matches!(&line.event, Ok(Event::Update(record)) if record.update == 9));
    assert_eq!(ninth.map(|line| line.is_rewound).collect::<Vec<_>>(), [true, false]);
    assert_eq!(audit.iter().filter(|line| matches!(line.event, Ok(Event::Rewound(_)))).count(), 1);
    // Its arrays are those of the second.
    let load = Series::find("expert_load").expect("a series");
    let block = reader.read(load, 9..=9, 1).expect("memory is sound");
    assert_eq!((block.shape, block.buckets[0].count), (vec![1, 2], 1));
}

/// The same where the update of the checkpoint has no line of its own, and where the line that says so is damaged.
#[test]
fn a_run_may_go_back_over_and_over() {
    let mut memory = Memory::default();
    let mut run = RunFolder::create(Box::new(memory.clone()), "first", &START).expect("the folder is empty");
    let append = |run: &mut RunFolder, updates: &[u32]| {
        updates.iter().flat_map(|update| lines(*update, 0)).for_each(|line| run.append(&line).expect("memory is sound"));
    };
    append(&mut run, &[1, 3, 5]);
    run.save_checkpoint(&snapshot(5), KEEP).expect("memory is sound");
    append(&mut run, &[7, 9]);
    for _ in 0..2 {
        run.rewind(5, "cafe", KEEP).expect("readable");
        append(&mut run, &[7, 9]);
    }
    run.rewind(5, "cafe", KEEP).expect("readable");
    let of = |run: &RunFolder| events(run).iter().filter_map(Event::update).collect::<Vec<_>>();
    assert_eq!(of(&run), [1, 3, 5]);
    append(&mut run, &[7]);
    let text = metrics_of(&memory);
    assert_eq!(text.matches("rewound").count(), 3);
    for damaged in text.match_indices("rewound").map(|(at, _)| at) {
        let mut bytes = text.clone().into_bytes();
        bytes[damaged] = b'R';
        memory.write("metrics.jsonl", &bytes).expect("memory is sound");
        assert_eq!(of(&run), [1, 3, 5, 7], "a second line of an update goes back by itself");
        let warnings = run.rewind(5, "cafe", KEEP).expect("the mark of the checkpoint fits what is left");
        assert!(warnings.len() == 1 && warnings[0].contains("dropped"), "{warnings:?}");
        assert_eq!(of(&run), [1, 3, 5]);
    }
}

/// Samples come after the last checkpoint, so a finished run that is resumed draws them again.
#[test]
fn a_sample_that_is_there_is_not_added_again() {
    let memory = Memory::default();
    let mut run = RunFolder::create(Box::new(memory.clone()), "first", &START).expect("the folder is empty");
    train(&mut run, 1, 0, &mut 0).expect("memory is sound");
    let sample = |text: &str, session| {
        let time = Time { session, ..Time::default() };
        Event::Sample(SampleRecord { update: UPDATES, text: text.into(), time, ..SampleRecord::default() })
    };
    run.append(&sample("a", 0)).expect("memory is sound");
    run.append(&sample("b", 0)).expect("memory is sound");
    let before = metrics_of(&memory);
    for _ in 0..2 {
        run.rewind(UPDATES, "cafe", 2).expect("readable");
        run.append(&sample("a", 1)).expect("memory is sound");
        run.append(&sample("b", 1)).expect("memory is sound");
    }
    assert_eq!(metrics_of(&memory), before);
    run.append(&sample("c", 1)).expect("memory is sound");
    assert_ne!(metrics_of(&memory), before);
}

#[test]
fn an_unreadable_line_is_dropped_with_a_warning() {
    let mut memory = Memory::default();
    let mut run = RunFolder::create(Box::new(memory.clone()), "first", &START).expect("the folder is empty");
    run.append(&lines(1, 0)[0]).expect("memory is sound");
    memory.append("metrics.jsonl", b"rubbish\n").expect("memory is sound");
    run.append(&lines(2, 0)[0]).expect("memory is sound");
    assert_eq!(events(&run).len(), 3, "line 3 is rubbish");
    let warnings = run.rewind(2, "cafe", 2).expect("readable");
    assert!(warnings.len() == 1 && warnings[0].starts_with("metrics.jsonl:3: dropped"), "{warnings:?}");
    assert_eq!(events(&run).len(), 4);
}

/// Times are in no checkpoint's mark: only a line's own check can tell that one was changed.
#[test]
fn a_line_whose_time_was_changed_is_dropped() {
    let mut memory = Memory::default();
    let mut run = RunFolder::create(Box::new(memory.clone()), "first", &START).expect("the folder is empty");
    run.append(&lines(1, 0)[0]).expect("memory is sound");
    let whole = metrics_of(&memory);
    let changed = whole.replace("\"seconds\":1.0", "\"seconds\":3.0");
    assert_ne!(changed, whole);
    memory.write("metrics.jsonl", changed.as_bytes()).expect("memory is sound");
    assert_eq!(events(&run).len(), 1, "the header is left");
}

#[test]
fn a_run_is_not_started_twice_nor_resumed_from_nothing() {
    let memory = Memory::default();
    straight(Box::new(memory.clone())).expect("memory is sound");
    assert!(matches!(RunFolder::create(Box::new(memory), "x", &START), Err(StoreError::Occupied { .. })));
    assert!(RunFolder::open(Box::new(Memory::default()), "x").is_err());
}

#[test]
fn time_alone_may_differ_between_equal_runs() {
    let text = |session| lines(2, session).iter().map(records::Event::to_line).collect::<String>();
    assert_ne!(text(0), text(1));
    assert_eq!(without_time(&text(0)), without_time(&text(1)));
    assert_ne!(without_time(&text(0)), without_time(&lines(3, 0)[0].to_line()));
    let again = log::read(&text(0)).expect("JSON");
    assert_eq!(again, lines(2, 0), "records return to the bit");
}

#[test]
fn names_stay_inside() {
    for name in ["run", "a", "loss.svg", "update-00000001.tmp-77", "COM10", "console", &"x".repeat(100)] {
        assert_eq!(check_name(name), Ok(()), "{name}");
    }
    let long = "x".repeat(101);
    for name in ["", ".", "..", ".git", "a.", "a b", "ä", "a/b", "a\\b", "c:", "a\0", "CON", "nul.txt", "Com1", "lpt9.x", &long] {
        assert!(check_name(name).is_err(), "{name:?}");
    }
    for path in ["../x", "/etc", "a//b", "a/../b", "a/"] {
        assert!(check_path(path).is_err(), "{path:?}");
        assert!(Memory::default().write(path, b"").is_err(), "{path:?}");
    }
}
