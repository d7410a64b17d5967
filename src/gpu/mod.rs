//! WGSL and wgpu, no maths.
//!
//! A [`Program`] is plain data; [`memory::plan_memory`] maps its tensors to slots; a [`Plan`] is the compiled,
//! replayable form of both on a [`Device`], and a [`Memory`] holds what outlives a step.
//!
//! Which kernel computes a recorded call is chosen in one place: [`choose`] takes the best of the sources whose [`Requirements`] a
//! device's [`Capabilities`] satisfy and that fit. What a kernel reads in place of a tensor's buffer is a
//! [`representation`] of it, which plans keep current.

mod compilation;
mod device;
mod error;
mod kernel;
pub mod memory;
mod persistent;
mod plan;
pub mod program;
mod readback;
pub mod representation;
mod select;
mod step;
mod submission;
mod tensor;

pub use compilation::Compilation;
#[cfg(not(target_arch = "wasm32"))]
pub use device::adapters;
pub use device::{AdapterChoice, AdapterSummary, Device, InvalidAdapter};
pub use error::GpuError;
pub use kernel::{Access, BindingInfo, BindingKind, Call, KernelInfo, ModuleInfo};
pub use persistent::Memory;
pub use plan::{KernelTime, Plan, PlanOptions, Segment};
pub use program::{Command, Dispatch, Program, Role, TensorInfo};
pub use readback::Download;
pub use select::{Capabilities, Chosen, MAX_IMAGE_SIDE, MatrixShape, Requirements, choose, fits_image, flat_image};
pub use step::Step;
pub use submission::Submission;
pub use tensor::{DType, Shape, Tensor, TensorId};
