//! Which kernels an adapter runs.
//!
//! One op has a portable kernel, the reference that runs everywhere, and may have siblings for a class of adapters.
//! This is the one table that chooses.

use super::Tensor;

/// A class of adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tier {
    /// Any WebGPU adapter at browser default limits, f32, no subgroups.
    Portable,
    /// CPU rasterisers (lavapipe, SwiftShader): hot operands are read through texture images, because these drivers
    /// read storage buffers lane by lane and `rgba32float` texels as vectors (ten times faster, measured).
    Cpu,
}

impl Tier {
    /// Longest side of an image, in texels: the default limit of browsers.
    pub const MAX_IMAGE_SIDE: u32 = 8192;
    /// A buffer-to-texture copy takes rows of a multiple of 256 bytes.
    const IMAGE_ROW_ELEMENTS: u32 = 64;

    /// Whether kernels should read these tensors through images: the tier gains by it and every one fits an image.
    pub fn reads_images(self, tensors: &[Tensor]) -> bool {
        self == Tier::Cpu && tensors.iter().all(|t| Self::fits_image(*t))
    }

    /// Whether a tensor, seen as [rows, last dimension], can have an image.
    pub fn fits_image(t: Tensor) -> bool {
        let [rows, width] = t.shape.matrix("image");
        width % Self::IMAGE_ROW_ELEMENTS == 0 && width / 4 <= Self::MAX_IMAGE_SIDE && rows <= Self::MAX_IMAGE_SIDE
    }

    /// The tensors in shapes whose images have rows of a power of two, for kernels that find texels by a flat index: whole
    /// texels are all that a tensor's own rows need. `None` if the tier does not gain by images or one does not fit.
    pub fn flat_images<const N: usize>(self, tensors: [Tensor; N]) -> Option<[Tensor; N]> {
        let flat = |t: Tensor| {
            let len = t.shape.len();
            let mut width = Self::IMAGE_ROW_ELEMENTS;
            while len / width > Self::MAX_IMAGE_SIDE {
                width *= 2;
            }
            len.is_multiple_of(width).then(|| t.reshape([len / width, width])).filter(|t| Self::fits_image(*t))
        };
        let flat: Vec<Tensor> = tensors.into_iter().map(flat).collect::<Option<_>>()?;
        flat.try_into().ok().filter(|_| self == Tier::Cpu)
    }

    /// The name that flags and records use.
    pub fn name(self) -> &'static str {
        match self {
            Tier::Portable => "portable",
            Tier::Cpu => "cpu",
        }
    }
}
