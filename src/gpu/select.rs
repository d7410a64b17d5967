//! Kernel selection: the only place that chooses among the siblings of a kernel, by the capabilities of an adapter.
//!
//! An op records a [`Call`] without knowing the adapter. Among its sources, [`choose`] picks the one of highest rank whose
//! [`Requirements`] the [`Capabilities`] satisfy, whose conditions the sizes meet, and whose textures can be created. The order is fixed,
//! so that bits do not change unasked; `moelab tune` measures which kernels an adapter had better do [without](Capabilities::without).

use std::fmt;

use super::{BindingKind, Call, DType, ImageRow, KernelInfo, ModuleInfo, Tensor};

/// M, N and K of a cooperative matrix product.
pub type MatrixShape = [u32; 3];

/// Capabilities of an adapter beyond browser defaults that kernels may require.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capabilities {
    /// Whether kernels are faster with texture images: CPU rasterisers (lavapipe, SwiftShader) read storage buffers lane by
    /// lane and `rgba32float` texels as vectors (measured: ten times faster). Every adapter supports them.
    pub images: bool,
    /// 16-bit floats in shaders.
    pub f16: bool,
    /// Minimum and maximum subgroup size; zeros without subgroup operations.
    pub subgroup_sizes: [u32; 2],
    /// Shapes of cooperative matrices with f16 operands and f32 sums; padded with zeros.
    pub matrices: [MatrixShape; 4],
    /// Whether each operand of products on them is split into two f16, for errors as small as those of f32, not rounded to one.
    pub splits_operands: bool,
    /// Maximum invocations per workgroup.
    pub invocations: u32,
    /// Maximum bytes of workgroup memory.
    pub workgroup_bytes: u32,
    /// Maximum bytes of a tensor.
    pub binding_bytes: u64,
    /// Longest side of an image, in texels.
    pub image_side: u32,
    /// Workgroups of a launch that keep the adapter busy.
    pub workgroups: u32,
    /// Rows of logits that the loss head computes at a time; 0 for [its own number](crate::limits::rows_per_chunk).
    pub logit_rows: u32,
    /// Bytes from which on activations that are cheap to compute are computed again for backward.
    pub recomputed_bytes: u64,
    /// Kernels to do without, although the adapter runs them.
    pub without: Modules,
}

/// A set of modules that others can replace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modules(u128);

impl Modules {
    /// The set with one more.
    #[must_use]
    pub fn with(self, module: &ModuleInfo) -> Modules {
        Modules(self.0 | module.bit.map_or(0, |bit| 1 << bit))
    }

    /// Whether a module is in it.
    pub fn contains(self, module: &ModuleInfo) -> bool {
        module.bit.is_some_and(|bit| self.0 & (1 << bit) != 0)
    }
}

/// Longest side of an image, in texels: the default limit of browsers.
pub const MAX_IMAGE_SIDE: u32 = 8192;
/// Workgroups of a launch that keep a GPU busy: 4 to each of 256 compute units. CPU rasterisers are busy with any.
const BUSY_WORKGROUPS: u32 = 1024;
/// A pass over as much takes a GPU of 100 GB/s 200 us, many times what a launch costs it, and what it then keeps is worth that. A second copy
/// to an image would cost CPU rasterisers more.
const RECOMPUTED_BYTES: u64 = 8 << 20;
/// A buffer-to-texture copy requires rows of a multiple of 256 bytes.
const IMAGE_ROW_ELEMENTS: u32 = 64;

impl Capabilities {
    /// The capabilities of every WebGPU adapter with browser default limits: these kernels are the reference.
    pub const PORTABLE: Capabilities = Capabilities {
        images: false,
        f16: false,
        subgroup_sizes: [0; 2],
        matrices: [[0; 3]; 4],
        splits_operands: false,
        invocations: 256,
        workgroup_bytes: 16 * 1024,
        binding_bytes: 128 << 20,
        image_side: MAX_IMAGE_SIDE,
        workgroups: BUSY_WORKGROUPS,
        logit_rows: 0,
        recomputed_bytes: RECOMPUTED_BYTES,
        without: Modules(0),
    };
    /// A GPU with 16-bit floats and cooperative matrices of 16x16, such as NVIDIA's.
    pub const MATRICES: Capabilities = Capabilities {
        f16: true,
        subgroup_sizes: [32; 2],
        matrices: [[16; 3], [0; 3], [0; 3], [0; 3]],
        workgroup_bytes: 48 * 1024,
        binding_bytes: 1 << 31,
        ..Capabilities::PORTABLE
    };
    /// A CPU rasteriser without subgroup operations.
    pub const CPU: Capabilities = Capabilities { images: true, workgroups: 1, recomputed_bytes: u64::MAX, ..Capabilities::PORTABLE };

    /// Whether an adapter with these capabilities satisfies the requirements.
    pub fn satisfy(&self, requires: &Requirements) -> bool {
        let Requirements { images, buffers, f16, subgroup, matrix, invocations, workgroup_bytes } = *requires;
        (self.images || !images)
            && !(self.images && buffers)
            && (self.f16 || !f16)
            && self.subgroup_sizes[0] >= subgroup
            // The elements of a cooperative matrix are spread over a subgroup of a size that the kernel knows.
            && matrix.is_none_or(|shape| self.matrices.contains(&shape) && self.subgroup_sizes == [subgroup; 2])
            && self.invocations >= invocations
            && self.workgroup_bytes >= workgroup_bytes
    }

    /// Whether matrix products are sums in registers, to which a kernel can apply a function before it stores them.
    pub fn multiplies_in_registers(&self) -> bool {
        !self.images && self.matrices == Capabilities::PORTABLE.matrices
    }

    /// [`Capabilities::PORTABLE`] plus exactly what a source requires.
    fn with(requires: &Requirements) -> Capabilities {
        let Requirements { images, buffers: _, f16, subgroup, matrix, invocations, workgroup_bytes } = *requires;
        let base = if images { Capabilities::CPU } else { Capabilities::PORTABLE };
        let mut all = Capabilities { f16, subgroup_sizes: [subgroup; 2], ..base };
        all.matrices[0] = matrix.unwrap_or_default();
        all.invocations = all.invocations.max(invocations);
        all.workgroup_bytes = all.workgroup_bytes.max(workgroup_bytes);
        all
    }

    /// Named sets of capabilities that together cover every source that this adapter can run: first its own, then the
    /// portable set, then the requirements of each source.
    pub fn sets(&self, modules: &[&ModuleInfo]) -> Vec<(String, Capabilities)> {
        let runs = |set: &Capabilities| modules.iter().map(|m| set.satisfy(&m.requires)).collect::<Vec<bool>>();
        let mut sets = vec![(self.name().to_string(), *self), (Capabilities::PORTABLE.name().to_string(), Capabilities::PORTABLE)];
        for module in modules.iter().filter(|m| self.satisfy(&m.requires)) {
            sets.push((module.requires.to_string(), Capabilities::with(&module.requires)));
        }
        let mut seen = Vec::new();
        sets.retain(|(_, set)| {
            !seen.contains(&runs(set)) && {
                seen.push(runs(set));
                true
            }
        });
        sets
    }

    /// The name in flags and records: `portable`, `cpu` for rasterisers, `gpu` for anything more capable.
    pub fn name(&self) -> &'static str {
        match self {
            Capabilities { images: true, .. } => "cpu",
            Capabilities { f16: false, subgroup_sizes: [0, _], matrices: [[0, ..], ..], .. } => "portable",
            _ => "gpu",
        }
    }
}

/// Requirements of a source beyond browser defaults. Zeros require nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Requirements {
    /// Texture images are faster than buffers.
    pub images: bool,
    /// They are not.
    pub buffers: bool,
    /// 16-bit floats in shaders.
    pub f16: bool,
    /// Minimum subgroup size.
    pub subgroup: u32,
    /// Cooperative matrices of this shape.
    pub matrix: Option<MatrixShape>,
    /// Invocations of a workgroup.
    pub invocations: u32,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
}

/// In the form in which a source states them.
impl fmt::Display for Requirements {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Requirements { images, buffers, f16, subgroup, matrix, invocations, workgroup_bytes } = *self;
        let number = |name: &str, value: u32| (value > 0).then(|| format!("{name} {value}"));
        let all = [
            images.then(|| "images".into()),
            buffers.then(|| "buffers".into()),
            f16.then(|| "f16".into()),
            number("subgroups", subgroup),
            matrix.map(|[m, n, k]| format!("matrices {m}x{n}x{k}")),
            number("invocations", invocations),
            number("workgroup_bytes", workgroup_bytes),
        ];
        f.write_str(&all.into_iter().flatten().collect::<Vec<String>>().join(", "))
    }
}

/// A kernel with its tensors, one per binding, shaped for its textures.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The kernel.
    pub kernel: &'static KernelInfo,
    /// One tensor per binding.
    pub tensors: Vec<Tensor>,
    /// Workgroups, not yet folded.
    pub grid: [u32; 3],
}

/// The best kernel for a call on an adapter with `capabilities`; `None` if none fits, which is impossible if there is a portable
/// source without conditions.
pub fn choose(call: &impl Call, capabilities: &Capabilities) -> Option<Chosen> {
    let (params, fields) = (call.params(), call.tensors());
    call.siblings().iter().find_map(|kernel| {
        let module = kernel.module;
        if !capabilities.satisfy(&module.requires) || capabilities.without.contains(module) || !(kernel.fits)(params, &fields) {
            return None;
        }
        let shown = kernel.bindings.iter().map(|b| match b.kind {
            // What is read as f16 may be f32: it is rounded.
            BindingKind::Storage { .. } => Some(fields[b.field])
                .filter(|t| !(b.dtype == DType::F16 && b.access.writes() && t.dtype == DType::F32))
                .filter(|t| !(b.dtype == DType::F32 && t.dtype == DType::F16)),
            BindingKind::Texels(ImageRow::Row) => Some(fields[b.field]).filter(|t| is_image(*t, capabilities.image_side)),
            BindingKind::Texels(ImageRow::Folded) => folded_image(fields[b.field], capabilities.image_side),
            BindingKind::Texels(ImageRow::Flat) => flat_image(fields[b.field]),
        });
        Some(Chosen { kernel, tensors: shown.collect::<Option<_>>()?, grid: (kernel.grid)(params, &fields) })
    })
}

/// How many rows of a tensor lie side by side in a row of an image that a kernel reads as `shown`.
pub fn fold_of(t: Tensor, shown: Tensor) -> u32 {
    shown.shape.last() / t.shape.last()
}

/// Whether a tensor, viewed as [rows, last dimension], can have an image on every adapter.
pub fn fits_image(t: Tensor) -> bool {
    is_image(t, MAX_IMAGE_SIDE)
}

fn is_image(t: Tensor, side: u32) -> bool {
    let [rows, width] = t.shape.matrix("image");
    width % IMAGE_ROW_ELEMENTS == 0 && width / 4 <= side && rows <= side
}

/// A tensor reshaped so that its image has no side longer than `side`: as few of its rows side by side as that takes, a power of two.
/// `None` if there is no such shape.
fn folded_image(t: Tensor, side: u32) -> Option<Tensor> {
    let [rows, width] = t.shape.matrix("image");
    if !width.is_multiple_of(IMAGE_ROW_ELEMENTS) {
        return None;
    }
    let folds = (0..u32::BITS).map(|shift| 1 << shift).take_while(|fold| rows.is_multiple_of(*fold));
    folds.filter_map(|fold| Some(t.reshape([rows / fold, width.checked_mul(fold)?]))).find(|t| is_image(*t, side))
}

/// A tensor reshaped so that its image has power-of-two rows, for kernels that address texels by a flat index; its own rows only
/// need to be whole texels. `None` if there is no such shape.
pub fn flat_image(t: Tensor) -> Option<Tensor> {
    let len = t.shape.len();
    let mut width = IMAGE_ROW_ELEMENTS;
    while len / width > MAX_IMAGE_SIDE {
        width *= 2;
    }
    len.is_multiple_of(width).then(|| t.reshape([len / width, width])).filter(|t| fits_image(*t))
}
