//! What wgpu marks unsafe: the only module of the library with `unsafe`.
#![allow(unsafe_code, reason = "wgpu marks modules without bounds checks unsafe")]

/// Creates a module without bounds checks, which take a sixth of the time of a matrix product (NVIDIA H200: 28.8 against 34.5
/// TFLOP/s). The checks that remain are the driver's. A browser checks in any case.
pub(super) fn create_module(device: &wgpu::Device, descriptor: wgpu::ShaderModuleDescriptor) -> wgpu::ShaderModule {
    // SAFETY: the source is this crate's own and states `unchecked: bounds`. It guards every index by the sizes in `Params`, which
    // ops take from the shapes of the tensors that they bind, or by the experts' offsets, which a kernel counts from the router's
    // choices and no file holds; and its loops end.
    unsafe { device.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
}

/// Creates a module from the SPIR-V of an entry point.
#[allow(dead_code, reason = "no browser takes SPIR-V")]
pub(super) fn create_spirv_module(device: &wgpu::Device, entry: &str, [x, y, z]: [u32; 3], words: Vec<u32>) -> wgpu::ShaderModule {
    let entry_points = vec![wgpu::PassthroughShaderEntryPoint { name: entry.into(), workgroup_size: (x, y, z) }];
    let descriptor = wgpu::ShaderModuleDescriptorPassthrough {
        label: Some(entry),
        entry_points: entry_points.into(),
        spirv: Some(words.into()),
        ..Default::default()
    };
    // SAFETY: naga wrote the words from a valid module, and the repair only widens what accesses and barriers order.
    unsafe { device.create_shader_module_passthrough(descriptor) }
}

/// Permits cooperative matrices, which wgpu 30 calls experimental.
pub(super) fn experimental_features() -> wgpu::ExperimentalFeatures {
    // SAFETY: kernels with cooperative matrices are this crate's own; a wrong result of a driver is found by the self-test before
    // such a kernel is used.
    unsafe { wgpu::ExperimentalFeatures::enabled() }
}
