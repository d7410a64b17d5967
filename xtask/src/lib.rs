//! `cargo xtask`: set-up and every step of the checks.
//!
//! - [`data`]: corpora brought from package registries.
//! - [`machine`]: what this machine has.
//! - [`setup`]: what a task needs, what is missing, and how it is had.
//! - [`steps`]: the commands that make up each task, and how they are run and counted.
//! - [`mutants`]: faults that are planted one at a time, and the tests that notice them.
//! - [`serve`] and [`browser`]: the page on this machine, and a Chromium to test it with.

pub mod browser;
pub mod data;
pub mod machine;
pub mod mutants;
mod programs;
pub mod serve;
pub mod setup;
pub mod steps;
