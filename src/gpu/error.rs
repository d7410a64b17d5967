//! GPU errors: each has what is wrong, expected, found, and how to fix it. Nothing panics in a step.

use thiserror::Error;

/// A failure of the adapter, the device or a plan.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GpuError {
    /// No adapter matches the choice.
    #[error(
        "no GPU adapter fits `{wanted}`; found: {found}. Install a Vulkan, Metal or DX12 driver (on Linux without a GPU: mesa-vulkan-drivers), or choose one of those listed with --adapter"
    )]
    NoAdapter {
        /// The choice as the user wrote it.
        wanted: String,
        /// The available adapters.
        found: String,
    },
    /// The adapter does not meet a requirement.
    #[error("{what}: expected {wanted}, the adapter `{adapter}` supports {found}. {remedy}")]
    Limit {
        /// The limit, and the tensor or kernel.
        what: String,
        /// The required value.
        wanted: u64,
        /// The value of the adapter.
        found: u64,
        /// The adapter's name.
        adapter: String,
        /// What the user can change.
        remedy: String,
    },
    /// The adapter has no cooperative matrices that a kernel is written for, or they fail the self-test.
    #[error(
        "`train.precision` is not \"f32\": expected an adapter with cooperative matrices of 16x16x16 or 8x8x8 f16 elements (tensor cores, over Vulkan); those of the adapter `{adapter}` {reason}. Set it to \"f32\", or choose another adapter with --adapter"
    )]
    NoMatrices {
        /// The adapter's name.
        adapter: String,
        /// What is wrong, about its matrices.
        reason: String,
    },
    /// A table of kernels names one that there is not.
    #[error(
        "`kernels.without`: expected modules of kernels that others can replace, as `moelab tune` writes them; found `{name}`. Remove it, or measure again"
    )]
    UnknownKernels {
        /// The name.
        name: String,
    },
    /// The device could not be opened.
    #[error("the adapter `{adapter}` refused a device: {reason}. Update its driver or choose another with --adapter")]
    Refused {
        /// The adapter's name.
        adapter: String,
        /// The driver's message.
        reason: String,
    },
    /// The device is gone.
    #[error("the device{} was lost: {reason}", named(.adapter))]
    Lost {
        /// The adapter's name.
        adapter: String,
        /// The driver's message.
        reason: String,
    },
    /// The driver refused an operation.
    #[error("the device{} reports: {message}", named(.adapter))]
    Fault {
        /// The adapter's name.
        adapter: String,
        /// The driver's message.
        message: String,
    },
    /// A submission did not finish in time, which is treated as a lost device.
    #[error("the device{} did not finish within {seconds} s. Use a smaller batch, or choose another adapter with --adapter", named(.adapter))]
    Timeout {
        /// The adapter's name.
        adapter: String,
        /// The time limit.
        seconds: u64,
    },
}

/// The name of an adapter in a sentence; browsers do not tell it.
fn named(adapter: &str) -> String {
    if adapter.is_empty() { String::new() } else { format!(" `{adapter}`") }
}

impl GpuError {
    /// Whether a new device may succeed where this one failed.
    pub fn is_lost(&self) -> bool {
        matches!(self, GpuError::Lost { .. } | GpuError::Timeout { .. })
    }
}
