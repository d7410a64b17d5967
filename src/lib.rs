//! moelab trains small Mixture-of-Experts language models with WebGPU.
//!
//! The floors, each of which may use only those above it in this list:
//! - [`random`]: counter-based random numbers, the same on host and GPU.
//! - [`config_file`]: TOML against a declared schema, every problem reported at once; knows no models.
//! - [`gpu`]: knows WGSL and wgpu, knows no maths: device, tiers, kernels, programs, planned memory, replay, read-back.
//! - [`ops`]: the graph and one file an op: forward, saved values and backward on one screen.
//! - [`model`]: a model as data, its parameter tree, and the page that records it on a graph.
//! - [`train`]: data, schedules, optimizers, the trainer, checkpoints.
//! - [`lab`]: runs and what they leave behind.
#![forbid(unsafe_code)]

pub mod config_file;
pub mod gpu;
pub mod lab;
pub mod model;
pub mod ops;
pub mod random;
pub mod train;
