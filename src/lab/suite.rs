//! Runs a study: a state machine over sessions. Events of sessions in, commands to sessions and events of the study out.
//!
//! A [`Coordinator`] knows the plan and what has become of each run. It hands runs to *slots*, each of which drives one session at a
//! time: natively a thread for each adapter, in the browser the worker's host. A slot is known by its number alone, so the same
//! coordinator serves both, and a test without a device.
//!
//! **What is kept.** The study's folder has `suite.toml`, `plan.jsonl` (one line a run), `decisions.jsonl` (one line a decision of
//! a gate) and a folder for each run. Every decision is in a file before it is acted upon, and everything else follows from the
//! folders of the runs: a study that was killed at any moment is opened again and goes on with the runs that it lacks. Nothing is run twice.
//!
//! | a run's folder | what becomes of the run |
//! |---|---|
//! | does not exist, or was never started | is started |
//! | no summary, or one that says interrupted, device lost or not saved | is resumed |
//! | completed, stopped early, or stopped by a gate | is done |
//! | diverged | is done; it counts as missing, and is shown |
//! | failed | is skipped and shown; `--retry-failed` tries again. `failed-RUN.txt` beside the folder says why, for there may be none |
//!
//! **Stages.** All runs of a study reach the end of a stage before a gate decides which arms continue. The decision is made for arms,
//! from all their seeds, never for single runs, so that gates do not choose which seeds enter a comparison.

pub mod audit;
mod command;
mod coordinator;
mod folder;
mod gating;
mod outcome;
mod pace;
pub mod table;

pub use audit::Judged;
pub use command::SuiteCommand;
pub use coordinator::{Coordinator, Options, Order, SuiteEvent};
pub use folder::{
    DECISIONS, PLAN, RunStatus, SUITE, SuiteError, SuiteFolder, SuiteStore, decisions, failure_file, is_started, planned, stored, target,
};
pub use outcome::Outcome;
pub use pace::{Pace, Progress};
