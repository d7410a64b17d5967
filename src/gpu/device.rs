//! Opening an adapter and creating GPU objects on it. Beside the [compilation](super::Compilation) of kernels, the only file of the
//! engine that is asynchronous and has code for specific targets.
//!
//! wgpu's default is to panic on an uncaptured error or a lost device; [`Device::check`] reports both instead.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    Capabilities, GpuError, MAX_IMAGE_SIDE, MatrixShape, ModuleInfo, lock::lock, pipelines::Pipelines, readback::StagingRing, unchecked,
};

/// Which adapter to open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AdapterChoice {
    /// The fastest kind available.
    #[default]
    Best,
    /// The first whose name contains this text, ignoring case.
    Name(String),
    /// By index in the list of `moelab adapters`.
    Index(usize),
    /// By PCI address, for example `0000:01:00.0`.
    Pci(String),
}

/// An invalid adapter choice, with the expected form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidAdapter(String);

impl FromStr for AdapterChoice {
    type Err = InvalidAdapter;

    fn from_str(text: &str) -> Result<Self, InvalidAdapter> {
        let invalid = |problem: String| InvalidAdapter(problem);
        match text.split_once(':') {
            Some(("name", name)) if !name.is_empty() => Ok(AdapterChoice::Name(name.into())),
            Some(("index", index)) => {
                index.parse().map(AdapterChoice::Index).map_err(|_| invalid(format!("index:{index}: wanted a whole number")))
            }
            Some(("pci", address)) if !address.is_empty() => Ok(AdapterChoice::Pci(address.into())),
            _ => Err(invalid(format!("`{text}`: wanted name:TEXT, index:NUMBER or pci:ADDRESS"))),
        }
    }
}

impl fmt::Display for AdapterChoice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            AdapterChoice::Best => write!(f, "any"),
            AdapterChoice::Name(name) => write!(f, "name:{name}"),
            AdapterChoice::Index(index) => write!(f, "index:{index}"),
            AdapterChoice::Pci(address) => write!(f, "pci:{address}"),
        }
    }
}

/// A summary of an adapter.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct AdapterSummary {
    /// The device's name.
    pub name: String,
    /// Vulkan, Metal, Dx12, BrowserWebGpu.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// DiscreteGpu, IntegratedGpu, VirtualGpu, Cpu, Other.
    pub kind: String,
    /// PCI address, empty if unknown.
    pub pci: String,
    /// The kernels that it runs by default, see [`Capabilities::name`].
    pub tier: &'static str,
    /// Largest tensor, bytes.
    pub max_binding_bytes: u64,
}

impl AdapterSummary {
    /// Whether kernels run on a processor (llvmpipe, SwiftShader).
    pub fn is_processor(&self) -> bool {
        self.kind == "Cpu"
    }

    fn new(adapter: &wgpu::Adapter) -> Self {
        let info = adapter.get_info();
        AdapterSummary {
            name: info.name.clone(),
            backend: format!("{:?}", info.backend),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
            kind: format!("{:?}", info.device_type),
            pci: info.device_pci_bus_id.clone(),
            tier: capabilities_of(adapter).name(),
            max_binding_bytes: capabilities_of(adapter).binding_bytes,
        }
    }
}

/// Features that kernels may use, requested from every adapter that has them.
const FEATURES: wgpu::Features = wgpu::Features::SUBGROUP.union(wgpu::Features::SHADER_F16).union(COOPERATIVE_MATRICES);

/// What cooperative matrices take: their SPIR-V is repaired before a driver sees it.
const COOPERATIVE_MATRICES: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::PASSTHROUGH_SHADERS);

/// The most images that a kernel reads.
const MOST_IMAGES: u32 = 8;

/// The shapes of cooperative matrices with f16 operands and f32 sums, padded with zeros.
fn matrices_of(adapter: &wgpu::Adapter) -> [MatrixShape; 4] {
    let mut shapes = [[0; 3]; 4];
    if !adapter.features().contains(FEATURES) || adapter.get_info().backend != wgpu::Backend::Vulkan {
        return shapes;
    }
    let (f16, f32) = (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32);
    let all = adapter.cooperative_matrix_properties();
    let fitting = all.iter().filter(|p| p.ab_type == f16 && p.cr_type == f32);
    for (shape, found) in shapes.iter_mut().zip(fitting) {
        *shape = [found.m_size, found.n_size, found.k_size];
    }
    shapes
}

/// The capabilities of an adapter that kernels may use.
fn capabilities_of(adapter: &wgpu::Adapter) -> Capabilities {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let name = format!("{} {} {}", info.name, info.driver, info.driver_info).to_lowercase();
    let is_rasteriser = ["llvmpipe", "lavapipe", "swiftshader"].iter().any(|n| name.contains(n));
    let has_subgroups = features.contains(wgpu::Features::SUBGROUP);
    let images = info.device_type == wgpu::DeviceType::Cpu || is_rasteriser;
    let base = if images { Capabilities::CPU } else { Capabilities::PORTABLE };
    Capabilities {
        f16: features.contains(wgpu::Features::SHADER_F16),
        subgroup_sizes: if has_subgroups { [info.subgroup_min_size, info.subgroup_max_size] } else { [0; 2] },
        invocations: limits.max_compute_invocations_per_workgroup,
        workgroup_bytes: limits.max_compute_workgroup_storage_size,
        binding_bytes: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
        image_side: if images { limits.max_texture_dimension_2d } else { MAX_IMAGE_SIDE },
        ..base
    }
}

/// Whether images are faster as [storage textures](super::with_storage_images), and kernels may have as many as they read.
fn reads_storage_images(adapter: &wgpu::Adapter) -> bool {
    let most = adapter.limits().max_storage_textures_per_shader_stage;
    adapter.get_info().name.contains("llvmpipe") && most >= MOST_IMAGES && cfg!(not(target_arch = "wasm32"))
}

/// An open device with its queue and its compiled kernels.
pub struct Device {
    /// A summary of the adapter.
    pub adapter: AdapterSummary,
    /// The capabilities that kernels may use. Set [`Capabilities::PORTABLE`] to force the portable ones. Without cooperative
    /// matrices, which round operands to f16: see [`Device::with_matrices`].
    pub capabilities: Capabilities,
    matrices: [MatrixShape; 4],
    tested: Mutex<Vec<(Capabilities, Result<(), GpuError>)>>,
    pub(super) raw: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) pipelines: Arc<Pipelines>,
    pub(super) staging: Arc<StagingRing>,
    submissions: AtomicU64,
    fault: Arc<Mutex<Option<GpuError>>>,
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    wgpu::Instance::new(descriptor)
}

/// Every adapter, in the order of [`AdapterChoice::Index`].
#[cfg(not(target_arch = "wasm32"))]
pub async fn adapters() -> Vec<AdapterSummary> {
    let all = instance().enumerate_adapters(wgpu::Backends::PRIMARY).await;
    all.iter().map(AdapterSummary::new).collect()
}

#[cfg(not(target_arch = "wasm32"))]
async fn choose(instance: &wgpu::Instance, choice: &AdapterChoice) -> Result<wgpu::Adapter, GpuError> {
    use wgpu::DeviceType::*;
    let all = instance.enumerate_adapters(wgpu::Backends::PRIMARY).await;
    let found: Vec<String> = all.iter().map(|a| a.get_info().name).collect();
    let rank = |a: &wgpu::Adapter| match a.get_info().device_type {
        DiscreteGpu => 0,
        IntegratedGpu => 1,
        VirtualGpu => 2,
        Other => 3,
        Cpu => 4,
    };
    let mut all = all.into_iter();
    let chosen = match choice {
        AdapterChoice::Best => all.min_by_key(rank),
        AdapterChoice::Name(name) => all.find(|a| a.get_info().name.to_lowercase().contains(&name.to_lowercase())),
        AdapterChoice::Index(index) => all.nth(*index),
        AdapterChoice::Pci(address) => all.find(|a| a.get_info().device_pci_bus_id.eq_ignore_ascii_case(address)),
    };
    let found = if found.is_empty() { "none".into() } else { found.join(", ") };
    chosen.ok_or_else(|| GpuError::NoAdapter { wanted: choice.to_string(), found })
}

#[cfg(target_arch = "wasm32")]
async fn choose(instance: &wgpu::Instance, choice: &AdapterChoice) -> Result<wgpu::Adapter, GpuError> {
    let options = wgpu::RequestAdapterOptions { power_preference: wgpu::PowerPreference::HighPerformance, ..Default::default() };
    let refused = |e: wgpu::RequestAdapterError| GpuError::NoAdapter { wanted: choice.to_string(), found: e.to_string() };
    instance.request_adapter(&options).await.map_err(refused)
}

impl Device {
    /// Opens the chosen adapter.
    ///
    /// # Errors
    /// If none matches, or it refuses a device with browser default limits.
    pub async fn open(choice: &AdapterChoice) -> Result<Device, GpuError> {
        let adapter = choose(&instance(), choice).await?;
        let (given, capabilities) = (adapter.limits(), capabilities_of(&adapter));
        let (summary, storage_images) = (AdapterSummary::new(&adapter), reads_storage_images(&adapter));
        let name = summary.name.clone();
        // Tensors may be as large as the adapter allows; otherwise kernels keep to browser defaults, except for what they declare.
        let limits = wgpu::Limits {
            max_buffer_size: given.max_buffer_size,
            max_storage_buffer_binding_size: given.max_storage_buffer_binding_size,
            max_compute_invocations_per_workgroup: capabilities.invocations,
            max_compute_workgroup_storage_size: capabilities.workgroup_bytes,
            max_texture_dimension_2d: capabilities.image_side,
            max_storage_textures_per_shader_stage: if storage_images { given.max_storage_textures_per_shader_stage } else { 4 },
            ..Default::default()
        };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("moelab"),
            required_features: adapter.features() & FEATURES,
            required_limits: limits,
            experimental_features: unchecked::experimental_features(),
            ..Default::default()
        };
        let refused = |e: wgpu::RequestDeviceError| GpuError::Refused { adapter: name.clone(), reason: e.to_string() };
        let (raw, queue) = adapter.request_device(&descriptor).await.map_err(refused)?;
        let fault = Arc::new(Mutex::new(None));
        watch(&raw, &name, &fault);
        Ok(Device {
            capabilities,
            matrices: matrices_of(&adapter),
            tested: Mutex::default(),
            adapter: summary,
            pipelines: Arc::new(Pipelines::new(&raw, storage_images)),
            raw,
            queue,
            staging: Arc::default(),
            submissions: AtomicU64::new(0),
            fault,
        })
    }

    /// The capabilities with cooperative matrices: products round their operands to f16 (or split them into two) and sum in f32. `None` if
    /// the adapter has no shape of them that a kernel is written for.
    pub fn with_matrices(&self, modules: &[&ModuleInfo]) -> Option<Capabilities> {
        let with = Capabilities { matrices: self.matrices, ..self.capabilities };
        modules.iter().any(|m| m.requires.matrix.is_some() && with.satisfy(&m.requires)).then_some(with)
    }

    /// The outcome of a test of kernels for `capabilities` on the device, which is run once.
    ///
    /// # Errors
    /// Those of the test.
    pub fn tested(&self, capabilities: Capabilities, test: impl FnOnce() -> Result<(), GpuError>) -> Result<(), GpuError> {
        let mut tested = lock(&self.tested);
        if let Some((_, outcome)) = tested.iter().find(|(known, _)| *known == capabilities) {
            return outcome.clone();
        }
        let outcome = test();
        tested.push((capabilities, outcome.clone()));
        outcome
    }

    /// Reports the first error since the device was opened, if any.
    ///
    /// # Errors
    /// That error.
    pub fn check(&self) -> Result<(), GpuError> {
        lock(&self.fault).clone().map_or(Ok(()), Err)
    }

    /// Waits for everything submitted so far. For tests and benches: nothing in a step waits.
    ///
    /// # Errors
    /// If the device is lost or has failed.
    pub fn wait_idle(&self) -> Result<(), GpuError> {
        let outcome = self.raw.poll(wgpu::PollType::wait_indefinitely());
        self.check()?;
        let lost = |e: wgpu::PollError| GpuError::Lost { adapter: self.adapter.name.clone(), reason: e.to_string() };
        outcome.map(|_| ()).map_err(lost)
    }

    /// Simulates a lost device, as after a driver reset.
    pub fn destroy(&self) {
        self.raw.destroy();
        record(&self.fault, GpuError::Lost { adapter: self.adapter.name.clone(), reason: "destroyed".into() });
    }

    /// Submits what was recorded.
    pub(super) fn submit(&self, encoder: wgpu::CommandEncoder) -> wgpu::SubmissionIndex {
        self.submissions.fetch_add(1, Ordering::Relaxed);
        self.queue.submit([encoder.finish()])
    }

    /// Frees the driver's copies of bytes written by the host, by submitting them and waiting. In a browser nothing waits.
    pub(super) fn finish_uploads(&self) {
        self.queue.submit([]);
        // The next check reports an error.
        let _ = self.raw.poll(wgpu::PollType::wait_indefinitely());
    }

    /// Number of submissions since the device was opened.
    pub fn submissions(&self) -> u64 {
        self.submissions.load(Ordering::Relaxed)
    }
}

fn record(fault: &Mutex<Option<GpuError>>, error: GpuError) {
    lock(fault).get_or_insert(error);
}

fn watch(device: &wgpu::Device, adapter: &str, fault: &Arc<Mutex<Option<GpuError>>>) {
    let (name, sink) = (adapter.to_string(), fault.clone());
    device.set_device_lost_callback(move |_, reason| {
        record(&sink, GpuError::Lost { adapter: name.clone(), reason });
    });
    let (name, sink) = (adapter.to_string(), fault.clone());
    device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
        record(&sink, GpuError::Fault { adapter: name.clone(), message: error.to_string() });
    }));
}
