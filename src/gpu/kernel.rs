//! The build script's description of a kernel: its module, entry point and bindings, with the access reported by naga.

use super::{DType, Requirements, Tensor};

/// One WGSL module, as passed to the driver.
#[derive(Debug)]
pub struct ModuleInfo {
    /// The file's name without `.wgsl`, dots as underscores, and the library variant that it uses.
    pub name: &'static str,
    /// Its place in a set of [`Modules`](super::Modules); `None` for the portable source of a stem, the reference: it is in none.
    pub bit: Option<u32>,
    /// WGSL with imports resolved and marked loops unrolled.
    pub source: &'static str,
    /// Its requirements for an adapter.
    pub requires: Requirements,
    /// Compiled without bounds checks: the source guards every index and every loop itself.
    pub unchecked: bool,
}

/// How an entry point accesses a binding.
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

/// How a tensor is bound to a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingKind {
    /// The tensor's buffer.
    Storage {
        /// Declared `read` in WGSL.
        read_only: bool,
    },
    /// The tensor's texture image: `rgba32float`, a texel has four consecutive elements of a row.
    Texels(ImageRow),
}

/// What a row of an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageRow {
    /// A row of the tensor.
    Row,
    /// A row of the tensor, or, of one with more rows than an image may have, several: `FOLD` of them, a power of two.
    Folded,
    /// A power of two of the tensor's elements, whatever the length of its rows.
    Flat,
}

/// Maximum workgroups in one dimension of a grid.
const MAX_WORKGROUPS: u32 = 65_535;

/// One tensor binding of an entry point, in group 0.
#[derive(Debug)]
pub struct BindingInfo {
    /// The variable's name in WGSL: that of the tensor, with the suffix `_texels` if the tensor is also bound as a buffer.
    pub name: &'static str,
    /// Index into the call's tensors.
    pub field: usize,
    /// Binding number.
    pub binding: u32,
    /// Buffer or image.
    pub kind: BindingKind,
    /// Element type.
    pub dtype: DType,
    /// Bytes of one element of the WGSL array (16 for `vec4<f32>`).
    pub element_bytes: u32,
    /// How this entry point accesses it.
    pub access: Access,
}

/// One entry point.
#[derive(Debug)]
pub struct KernelInfo {
    /// The module that contains it.
    pub module: &'static ModuleInfo,
    /// Its name in WGSL.
    pub entry: &'static str,
    /// Bytes of `Params`; 0 = none.
    pub params_bytes: u32,
    /// Whether it reads the per-step scalars (group 1).
    pub uses_step: bool,
    /// Pipeline-overridable constants of its module that a call sets: those not in capitals.
    pub overrides: &'static [&'static str],
    /// Those that the source sets for this entry point.
    pub constants: &'static [(&'static str, f64)],
    /// Tensor bindings used by this entry point.
    pub bindings: &'static [BindingInfo],
    /// Whether it supports a call with these `Params` and tensors; textures have additional conditions.
    pub fits: fn(&[u8], &[Tensor]) -> bool,
    /// The workgroups for such a call.
    pub grid: fn(&[u8], &[Tensor]) -> [u32; 3],
}

impl KernelInfo {
    /// `module.entry`, the name in listings and benchmarks.
    pub fn name(&self) -> String {
        format!("{}.{}", self.module.name, self.entry)
    }

    /// A grid whose x exceeds 65,535, folded into y (`flat_workgroup` in WGSL).
    ///
    /// # Panics
    /// If another dimension exceeds that, or one is zero.
    pub fn folded(&self, grid: [u32; 3]) -> [u32; 3] {
        let [mut x, mut y, z] = grid;
        if x > MAX_WORKGROUPS {
            assert_eq!(y, 1, "{}: a grid of {grid:?} cannot fold into y", self.name());
            y = x.div_ceil(MAX_WORKGROUPS);
            x = x.div_ceil(y);
        }
        assert!(x > 0 && y > 0 && z > 0 && y <= MAX_WORKGROUPS && z <= MAX_WORKGROUPS, "{}: grid {grid:?}", self.name());
        [x, y, z]
    }
}

/// A generated call struct: one entry point with its parameters and tensors.
pub trait Call {
    /// The kernels that compute it, best first; see [`super::choose`].
    fn siblings(&self) -> &'static [&'static KernelInfo];
    /// `Params` as bytes.
    fn params(&self) -> &[u8];
    /// Its tensors, in the order of [`BindingInfo::field`].
    fn tensors(&self) -> Vec<Tensor>;
    /// Values of pipeline-overridable constants.
    fn constants(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}
