//! moelab trains small Mixture-of-Experts language models with WebGPU.
//!
//! The layers. Each uses only layers above it in this list:
//! - [`random`]: counter-based random numbers, the same on host and GPU.
//! - [`config_file`]: TOML checked against a declared schema, with all problems reported at once; knows nothing about models.
//! - [`mod@choices`], [`limits`]: choices that configs name and kernels implement, and size limits.
//! - [`run`]: what a run is, as plain data: config and its rules, schedules, state, series, records, commands and events, summary.
//! - [`gpu`]: WGSL and wgpu, without any maths: device, kernels, programs, planned memory, replay, read-back.
//! - [`ops`]: the graph and one file per op, with forward, saved values and backward.
//! - [`model`]: records a model on a graph.
//! - [`data`]: corpora, tokenizers, splits, windows, shards, the embedded language.
//! - [`train`]: optimizers, the trainer, checkpoints, text generation.
//! - [`interop`]: Hugging Face models, both directions.
//! - [`lab`]: runs, the host that drives them by commands, run folders, probes, benchmarks, reports.
//!   Reading and showing runs needs no feature `engine`.
//! - `ui` (feature `ui`): the windows of the desktop app and of the page, which speak the messages of [`lab::workspace`].
//!
//! Configs can be loaded and inspected without a GPU:
//!
//! ```
//! use moelab::run::config;
//!
//! let text = "[model]\nvocabulary = 256\nwidth = 64\n[model.router]\nexperts = 4\n";
//! let read = |_: &str| Ok(text.to_string());
//! let config = config::load(&read, "mine.toml", &["data.batch=2".into()])?;
//! let parameters: u64 = config.parameters().iter().map(|parameter| parameter.len()).sum();
//! assert_eq!((config.model.router.experts, config.data.batch), (4, 2));
//! assert_eq!(parameters, 4_835_648);
//! # Ok::<(), moelab::config_file::Problems>(())
//! ```
//!
//! `examples/` shows how to use the rest of the library: train a config, record a model from ops and check its gradient, read a
//! run folder.
#![deny(unsafe_code)]

pub mod choices;
pub mod config_file;
#[cfg(feature = "engine")]
pub mod data;
#[cfg(feature = "engine")]
pub mod gpu;
#[cfg(feature = "engine")]
pub mod interop;
pub mod lab;
pub mod limits;
#[cfg(feature = "engine")]
pub mod model;
#[cfg(feature = "engine")]
pub mod ops;
pub mod random;
pub mod run;
#[cfg(feature = "engine")]
pub mod train;
#[cfg(feature = "ui")]
pub mod ui;
