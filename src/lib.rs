//! moelab trains small Mixture-of-Experts language models with WebGPU.
//!
//! The layers, each of which may use only those above it in this list:
//! - [`random`]: counter-based random numbers, the same on host and GPU.
//! - [`config_file`]: TOML against a declared schema, every problem reported at once; knows no models.
//! - [`mod@choices`], [`limits`]: what configs may name and kernels implement, and how large it may be.
//! - [`run`]: what a run is, as plain data: config and its rules, schedules, state, records, summary.
//! - [`gpu`]: knows WGSL and wgpu, knows no maths: device, kernels, programs, planned memory, replay, read-back.
//! - [`ops`]: the graph and one file an op: forward, saved values and backward on one screen.
//! - [`model`]: the page that records a model on a graph.
//! - [`data`]: corpora, tokenizers, splits, windows, shards, the embedded language.
//! - [`train`]: optimizers, the trainer, checkpoints, generating text.
//! - [`interop`]: Hugging Face models, both directions.
//! - [`lab`]: runs and what they leave behind.
//!
//! What a run is can be asked without a GPU:
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
//! `examples/` has what a program of your own does with the rest: train a config, record a model from ops and check its gradient,
//! read a run folder.
#![forbid(unsafe_code)]

pub mod choices;
pub mod config_file;
#[cfg(feature = "engine")]
pub mod data;
#[cfg(feature = "engine")]
pub mod gpu;
#[cfg(feature = "engine")]
pub mod interop;
#[cfg(feature = "engine")]
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
