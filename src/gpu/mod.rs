//! Floor 1: WGSL and wgpu, no maths.
//!
//! A [`Program`] is plain data; [`memory::plan_memory`] maps its tensors to slots; a [`Plan`] is the compiled,
//! replayable form of both on a [`Device`], and a [`Memory`] holds what outlives a step.

mod device;
mod error;
pub mod image;
mod kernel;
pub mod memory;
mod plan;
pub mod program;
mod readback;
mod step;
mod tensor;
mod tier;

#[cfg(not(target_arch = "wasm32"))]
pub use device::adapters;
pub use device::{AdapterChoice, AdapterSummary, Device};
pub use error::GpuError;
pub use kernel::{Access, BindingInfo, BindingKind, Call, KernelInfo, ModuleInfo, SHARED_LANES};
pub use plan::{KernelTime, Memory, Plan, PlanOptions, Segment};
pub use program::{Command, Dispatch, Program, Role, TensorInfo};
pub use readback::Download;
pub use step::Step;
pub use tensor::{DType, Shape, Tensor, TensorId};
pub use tier::Tier;
