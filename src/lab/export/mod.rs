//! Metrics of runs in the formats of other tools: [`csv`], TensorBoard [event files](tensorboard), and the JSON files of the trainers whose
//! studies moelab repeats ([`originals`]).
//!
//! An export only restates what a run has stored. A value that was not measured is empty or `null`, never 0; what the original schema has and
//! moelab does not measure is `null` as well, so that a reader cannot mistake it for a measurement.

pub mod csv;
pub mod originals;
pub mod tensorboard;

use serde::Serialize;

/// The name of a choice as the files have it.
pub(in crate::lab) fn name_of(choice: &impl Serialize) -> String {
    serde_json::to_value(choice).ok().and_then(|name| name.as_str().map(str::to_string)).unwrap_or_default()
}
