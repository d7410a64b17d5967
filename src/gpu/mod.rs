//! WGSL and wgpu, no maths.
//!
//! A [`Program`] is plain data; [`memory::plan_memory`] maps its tensors to slots; a [`Plan`] is the compiled,
//! replayable form of both on a [`Device`], and a [`Memory`] has the tensors that outlive a step.
//!
//! The kernel of a recorded call is chosen in one place: [`choose`] picks the best of the sources that fit and whose
//! [`Requirements`] a device's [`Capabilities`] satisfy. A kernel may read a [`representation`] of a tensor instead of its buffer;
//! plans keep it current.

mod compilation;
mod device;
mod error;
mod kernel;
mod lock;
pub mod memory;
mod persistent;
mod pipelines;
mod plan;
pub mod program;
mod readback;
pub mod representation;
mod select;
#[cfg(not(target_arch = "wasm32"))]
mod spirv;
#[cfg(target_arch = "wasm32")]
#[path = "no_spirv.rs"]
mod spirv;
mod step;
mod storage_images;
mod submission;
mod tensor;
mod unchecked;

pub use compilation::Compilation;
#[cfg(not(target_arch = "wasm32"))]
pub use device::adapters;
pub use device::{AdapterChoice, AdapterSummary, Device, InvalidAdapter};
pub use error::GpuError;
pub use kernel::{Access, BindingInfo, BindingKind, Call, ImageRow, KernelInfo, ModuleInfo};
pub use persistent::Memory;
pub use plan::{KernelTime, Plan, PlanOptions, Segment};
pub use program::{Command, Dispatch, Program, Role, TensorInfo};
pub use readback::Download;
pub use select::{Capabilities, Chosen, MAX_IMAGE_SIDE, MatrixShape, Modules, Requirements, choose, fits_image, flat_image, fold_of};
#[cfg(not(target_arch = "wasm32"))]
pub use spirv::{Spirv, spirv};
pub use step::Step;
pub use storage_images::with_storage_images;
pub use submission::Submission;
pub use tensor::{DType, Shape, Tensor, TensorId};
