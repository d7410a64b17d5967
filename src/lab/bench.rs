//! Benchmarks that check before they time: single kernels ([`kernels`]), a whole update ([`step`]), how the cost of an update grows with
//! each size of a model ([`ladder`]), and which choice of kernels makes it shorter ([`tune`]).
//!
//! The caller provides the clock, a function that returns seconds.

pub mod kernels;
pub mod ladder;
pub mod step;
pub mod tune;

mod ceilings;

pub use ceilings::Ceilings;

use crate::{
    gpu::{Capabilities, Device, GpuError},
    ops::kernels::MODULES,
};

/// Why a benchmark failed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BenchError {
    /// The adapter, the device or a plan.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// A wrong result, for which a time would be meaningless.
    #[error(
        "{kernel} {shape} ({tier} kernels): {problem}. It was not timed: the driver or the kernel is wrong, `cargo xtask test` shows which op"
    )]
    Wrong {
        /// The kernel.
        kernel: String,
        /// Its sizes.
        shape: String,
        /// The set of capabilities.
        tier: String,
        /// What was expected and found.
        problem: String,
    },
}

/// The named sets of capabilities to time: the adapter's own, then every set that selects other kernels, those with f16 operands last.
pub fn capability_sets(device: &Device) -> Vec<(String, Capabilities)> {
    let mut sets = device.capabilities.sets(MODULES);
    if let Some(rounded) = device.with_matrices(MODULES) {
        sets.push(("f16".into(), rounded));
        sets.push(("split".into(), Capabilities { splits_operands: true, ..rounded }));
    }
    sets
}

/// The median.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// |a - b| / |b| over all elements; infinite if one of `a` is not finite.
fn relative_error(a: &[f64], b: &[f64]) -> f64 {
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let error = norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied()).max(f64::MIN_POSITIVE);
    if error.is_finite() && a.len() == b.len() { error } else { f64::INFINITY }
}

/// Values as f64, for checks on the host.
fn floats(bytes: &[u8]) -> Vec<f64> {
    bytemuck::pod_collect_to_vec::<u8, f32>(bytes).into_iter().map(f64::from).collect()
}
