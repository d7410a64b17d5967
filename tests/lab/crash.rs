//! A whole pretended run, from its first file to its summary, that is stopped at every single operation and resumed.
//!
//! Afterwards the folder must be byte for byte that of a run that nothing befell, but for times: weights, moments, log, pointers,
//! summary, sums, and not one file more.

use super::checkpoints::load_newest;
use super::disk::{Disk, Fault};
use super::log::{current, without_time};
use super::runs::{START, lines, mix, snapshot};
use moelab::lab::memory::Memory;
use moelab::lab::run_folder::{RunFolder, Start};
use moelab::lab::store::{Store, StoreError};
use moelab::run::arrays::{ArrayKind, Layout};
use moelab::run::checkpoint::{Expected, Snapshot};
use moelab::run::records::{Event, Incident, IncidentRecord, Rewinds, SampleRecord, Time};
use moelab::run::series::RecordKind;
use std::collections::{BTreeMap, BTreeSet};

const UPDATES: u32 = 9;
const KEEP: usize = 2;

type Files = BTreeMap<String, Vec<u8>>;

fn expected() -> Expected {
    Expected::of(&snapshot(1))
}

/// Given weights, as an import has.
fn given() -> Snapshot {
    let mut given = snapshot(0);
    given.state.best = None;
    given
}

/// Trains from `first` to the end and finishes, as a session does: a save that fails is an incident, any other failure ends it.
/// `saved` is the last update whose save returned.
fn train(run: &mut RunFolder, first: u32, session: u32, saved: &mut u32) -> Result<(), StoreError> {
    for update in first..=UPDATES {
        for line in lines(update, session) {
            run.append(&line)?;
        }
        if update % 2 == 0 || update == UPDATES {
            // The parameters are two pieces.
            match run.save_in_pieces(&snapshot(update), KEEP, 512) {
                Ok(_) => *saved = update,
                Err(problem) => {
                    let time = Time { session, ..Time::default() };
                    let record =
                        IncidentRecord { update, incident: Incident::CheckpointFailed, detail: problem.to_string(), since: None, time };
                    run.append(&Event::Incident(record))?;
                }
            }
        }
    }
    for text in ["a", "b"] {
        let time = Time { session, ..Time::default() };
        run.append(&Event::Sample(SampleRecord { update: UPDATES, text: text.into(), time, ..SampleRecord::default() }))?;
    }
    let events = run.reader()?.events().collect::<Result<Vec<_>, _>>()?;
    let is_failed_save = |event: &&Event| matches!(event, Event::Incident(record) if record.incident == Incident::CheckpointFailed);
    let summary = format!("{} lines\n", events.len() - events.iter().filter(is_failed_save).count());
    run.write_all(&[
        ("loss.svg", b"<svg/>\n"),
        ("loss.png", b"\x89PNG"),
        ("report.md", b"# Report\n"),
        ("summary.json", summary.as_bytes()),
    ])
}

/// Goes on with a run, or starts it again where it had not begun, as the command line does. Returns the warnings.
fn resume_run(store: &dyn Fn() -> Box<dyn Store>, start: &Start) -> Result<Vec<String>, StoreError> {
    let mut run = match RunFolder::open(store(), "second") {
        Ok(run) => run,
        Err(StoreError::Unstarted { .. }) => {
            train(&mut RunFolder::create(store(), "second", start)?, 1, 0, &mut 0)?;
            return Ok(Vec::new());
        }
        Err(problem) => return Err(problem),
    };
    let loaded = load_newest(&run, &expected())?;
    assert!(loaded.is_some() || start.checkpoint.is_none(), "a run with given weights would continue from random ones");
    let mut warnings = loaded.as_ref().map(|loaded| loaded.warnings.clone()).unwrap_or_default();
    let update = loaded.map_or(0, |loaded| {
        let update = loaded.snapshot.state.update;
        let wanted = if update == 0 { given() } else { snapshot(update) };
        assert_eq!(loaded.snapshot, wanted, "what loads is what was saved");
        update
    });
    warnings.extend(run.rewind(update, START.config, KEEP)?);
    let session = run.sessions();
    train(&mut run, update + 1, session, &mut 0)?;
    Ok(warnings)
}

const FAILED_SAVE: &str = "checkpoint_failed";

/// The array records of the run as it stands: without those that it went back on, and those that say so.
fn current_records(files: &Files) -> Vec<u8> {
    let layout = Layout::from_json(&files["series.json"]).expect("it is as it was written");
    let records: Vec<&[u8]> = files["series.bin"].chunks(layout.record_bytes()).collect();
    let mut rewinds = Rewinds::default();
    let heads: Vec<_> = records.iter().map(|record| layout.head(record)).collect();
    for (position, head) in (0..).zip(&heads) {
        match head.map(|head| (head.kind, head.update)) {
            Some((ArrayKind::Of(RecordKind::Update), update)) => rewinds.note_update(position, update),
            Some((ArrayKind::Rewound, update)) => rewinds.note_rewound(position, update),
            _ => {}
        }
    }
    let rewinds = rewinds.finish();
    let is_history = |(position, head): &(u64, _)| match head {
        Some((ArrayKind::Rewound, _)) => true,
        Some((_, update)) => !rewinds.keeps(*position, *update),
        // What is damaged is compared, too.
        None => false,
    };
    let heads = (0..).zip(heads.iter().map(|head| head.map(|head| (head.kind, head.update))));
    records.iter().zip(heads).filter(|(_, head)| !is_history(head)).flat_map(|(record, _)| record.to_vec()).collect()
}

/// What a folder holds of the run as it stands, without times. Where a save failed, the incident is left out, and with it all checkpoints but the weights,
/// moments and state of the last: which of the others there are, and what their manifests say of the log, follows from it.
fn content(files: &Files, with_failed_save: bool) -> BTreeMap<String, String> {
    let log = current(&String::from_utf8_lossy(&files["metrics.jsonl"])).expect("every line is an event");
    let log = without_time(&log).expect("every line is JSON");
    let last = format!("checkpoints/update-{UPDATES:08}/");
    let compared = |path: &&String| {
        let is_good = path.contains("update-") && !path.contains(".tmp-") && !path.contains("removed-") && !path.contains("set-aside-");
        !with_failed_save || !(path.ends_with("best") || is_good && (!path.starts_with(&last) || path.ends_with("manifest.json")))
    };
    let text = |path: &String| match path.as_str() {
        "metrics.jsonl" => log.lines().filter(|line| !line.contains(FAILED_SAVE)).collect::<Vec<_>>().join("\n"),
        "series.bin" => format!("{:?}", current_records(files)),
        _ => files[path].iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    files.keys().filter(compared).map(|path| (path.clone(), text(path))).collect()
}

fn straight(start: &Start) -> (Files, u64) {
    let disk = Disk::new();
    let mut run = RunFolder::create(Box::new(disk.clone()), "first", start).expect("no fault is injected");
    train(&mut run, 1, 0, &mut 0).expect("no fault is injected");
    (disk.files(), disk.operations())
}

/// What differs, by path.
fn differences(found: &Files, wanted: &Files) -> Vec<String> {
    let with_failed_save = String::from_utf8_lossy(&found["metrics.jsonl"]).contains(FAILED_SAVE);
    let [found, wanted] = [found, wanted].map(|files| content(files, with_failed_save));
    let paths: BTreeSet<&String> = found.keys().chain(wanted.keys()).collect();
    paths.into_iter().filter(|path| found.get(*path) != wanted.get(*path)).cloned().collect()
}

/// One life: a fault at an operation, perhaps a power cut, and on. What went wrong, if anything.
fn life(disk: &Disk, start: &Start, (operation, fault): (u64, Fault), power_cut: Option<u64>, wanted: &Files) -> Result<(), String> {
    disk.fail_at(operation, fault);
    let mut saved = 0;
    let run = RunFolder::create(Box::new(disk.clone()), "first", start);
    let outcome = run.and_then(|mut run| train(&mut run, 1, 0, &mut saved));
    if [Fault::Crash, Fault::Torn].contains(&fault) {
        assert!(outcome.is_err(), "the fault was injected");
    }
    match power_cut {
        Some(seed) => disk.power_cut(seed),
        None => disk.restart(),
    }
    let store = || -> Box<dyn Store> { Box::new(disk.clone()) };
    if let Ok(run) = RunFolder::open(store(), "reader") {
        let found = load_newest(&run, &expected()).map_err(|problem| problem.to_string())?;
        let found = found.map_or(0, |loaded| loaded.snapshot.state.update);
        if found < saved {
            return Err(format!("checkpoint {found}, saved was {saved}"));
        }
        // A reader repairs nothing and comes to the same best.
        let best = run.load_best(&expected()).map_err(|problem| problem.to_string())?;
        let wanted = if found >= 4 { found / 4 * 4 } else { found };
        if best.as_ref().map_or(0, |loaded| loaded.snapshot.state.update) != wanted && [Fault::Crash, Fault::Torn].contains(&fault) {
            return Err(format!("the best of {found} is {best:?}, wanted {wanted}"));
        }
    }
    resume_run(&store, start).map_err(|problem| format!("cannot resume: {problem}"))?;
    let differ = differences(&disk.files(), wanted);
    if differ.is_empty() { Ok(()) } else { Err(format!("other content: {differ:?}")) }
}

#[test]
fn killed_at_any_operation_a_run_ends_as_if_nothing_had_happened() {
    let given = given();
    for start in [START, Start { checkpoint: Some(&given), ..START }] {
        let (wanted, operations) = straight(&start);
        assert!(operations > 140, "{operations} operations");
        for operation in 0..operations {
            for fault in [Fault::Crash, Fault::Torn] {
                let cuts = (0..2).map(|seed| Some(seed * 1000 + operation));
                for power_cut in cuts.chain([None]) {
                    let outcome = life(&Disk::new(), &start, (operation, fault), power_cut, &wanted);
                    assert_eq!(outcome, Ok(()), "{fault:?} at {operation}, power cut {power_cut:?}");
                }
            }
        }
    }
}

#[test]
fn an_error_at_any_operation_costs_at_most_a_checkpoint() {
    let (wanted, operations) = straight(&START);
    for operation in 0..operations {
        for fault in [Fault::Error, Fault::Short, Fault::Full] {
            let outcome = life(&Disk::new(), &START, (operation, fault), None, &wanted);
            assert_eq!(outcome, Ok(()), "{fault:?} at {operation}");
        }
    }
}

/// The simulated disk can find a protocol that forgets to sync.
#[test]
fn without_sync_the_same_test_fails() {
    let (wanted, operations) = straight(&START);
    let lost = |operation: &u64| life(&Disk::without_sync(), &START, (*operation, Fault::Crash), Some(*operation), &wanted).is_err();
    let losses = (0..operations).filter(lost).count();
    assert!(losses > 50, "{losses} of {operations}");
}

/// What repairs can be stopped as well: a kill at every operation of going on, after kills all over the first life.
#[test]
fn killed_while_going_on_it_goes_on_again() {
    let (wanted, operations) = straight(&START);
    for first in (0..operations).step_by(37) {
        for second in 0.. {
            let disk = Disk::new();
            disk.fail_at(first, Fault::Crash);
            let run = RunFolder::create(Box::new(disk.clone()), "first", &START);
            assert!(run.and_then(|mut run| train(&mut run, 1, 0, &mut 0)).is_err());
            disk.power_cut(first);
            let store = || -> Box<dyn Store> { Box::new(disk.clone()) };
            disk.fail_at(disk.operations() + second, Fault::Crash);
            let is_done = resume_run(&store, &START).is_ok();
            disk.power_cut(second);
            resume_run(&store, &START).unwrap_or_else(|problem| panic!("kill at {first}, then {second}: {problem}"));
            assert_eq!(differences(&disk.files(), &wanted), [""; 0], "kill at {first}, then {second}");
            if is_done {
                break;
            }
        }
    }
}

/// A finished run in memory that went back on an update.
fn finished() -> Memory {
    let memory = Memory::default();
    let mut run = RunFolder::create(Box::new(memory.clone()), "first", &START).expect("memory is sound");
    for update in 1..=7 {
        lines(update, 0).iter().for_each(|line| run.append(line).expect("memory is sound"));
        if update % 2 == 0 {
            run.save_checkpoint(&snapshot(update), KEEP).expect("memory is sound");
        }
    }
    assert_eq!(resume_run(&|| Box::new(memory.clone()), &START), Ok(Vec::new()));
    assert!(String::from_utf8_lossy(&files_of(&memory)["metrics.jsonl"]).contains("rewound"));
    assert_eq!(differences(&files_of(&memory), &straight(&START).0), [""; 0]);
    memory
}

fn files_of(memory: &Memory) -> Files {
    let mut files = Files::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for name in memory.list(&folder).expect("readable") {
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            match memory.read(&path).expect("readable") {
                Some(bytes) => drop(files.insert(path, bytes)),
                None => folders.push(path),
            }
        }
    }
    files
}

/// Damages a file of a finished run, resumes, and returns whether it was noticed: by a refusal, a warning, or because the folder is
/// again that of the straight run.
fn is_noticed(path: &str, bytes: &[u8], wanted: &Files) -> Result<(), String> {
    let mut memory = finished();
    memory.write(path, bytes).expect("memory is sound");
    let store = || -> Box<dyn Store> { Box::new(memory.clone()) };
    let warnings = match resume_run(&store, &START) {
        Err(problem) => {
            let told = problem.to_string();
            return if told.contains(path.rsplit('/').next().unwrap_or(path)) { Ok(()) } else { Err(format!("refused with {told}")) };
        }
        Ok(warnings) => warnings,
    };
    let mut differ = differences(&files_of(&memory), wanted);
    // What was set aside goes with the next save, which a finished run does not make; nothing says more of a lost line than the log.
    differ.retain(|path| !path.contains("set-aside"));
    if warnings.iter().any(|warning| warning.contains("update 8 is used") || warning.contains("set aside")) {
        differ.retain(|path| !path.starts_with("checkpoints/"));
    }
    if warnings.iter().any(|warning| warning.starts_with("metrics.jsonl")) {
        differ.retain(|path| !["metrics.jsonl", "summary.json", "SHA256SUMS"].contains(&path.as_str()) && !path.contains("manifest"));
    }
    if warnings.iter().any(|warning| warning.starts_with("series.bin: ")) {
        differ.retain(|path| path != "series.bin");
    }
    match (warnings.is_empty(), differ.is_empty()) {
        (_, false) => Err(format!("{differ:?} differ, told was {warnings:?}")),
        // Lines after the last checkpoint are made again, as after a crash.
        (true, true) if path != "metrics.jsonl" => Err("nothing was told".to_string()),
        _ => Ok(()),
    }
}

#[test]
fn a_changed_bit_of_any_file_is_noticed() {
    let wanted = files_of(&finished());
    let paths: Vec<&String> = wanted.keys().collect();
    assert!(paths.len() >= 18, "{paths:?}");
    for case in 0..1000 {
        let path = paths[case as usize % paths.len()];
        let mut bytes = wanted[path].clone();
        let bit = mix(case) as usize % (8 * bytes.len());
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(is_noticed(path, &bytes, &wanted), Ok(()), "bit {bit} of {path}");
    }
}

#[test]
fn a_cut_of_any_file_is_noticed() {
    let wanted = files_of(&finished());
    let paths: Vec<&String> = wanted.keys().collect();
    for case in 0..200 {
        let path = paths[case as usize % paths.len()];
        // Every file is emptied once, too.
        let bytes = &wanted[path];
        let length = if case < paths.len() as u64 { 0 } else { mix(case) as usize % bytes.len() };
        assert_eq!(is_noticed(path, &bytes[..length], &wanted), Ok(()), "{path} cut to {length} of {}", bytes.len());
    }
}
