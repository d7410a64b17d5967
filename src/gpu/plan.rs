//! A program compiled for a device: buffers, bind groups and pipelines are created once and replayed every step.
//!
//! Guarantees: a replay allocates nothing and waits for nothing; planned and unplanned memory have bit-equal results;
//! representations are current whenever a kernel reads them. Persistent tensors live in a [`Memory`] that plans of one run
//! (training, evaluation, sampling) share by name.
//!
//! Long because compiling, replaying and profiling a plan share its private parts.

use std::collections::{BTreeSet, HashMap};

use super::{
    Command, Compilation, Device, Dispatch, Download, GpuError, Program, Role, Step, TensorId,
    memory::{MemoryPlan, plan_memory},
    persistent::{Memory, Region, copy_to_texels},
    pipelines::Kernel,
    representation::{Represented, plan_images, representations_of, schedule_refreshes, texels},
    submission::Upload,
};

/// Offsets of uniform bindings are multiples of this at browser default limits.
const UNIFORM_ALIGNMENT: usize = 256;

/// A part of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Clears the gradients of parameters, at the start of an update.
    ClearGradients,
    /// Forward and backward of one micro-batch.
    Micro,
    /// Clip and optimizers.
    Update,
}

/// Options for compilation. None of them affects the results.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// Whether activations share storage.
    pub share_memory: bool,
    /// Maximum replays of a segment in one submission.
    pub most_replays: usize,
}

impl Default for PlanOptions {
    fn default() -> Self {
        PlanOptions { share_memory: true, most_replays: 256 }
    }
}

enum Action {
    Launch { pipeline: wgpu::ComputePipeline, group: wgpu::BindGroup, workgroups: [u32; 3], label: String },
    Clear { region: Region, bytes: u64 },
    Copy { source: Region, target: Region, bytes: u64 },
    Refresh { region: Region, texture: wgpu::Texture },
}

/// A compiled program.
pub struct Plan {
    lists: [Vec<Action>; 3],
    /// Persistent tensors that each list writes, by their index in the memory.
    written: [Vec<usize>; 3],
    pub(super) regions: Vec<Option<Region>>,
    pub(super) program: Program,
    slots: Vec<(wgpu::Buffer, u64)>,
    pub(super) step: wgpu::Buffer,
    step_group: wgpu::BindGroup,
    pub(super) upload: Upload,
}

/// The time of one kernel in a profiled replay.
#[derive(Clone, Debug)]
pub struct KernelTime {
    /// `module.entry`, or the kind of another command.
    pub label: String,
    /// Milliseconds, including the submission.
    pub milliseconds: f64,
}

impl Plan {
    /// Creates buffers, bind groups and pipelines.
    ///
    /// # Errors
    /// A tensor too large for the adapter, or an error of the driver.
    pub fn compile(device: &Device, program: &Program, memory: &mut Memory, options: PlanOptions) -> Result<Plan, GpuError> {
        let memory_plan = plan_memory(program, options.share_memory);
        check_sizes(device, program)?;
        Compilation::of(device, &[program]).complete(device);
        let slot = |index: usize, bytes: u64| storage(device, &format!("slot {index}"), bytes);
        let slots = match options.share_memory {
            true => memory.slots(program, &memory_plan, slot),
            false => memory_plan.slot_bytes.iter().enumerate().map(|(index, bytes)| (slot(index, *bytes), *bytes)).collect(),
        };
        let regions = tensor_regions(device, program, memory, &memory_plan, &slots);
        let step = device.raw.create_buffer(&wgpu::BufferDescriptor {
            label: Some("step"),
            size: size_of::<Step>() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let step_group = device.raw.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("step"),
            layout: &device.pipelines.step_layout,
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: step.as_entire_binding() }],
        });
        let mut builder = Builder { device, program, memory, regions: &regions, share: options.share_memory };
        let clear = builder.clear_gradients();
        let micro = builder.list(&program.micro);
        let update = builder.list(&program.update);
        let written = [&[], &program.micro[..], &program.update].map(|commands| written_by(program, memory, commands));
        device.check()?;
        let program = program.clone();
        let upload = Upload::default();
        Ok(Plan { lists: [clear, micro, update], written, regions, program, slots, step, step_group, upload })
    }

    /// Replays segments in one submission with these per-step scalars, on inputs that [`Plan::write`] set.
    ///
    /// # Errors
    /// Any error reported so far; a later call reports errors of this submission.
    pub fn submit(&self, device: &Device, memory: &mut Memory, step: &Step, segments: &[Segment]) -> Result<(), GpuError> {
        device.check()?;
        device.queue.write_buffer(&self.step, 0, bytemuck::bytes_of(step));
        let mut encoder = device.raw.create_command_encoder(&Default::default());
        for segment in segments {
            self.replay(memory, &mut encoder, *segment);
        }
        device.submit(encoder);
        Ok(())
    }

    /// Total bytes of these tensors.
    pub fn bytes_of(&self, tensors: &[TensorId]) -> u64 {
        tensors.iter().map(|t| self.program.tensor(*t).bytes()).sum()
    }

    /// Commands of a segment.
    pub fn commands(&self, segment: Segment) -> usize {
        self.lists[segment as usize].len()
    }

    pub(super) fn replay(&self, memory: &mut Memory, encoder: &mut wgpu::CommandEncoder, segment: Segment) {
        memory.refresh(encoder);
        self.encode(encoder, &self.lists[segment as usize]);
        self.written[segment as usize].iter().for_each(|index| memory.note_write(*index));
    }

    fn encode(&self, encoder: &mut wgpu::CommandEncoder, actions: &[Action]) {
        let mut rest = actions;
        while let Some(first) = rest.first() {
            match first {
                Action::Clear { region, bytes } => encoder.clear_buffer(&region.buffer, region.offset, Some(*bytes)),
                Action::Copy { source, target, bytes } => {
                    encoder.copy_buffer_to_buffer(&source.buffer, source.offset, &target.buffer, target.offset, *bytes)
                }
                Action::Refresh { region, texture } => copy_to_texels(encoder, region, texture),
                Action::Launch { .. } => {
                    let count = rest.iter().take_while(|a| matches!(a, Action::Launch { .. })).count();
                    let mut pass = encoder.begin_compute_pass(&Default::default());
                    pass.set_bind_group(1, &self.step_group, &[]);
                    for action in &rest[..count] {
                        if let Action::Launch { pipeline, group, workgroups: [x, y, z], .. } = action {
                            pass.set_pipeline(pipeline);
                            pass.set_bind_group(0, group, &[]);
                            pass.dispatch_workgroups(*x, *y, *z);
                        }
                    }
                    drop(pass);
                    rest = &rest[count..];
                    continue;
                }
            }
            rest = &rest[1..];
        }
    }

    /// Sets the elements of an input of this plan.
    ///
    /// # Panics
    /// If the tensor is not part of the plan or the length differs.
    pub fn write(&self, device: &Device, tensor: TensorId, bytes: &[u8]) {
        let info = self.program.tensor(tensor);
        assert_eq!(bytes.len() as u64, info.bytes(), "plan: bytes of {}", info.name);
        if let Some(region) = &self.regions[tensor.0 as usize] {
            device.queue.write_buffer(&region.buffer, region.offset, bytes);
        }
    }

    /// Starts reading tensors as they are after everything submitted so far. Planned activations share storage:
    /// tensors that the host reads must be outputs.
    pub fn download(&self, device: &Device, tensors: &[TensorId]) -> Download {
        let find = |t: &TensorId| self.regions[t.0 as usize].as_ref().map(|r| (&r.buffer, r.offset, self.program.tensor(*t).bytes()));
        Download::start(device, &tensors.iter().filter_map(find).collect::<Vec<_>>())
    }

    /// Fills everything that a step must write before it reads with NaN, so that tests detect missing writes.
    pub fn poison(&self, device: &Device) {
        let outputs = self.program.tensors.iter().enumerate().filter(|(_, t)| t.role == Role::Output);
        let outputs = outputs.filter_map(|(i, t)| self.regions[i].clone().map(|r| (r.buffer, t.bytes())));
        for (buffer, bytes) in self.slots.iter().cloned().chain(outputs) {
            let nan = vec![0x7fc0_0123_u32; (bytes / 4) as usize];
            device.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&nan));
        }
    }

    /// Replays one segment command by command, waiting for each, and returns the time of each by the caller's clock
    /// (seconds). For benches: a wait costs some hundred microseconds, which `overhead` of an empty one measures.
    ///
    /// # Errors
    /// As [`Plan::submit`].
    pub fn profile(
        &self,
        device: &Device,
        memory: &mut Memory,
        step: &Step,
        segment: Segment,
        now: &dyn Fn() -> f64,
    ) -> Result<Vec<KernelTime>, GpuError> {
        self.submit(device, memory, step, &[])?;
        let mut times = Vec::new();
        let mut encoder = device.raw.create_command_encoder(&Default::default());
        memory.refresh(&mut encoder);
        device.submit(encoder);
        for action in &self.lists[segment as usize] {
            device.wait_idle()?;
            let start = now();
            let mut encoder = device.raw.create_command_encoder(&Default::default());
            self.encode(&mut encoder, std::slice::from_ref(action));
            device.submit(encoder);
            device.wait_idle()?;
            let label = match action {
                Action::Launch { label, .. } => label.clone(),
                Action::Clear { .. } => "clear".into(),
                Action::Copy { .. } => "copy".into(),
                Action::Refresh { .. } => "copy to image".into(),
            };
            times.push(KernelTime { label, milliseconds: (now() - start) * 1e3 });
        }
        self.written[segment as usize].iter().for_each(|index| memory.note_write(*index));
        Ok(times)
    }
}

fn storage(device: &Device, label: &str, bytes: u64) -> wgpu::Buffer {
    device.raw.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: bytes.next_multiple_of(16),
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    })
}

fn check_sizes(device: &Device, program: &Program) -> Result<(), GpuError> {
    let most = device.adapter.max_binding_bytes;
    match program.tensors.iter().max_by_key(|t| t.bytes()) {
        Some(t) if t.bytes() > most => Err(GpuError::Limit {
            what: format!("bytes of tensor `{}` {:?}", t.name, t.shape),
            wanted: t.bytes(),
            found: most,
            adapter: device.adapter.name.clone(),
            remedy: match t.role.is_kept() {
                true => "Its size depends on the model, not on the batch: use a narrower model, fewer experts or a smaller vocabulary, or another adapter",
                false => "Use a smaller batch with more accumulation, a shorter sequence, or a narrower model",
            }
            .into(),
        }),
        _ => Ok(()),
    }
}

/// Indices in the memory, ascending.
fn written_by(program: &Program, memory: &Memory, commands: &[Command]) -> Vec<usize> {
    let uses = commands.iter().flat_map(Command::uses).filter(|(_, access, _)| access.writes());
    let tensors = uses.map(|(id, _, _)| program.tensor(id)).filter(|t| t.role.is_kept());
    let indices: BTreeSet<usize> = tensors.map(|t| memory.find(&t.name)).collect();
    indices.into_iter().collect()
}

/// The storage of each tensor: in the memory if it is kept, a slot if planned, a buffer of its own otherwise.
fn tensor_regions(
    device: &Device,
    program: &Program,
    memory: &mut Memory,
    plan: &MemoryPlan,
    slots: &[(wgpu::Buffer, u64)],
) -> Vec<Option<Region>> {
    // Parts are found in their stacks.
    for stack in program.tensors.iter().filter(|t| t.role == Role::Stack) {
        memory.region(&stack.name, stack.bytes(), || storage(device, &stack.name, stack.bytes()));
    }
    let region_of = |(index, info): (usize, &super::TensorInfo)| {
        if let Some((stack, offset)) = info.within {
            return Some(memory.part(&info.name, info.bytes(), &program.tensor(stack).name, offset));
        }
        if info.role.is_kept() {
            return Some(memory.region(&info.name, info.bytes(), || storage(device, &info.name, info.bytes())));
        }
        if info.role.is_planned() {
            return plan.slot_of[index].map(|slot| Region::whole(slots[slot].0.clone()));
        }
        let buffer = storage(device, &info.name, info.bytes());
        if let Some(values) = &info.values {
            device.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(values));
        }
        Some(Region::whole(buffer))
    };
    program.tensors.iter().enumerate().map(region_of).collect()
}

struct Builder<'a> {
    device: &'a Device,
    program: &'a Program,
    memory: &'a mut Memory,
    regions: &'a [Option<Region>],
    share: bool,
}

impl Builder<'_> {
    fn region(&self, id: TensorId) -> Region {
        self.regions[id.0 as usize].clone().expect("a used tensor has storage")
    }

    /// Those in a stack are cleared with it.
    fn clear_gradients(&self) -> Vec<Action> {
        let tensors = &self.program.tensors;
        let gradients = (0..).map(TensorId).zip(tensors).filter(|(_, t)| t.role == Role::ParameterGradient);
        let cleared: BTreeSet<TensorId> = gradients.map(|(id, t)| t.within.map_or(id, |(stack, _)| stack)).collect();
        let clear = |id: TensorId| Action::Clear { region: self.region(id), bytes: self.program.tensor(id).bytes() };
        cleared.into_iter().map(clear).collect()
    }

    fn list(&mut self, commands: &[Command]) -> Vec<Action> {
        let is_current = |key: Represented| self.program.tensor(key.tensor).role.is_kept();
        let refreshes = schedule_refreshes(commands, is_current);
        let textures = self.textures(commands, &refreshes);
        let uniforms = self.uniforms(commands);
        let mut actions = Vec::new();
        let mut offset = 0;
        for (index, command) in commands.iter().enumerate() {
            for key in &refreshes[index] {
                actions.push(Action::Refresh { region: self.region(key.tensor), texture: textures[&(*key, index)].clone() });
            }
            actions.push(match command {
                Command::Clear(id) => Action::Clear { region: self.region(*id), bytes: self.program.tensor(*id).bytes() },
                Command::Copy { source, target } => {
                    Action::Copy { source: self.region(*source), target: self.region(*target), bytes: self.program.tensor(*source).bytes() }
                }
                Command::Dispatch(d) => {
                    let texture = |key: Represented| current(&textures, key, index);
                    let action = self.launch(d, &uniforms, offset, texture);
                    offset += d.params.len().next_multiple_of(UNIFORM_ALIGNMENT);
                    action
                }
            });
        }
        actions
    }

    /// All `Params` of a list in one buffer.
    fn uniforms(&self, commands: &[Command]) -> wgpu::Buffer {
        let mut bytes = Vec::new();
        for command in commands {
            if let Command::Dispatch(d) = command {
                bytes.extend_from_slice(&d.params);
                bytes.resize(bytes.len().next_multiple_of(UNIFORM_ALIGNMENT), 0);
            }
        }
        let buffer = self.device.raw.create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size: bytes.len().max(UNIFORM_ALIGNMENT) as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        self.device.queue.write_buffer(&buffer, 0, &bytes);
        buffer
    }

    fn launch(&self, d: &Dispatch, uniforms: &wgpu::Buffer, offset: usize, texture: impl Fn(Represented) -> wgpu::Texture) -> Action {
        let label = d.kernel.name();
        let pipeline = self.device.pipelines.get(&Kernel { info: d.kernel, constants: d.constants.clone() });
        let mut views = Vec::new();
        for (t, _, kind) in d.uses() {
            views.push(Represented::of(t, kind).map(|key| texture(key).create_view(&Default::default())));
        }
        let regions: Vec<_> = d.tensors.iter().map(|t| self.region(t.id)).collect();
        let mut entries = Vec::new();
        if !d.params.is_empty() {
            let size = std::num::NonZeroU64::new(d.params.len() as u64);
            let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: uniforms, offset: offset as u64, size });
            entries.push(wgpu::BindGroupEntry { binding: 0, resource });
        }
        for (((t, b), view), region) in d.tensors.iter().zip(d.kernel.bindings).zip(&views).zip(&regions) {
            let size = std::num::NonZeroU64::new(t.bytes());
            let resource = match view {
                Some(view) => wgpu::BindingResource::TextureView(view),
                None => wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: &region.buffer, offset: region.offset, size }),
            };
            entries.push(wgpu::BindGroupEntry { binding: b.binding, resource });
        }
        let descriptor = wgpu::BindGroupDescriptor { label: Some(&label), layout: &pipeline.layout, entries: &entries };
        let group = self.device.raw.create_bind_group(&descriptor);
        Action::Launch { pipeline: pipeline.raw, group, workgroups: d.workgroups, label }
    }

    /// A texture for every (representation, command from which it is current). Those of persistent tensors are in the memory, under
    /// command 0; the others share textures of equal extent whose lifetimes do not overlap.
    fn textures(&mut self, commands: &[Command], refreshes: &[Vec<Represented>]) -> HashMap<(Represented, usize), wgpu::Texture> {
        let mut textures = HashMap::new();
        let keys: BTreeSet<Represented> = commands.iter().flat_map(representations_of).collect();
        for key in keys {
            let info = self.program.tensor(key.tensor);
            if info.role.is_kept() {
                let make = || texture(self.device, &info.name, texels(self.program, key));
                let texture = self.memory.representation(&info.name, key.form, make);
                textures.insert((key, 0), texture.clone());
                for (index, list) in refreshes.iter().enumerate() {
                    if list.contains(&key) {
                        textures.insert((key, index), texture.clone());
                    }
                }
            }
        }
        let plan = plan_images(self.program, commands, refreshes, self.share);
        let make = |extent: [u32; 2]| texture(self.device, "image", extent);
        let images = match self.share {
            true => self.memory.images(&plan.textures, make),
            false => plan.textures.iter().copied().map(make).collect(),
        };
        textures.extend(plan.texture_of.into_iter().map(|(place, slot)| (place, images[slot].clone())));
        textures
    }
}

/// The texture of the latest refresh at or before a command.
fn current(textures: &HashMap<(Represented, usize), wgpu::Texture>, key: Represented, index: usize) -> wgpu::Texture {
    let latest = textures.iter().filter(|((k, at), _)| *k == key && *at <= index).max_by_key(|((_, at), _)| *at);
    latest.map(|(_, texture)| texture.clone()).expect("a representation is refreshed before it is read")
}

/// A texture for a representation.
fn texture(device: &Device, label: &str, [width, height]: [u32; 2]) -> wgpu::Texture {
    let read = if device.pipelines.storage_images { wgpu::TextureUsages::STORAGE_BINDING } else { wgpu::TextureUsages::TEXTURE_BINDING };
    device.raw.create_texture(&wgpu::TextureDescriptor {
        label: Some(label),
        size: wgpu::Extent3d { width, height, depth_or_array_layers: 1 },
        mip_level_count: 1,
        sample_count: 1,
        dimension: wgpu::TextureDimension::D2,
        format: wgpu::TextureFormat::Rgba32Float,
        usage: read | wgpu::TextureUsages::COPY_DST,
        view_formats: &[],
    })
}
