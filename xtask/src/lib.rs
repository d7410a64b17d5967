//! `cargo xtask`: set-up and every step of the checks.
//!
//! - [`data`]: corpora downloaded from package registries.
//! - [`machine`]: the programs and drivers of this machine.
//! - [`setup`]: what a task needs, what is missing, and how to install it.
//! - [`steps`]: the commands that make up each task, and running and counting them.
//! - [`python`]: packages for the tests that read moelab's files with other tools.
//! - [`mutants`]: faults planted one at a time, and the tests that catch them.
//! - [`rustdoc`]: the documentation, from what the tests have compiled.
//! - [`serve`] and [`browser`]: a local server for the page, and a Chromium to test it with.

pub mod browser;
pub mod data;
pub mod machine;
pub mod mutants;
mod programs;
pub mod python;
pub mod rustdoc;
pub mod serve;
pub mod setup;
pub mod steps;
