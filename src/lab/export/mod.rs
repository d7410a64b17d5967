//! Metrics of runs in the formats of other tools: [`csv`], TensorBoard [event files](tensorboard), and the JSON files of the trainers whose
//! studies moelab repeats ([`originals`]).
//!
//! An export only restates what a run has stored. A value that was not measured is empty or `null`, never 0; what the original schema has and
//! moelab does not measure is `null` as well, so that a reader cannot mistake it for a measurement.

pub mod csv;
pub mod originals;
pub mod tensorboard;
