//! Browsers have no cooperative matrices, and take no SPIR-V.

use super::KernelInfo;

/// No kernel has cooperative matrices.
pub(super) fn module(_device: &wgpu::Device, _info: &KernelInfo, _constants: &[(&'static str, f64)]) -> Option<wgpu::ShaderModule> {
    None
}
