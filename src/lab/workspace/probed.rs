//! What a config costs on a machine.

use serde::{Deserialize, Serialize};

/// What a config costs on a machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probed {
    /// The config that was probed, as it was sent.
    pub config: String,
    /// What trains it.
    pub adapter: Adapter,
    /// Median seconds of an update, after the first one.
    pub seconds_per_update: f64,
    /// Tokens of an update.
    pub tokens_per_update: u64,
    /// Floating-point operations of an update.
    pub flop_per_update: f64,
    /// Seconds from the request to the end of the first update: opening the device, reading the data, compiling the kernels.
    pub seconds_to_open: f64,
    /// The buffers of a run.
    pub buffers: Buffers,
    /// Kernel launches of a micro-batch and of an update.
    pub dispatches: [usize; 2],
    /// The compiled update, one line for each command.
    pub listing: String,
    /// The kernels of an update, those that take longest first; empty if they were not timed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kernels: Vec<KernelTime>,
}

/// All launches of a kernel in a part of an update.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct KernelTime {
    /// `clear`, `micro` or `update`.
    pub part: String,
    /// `module.entry`, or the kind of another command.
    pub kernel: String,
    /// How often it is launched.
    pub launches: usize,
    /// Milliseconds of all launches.
    pub ms: f64,
    /// Share of the time of all kernels, 0 to 1.
    pub share: f64,
    /// Its GFLOP/s, if it is a product or attention.
    pub gflops: Option<f64>,
}

/// An adapter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Adapter {
    /// Its name; browsers may withhold it.
    pub name: String,
    /// Vulkan, Metal, Dx12, BrowserWebGpu.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// DiscreteGpu, IntegratedGpu, VirtualGpu, Cpu, Other.
    pub kind: String,
    /// The set of kernels: `portable`, `cpu` or `gpu`.
    pub kernels: String,
    /// Whether kernels may use 16-bit floats.
    pub f16: bool,
    /// Least and most lanes of a subgroup; zeros without subgroup operations.
    pub subgroup_sizes: [u32; 2],
    /// Most invocations of a workgroup.
    pub invocations: u32,
    /// Most bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Most bytes of a tensor.
    pub max_binding_bytes: u64,
}

/// Bytes of the buffers of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Buffers {
    /// Bytes by purpose: parameters, gradients, optimizer, activations, evaluation, inputs.
    pub parts: Vec<(String, u64)>,
    /// The largest tensors with their bytes, the largest first.
    pub tensors: Vec<(String, u64)>,
}

impl Buffers {
    /// All buffers.
    pub fn total(&self) -> u64 {
        self.parts.iter().map(|(_, bytes)| bytes).sum()
    }
}
