//! Runs in memory.

use moelab::lab::memory::Memory;
use moelab::lab::run_folder::{RunFolder, Start};
use moelab::run::records::Event;

/// A run in memory with these events in its log.
pub fn folder_with(start: &Start, events: &[Event]) -> RunFolder {
    folder_in(&Memory::default(), start, events)
}

/// The same in a memory that the caller can read too.
pub fn folder_in(memory: &Memory, start: &Start, events: &[Event]) -> RunFolder {
    let mut folder = RunFolder::create(Box::new(memory.clone()), "first", start).expect("the folder is empty");
    events.iter().for_each(|event| folder.append(event).expect("memory is sound"));
    folder
}

/// The events of a run as it stands.
pub fn events(folder: &RunFolder) -> Vec<Event> {
    let reader = folder.reader().expect("memory is sound");
    reader.events().collect::<Result<_, _>>().expect("memory is sound")
}
