//! The compiled kernels of a device: each is compiled once, at first use or ahead of it by a [`Compilation`](super::Compilation),
//! whose threads share them.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, OnceLock},
};

use super::{BindingKind, KernelInfo, ModuleInfo, lock::lock, spirv, storage_images::with_storage_images, unchecked};

/// A compiled entry point.
#[derive(Clone)]
pub(super) struct Pipeline {
    pub raw: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// An entry point with the values of its constants.
#[derive(Clone)]
pub(super) struct Kernel {
    pub info: &'static KernelInfo,
    pub constants: Vec<(&'static str, f64)>,
}

/// The address of a static kernel with the values of its constants.
pub(super) type PipelineKey = (usize, Vec<(&'static str, u64)>);

impl Kernel {
    pub(super) fn key(&self) -> PipelineKey {
        (std::ptr::from_ref(self.info).addr(), self.constants.iter().map(|(name, value)| (*name, value.to_bits())).collect())
    }
}

/// Values that are made once, at first use. Threads that need the same value wait for it; others do not.
struct Cache<K, V>(Mutex<HashMap<K, Arc<OnceLock<V>>>>);

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    fn get(&self, key: K, make: impl FnOnce() -> V) -> V {
        let cell = lock(&self.0).entry(key).or_default().clone();
        cell.get_or_init(make).clone()
    }

    fn has(&self, key: &K) -> bool {
        lock(&self.0).get(key).is_some_and(|cell| cell.get().is_some())
    }
}

/// See the module.
pub(super) struct Pipelines {
    pub device: wgpu::Device,
    /// The layout of bind group 1, the scalars of a step.
    pub step_layout: wgpu::BindGroupLayout,
    /// Whether images are storage textures, see [`with_storage_images`].
    pub storage_images: bool,
    modules: Cache<usize, wgpu::ShaderModule>,
    pipelines: Cache<PipelineKey, Pipeline>,
}

impl Pipelines {
    pub(super) fn new(device: &wgpu::Device, storage_images: bool) -> Pipelines {
        let step_layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
            label: Some("step"),
            entries: &[layout_entry(0, wgpu::BufferBindingType::Uniform)],
        });
        let (modules, pipelines) = (Cache(Mutex::default()), Cache(Mutex::default()));
        Pipelines { device: device.clone(), step_layout, storage_images, modules, pipelines }
    }

    /// The compiled entry point, compiled at first use.
    pub(super) fn get(&self, kernel: &Kernel) -> Pipeline {
        self.pipelines.get(kernel.key(), || self.compile(kernel))
    }

    /// Whether the entry point is compiled.
    pub(super) fn has(&self, kernel: &Kernel) -> bool {
        self.pipelines.has(&kernel.key())
    }

    /// Compiles the entry point anew.
    pub(super) fn compile(&self, Kernel { info: kernel, constants }: &Kernel) -> Pipeline {
        let label = kernel.name();
        let mut entries = Vec::new();
        if kernel.params_bytes > 0 {
            entries.push(layout_entry(0, wgpu::BufferBindingType::Uniform));
        }
        entries.extend(kernel.bindings.iter().map(|b| match b.kind {
            BindingKind::Storage { read_only } => layout_entry(b.binding, wgpu::BufferBindingType::Storage { read_only }),
            BindingKind::Texels(_) => {
                wgpu::BindGroupLayoutEntry { ty: self.image(), ..layout_entry(b.binding, wgpu::BufferBindingType::Uniform) }
            }
        }));
        let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(&label), entries: &entries });
        let groups = [Some(&layout), Some(&self.step_layout)];
        let groups = if kernel.uses_step { &groups[..] } else { &groups[..1] };
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: groups,
            immediate_size: 0,
        });
        let (module, constants) = match spirv::module(&self.device, kernel, constants) {
            Some(module) => (module, Vec::new()), // It has the values of its constants.
            None => {
                let module = self.modules.get(std::ptr::from_ref(kernel.module).addr(), || self.module(kernel.module));
                (module, kernel.constants.iter().chain(constants).copied().collect())
            }
        };
        let raw = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(kernel.entry),
            // Every kernel writes its workgroup variables before it reads them.
            compilation_options: wgpu::PipelineCompilationOptions { constants: &constants, zero_initialize_workgroup_memory: false },
            cache: None,
        });
        Pipeline { raw, layout }
    }

    fn image(&self) -> wgpu::BindingType {
        let view_dimension = wgpu::TextureViewDimension::D2;
        if self.storage_images {
            let (access, format) = (wgpu::StorageTextureAccess::ReadOnly, wgpu::TextureFormat::Rgba32Float);
            return wgpu::BindingType::StorageTexture { access, format, view_dimension };
        }
        let sample_type = wgpu::TextureSampleType::Float { filterable: false };
        wgpu::BindingType::Texture { sample_type, view_dimension, multisampled: false }
    }

    fn module(&self, module: &ModuleInfo) -> wgpu::ShaderModule {
        let source = if self.storage_images { with_storage_images(module.source).into() } else { module.source.into() };
        let source = wgpu::ShaderSource::Wgsl(source);
        let descriptor = wgpu::ShaderModuleDescriptor { label: Some(module.name), source };
        match module.unchecked {
            true => unchecked::create_module(&self.device, descriptor),
            false => self.device.create_shader_module(descriptor),
        }
    }
}

fn layout_entry(binding: u32, ty: wgpu::BufferBindingType) -> wgpu::BindGroupLayoutEntry {
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}
