//! Browsers have no cooperative matrices, and take no SPIR-V.

use super::pipelines::Kernel;

/// No kernel has cooperative matrices.
pub(super) fn module(_device: &wgpu::Device, _kernel: &Kernel) -> Option<wgpu::ShaderModule> {
    None
}
