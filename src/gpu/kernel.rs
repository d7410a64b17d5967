//! What the build script tells about a kernel: its module, entry point and bindings, with the access that naga saw.

use super::{DType, Requirements, Tensor};

/// One WGSL module, as the driver gets it.
#[derive(Debug)]
pub struct ModuleInfo {
    /// The file's name without `.wgsl`, dots as underscores, and the library variant that it was made with.
    pub name: &'static str,
    /// WGSL with imports resolved and marked loops unrolled.
    pub source: &'static str,
    /// What it requires of an adapter.
    pub requires: Requirements,
}

/// What an entry point does to a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Only written.
    Write,
    /// Read and written.
    ReadWrite,
}

impl Access {
    /// Whether it reads.
    pub fn reads(self) -> bool {
        self != Access::Write
    }

    /// Whether it writes.
    pub fn writes(self) -> bool {
        self != Access::Read
    }
}

/// How a tensor reaches a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingKind {
    /// The tensor's buffer.
    Storage {
        /// Declared `read` in WGSL.
        read_only: bool,
    },
    /// The tensor's texture image: `rgba32float`, a texel holds four consecutive elements of a row.
    Texels {
        /// Rows of the image are a power of two long, whatever the tensor's are.
        flat: bool,
    },
}

/// One tensor binding of an entry point, in group 0.
#[derive(Debug)]
pub struct BindingInfo {
    /// The variable's name in WGSL: that of the tensor, or of a tensor that is bound as a buffer, too, and `_texels`.
    pub name: &'static str,
    /// Which of the call's tensors it is.
    pub field: usize,
    /// Binding number.
    pub binding: u32,
    /// Buffer or image.
    pub kind: BindingKind,
    /// Element type.
    pub dtype: DType,
    /// Bytes of one element of the WGSL array (16 for `vec4<f32>`).
    pub element_bytes: u32,
    /// What this entry point does to it.
    pub access: Access,
}

/// One entry point.
#[derive(Debug)]
pub struct KernelInfo {
    /// The module it stands in.
    pub module: &'static ModuleInfo,
    /// Its name in WGSL.
    pub entry: &'static str,
    /// Bytes of `Params`; 0 = none.
    pub params_bytes: u32,
    /// Reads the per-step scalars (group 1).
    pub uses_step: bool,
    /// Pipeline-overridable constants that its module has.
    pub overrides: &'static [&'static str],
    /// Tensor bindings that this entry point uses.
    pub bindings: &'static [BindingInfo],
    /// Whether it computes a call with these `Params` and these of the call's tensors; textures have conditions of their own.
    pub fits: fn(&[u8], &[Tensor]) -> bool,
    /// The workgroups of such a call.
    pub grid: fn(&[u8], &[Tensor]) -> [u32; 3],
}

impl KernelInfo {
    /// `module.entry`, as listings and benchmarks name it.
    pub fn name(&self) -> String {
        format!("{}.{}", self.module.name, self.entry)
    }
}

/// A generated call struct: one entry point with its parameters and tensors.
pub trait Call {
    /// The kernels that compute it, best first; see [`super::choose`].
    fn siblings(&self) -> &'static [&'static KernelInfo];
    /// `Params` as bytes.
    fn params(&self) -> &[u8];
    /// Its tensors, as [`BindingInfo::field`] counts them.
    fn tensors(&self) -> Vec<Tensor>;
    /// Values of pipeline-overridable constants.
    fn constants(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}
