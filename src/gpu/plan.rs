//! A program compiled for a device: buffers, bind groups and pipelines made once, replayed every step.
//!
//! Guaranteed: a replay allocates nothing and waits for nothing; planned and unplanned memory give equal bits;
//! representations are current wherever a kernel reads them. Persistent tensors live in a [`Memory`] that plans of one run
//! (training, evaluation, sampling) share by name.
//!
//! Long because compiling, replaying and profiling a plan share its private parts.

use std::collections::{BTreeSet, HashMap};

use super::{
    Command, Device, Dispatch, Download, GpuError, Program, Role, Step, TensorId,
    memory::{MemoryPlan, plan_memory},
    readback::Readback,
    representation::{Representation, Represented, representations_of, schedule_refreshes},
};

/// Offsets of uniform bindings are multiples of this at browser default limits.
const UNIFORM_ALIGNMENT: usize = 256;

/// Tensors that outlive a step (parameters, their gradients, optimizer state), by name.
#[derive(Default)]
pub struct Memory {
    index: HashMap<String, usize>,
    tensors: Vec<Stored>,
    /// Of `tensors`, those that were written after their representations were refreshed.
    stale: Vec<usize>,
    /// Bytes written by the host since the device was last waited for because of them.
    uploaded: u64,
}

/// Most bytes that the host writes before it waits: until then the driver keeps a copy of them.
const MOST_UPLOADED: u64 = 8 << 20;

struct Stored {
    buffer: wgpu::Buffer,
    bytes: u64,
    representations: Vec<(Representation, wgpu::Texture)>,
    is_stale: bool,
}

impl Memory {
    fn find(&self, name: &str) -> usize {
        *self.index.get(name).unwrap_or_else(|| panic!("memory: no tensor {name}"))
    }

    fn note_write(&mut self, index: usize) {
        if !std::mem::replace(&mut self.tensors[index].is_stale, true) {
            self.stale.push(index);
        }
    }

    /// Sets a tensor's elements.
    ///
    /// # Panics
    /// If no plan has created it, or the length differs.
    pub fn write(&mut self, device: &Device, name: &str, bytes: &[u8]) {
        assert_eq!(bytes.len() as u64, self.tensors[self.find(name)].bytes, "memory: bytes of {name}");
        self.write_at(device, name, 0, bytes);
    }

    /// Sets a part of a tensor, from the byte at `offset`; offset and length are multiples of 4.
    ///
    /// # Panics
    /// If no plan has created the tensor, or the part lies outside of it.
    pub fn write_at(&mut self, device: &Device, name: &str, offset: u64, bytes: &[u8]) {
        let index = self.find(name);
        assert!(offset + bytes.len() as u64 <= self.tensors[index].bytes, "memory: bytes of {name}");
        device.queue.write_buffer(&self.tensors[index].buffer, offset, bytes);
        self.note_write(index);
        self.uploaded += bytes.len() as u64;
        if self.uploaded >= MOST_UPLOADED {
            self.uploaded = 0;
            device.finish_uploads();
        }
    }

    /// Starts reading tensors as they are now.
    ///
    /// # Panics
    /// If no plan has created one of them.
    pub fn download(&self, device: &Device, names: &[String]) -> Download {
        let whole = |name: &String| {
            let stored = &self.tensors[self.find(name)];
            (&stored.buffer, 0, stored.bytes)
        };
        Download::start(device, &names.iter().map(whole).collect::<Vec<_>>())
    }

    /// Starts reading parts of tensors as they are now: name, offset in bytes and length in bytes, multiples of 4.
    ///
    /// # Panics
    /// If no plan has created one of them, or a part lies outside of its tensor.
    pub fn download_parts(&self, device: &Device, parts: &[(&str, u64, u64)]) -> Download {
        let part = |(name, offset, bytes): &(&str, u64, u64)| {
            let stored = &self.tensors[self.find(name)];
            assert!(offset + bytes <= stored.bytes, "memory: bytes of {name}");
            (&stored.buffer, *offset, *bytes)
        };
        Download::start(device, &parts.iter().map(part).collect::<Vec<_>>())
    }

    /// Bytes held.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.iter().map(|stored| stored.bytes).sum()
    }
}

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

/// How to compile. No choice changes a bit of the results.
#[derive(Clone, Copy, Debug)]
pub struct PlanOptions {
    /// Let activations share storage. Off: each has its own.
    pub share_memory: bool,
    /// Most replays of a segment in one submission.
    pub most_replays: usize,
}

impl Default for PlanOptions {
    fn default() -> Self {
        PlanOptions { share_memory: true, most_replays: 256 }
    }
}

enum Action {
    Launch { pipeline: wgpu::ComputePipeline, group: wgpu::BindGroup, workgroups: [u32; 3], label: String },
    Clear { buffer: wgpu::Buffer, bytes: u64 },
    Copy { source: wgpu::Buffer, target: wgpu::Buffer, bytes: u64 },
    Refresh { buffer: wgpu::Buffer, texture: wgpu::Texture },
}

/// A compiled program.
pub struct Plan {
    lists: [Vec<Action>; 3],
    /// Persistent tensors that each list writes, by their index in the memory.
    written: [Vec<usize>; 3],
    buffers: Vec<Option<wgpu::Buffer>>,
    program: Program,
    slots: Vec<(wgpu::Buffer, u64)>,
    memory_plan: MemoryPlan,
    step: wgpu::Buffer,
    step_group: wgpu::BindGroup,
    upload: Upload,
}

/// Bytes from the host that a submission copies into inputs as it proceeds: many replays with inputs of their own fit one submission.
#[derive(Default)]
struct Upload {
    bytes: Vec<u8>,
    /// `None` until a submission has needed it; then as large as the largest one needed.
    buffer: Option<wgpu::Buffer>,
}

/// How long one kernel took in a profiled replay.
#[derive(Clone, Debug)]
pub struct KernelTime {
    /// `module.entry`, or what else the command was.
    pub label: String,
    /// Milliseconds, submission included.
    pub milliseconds: f64,
}

impl Plan {
    /// Creates buffers, bind groups and pipelines.
    ///
    /// # Errors
    /// A tensor too large for the adapter, or whatever the driver reports while creating.
    pub fn compile(device: &Device, program: &Program, memory: &mut Memory, options: PlanOptions) -> Result<Plan, GpuError> {
        let memory_plan = plan_memory(program, options.share_memory);
        check_sizes(device, program)?;
        let mut slots = Vec::new();
        for (index, bytes) in memory_plan.slot_bytes.iter().enumerate() {
            slots.push((storage(device, &format!("slot {index}"), *bytes), *bytes));
        }
        let buffers = tensor_buffers(device, program, memory, &memory_plan, &slots);
        let step = device.raw.create_buffer(&wgpu::BufferDescriptor {
            label: Some("step"),
            size: size_of::<Step>() as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let step_group = device.raw.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("step"),
            layout: &device.step_layout,
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: step.as_entire_binding() }],
        });
        let mut builder = Builder { device, program, memory, buffers: &buffers, share: options.share_memory };
        let clear = builder.clear_gradients();
        let micro = builder.list(&program.micro);
        let update = builder.list(&program.update);
        let written = [&[], &program.micro[..], &program.update].map(|commands| written_by(program, memory, commands));
        device.check()?;
        let program = program.clone();
        let upload = Upload::default();
        Ok(Plan { lists: [clear, micro, update], written, buffers, program, slots, memory_plan, step, step_group, upload })
    }

    /// Replays segments in one submission with these per-step scalars, on inputs that [`Plan::write`] set.
    ///
    /// # Errors
    /// Any fault reported so far; faults of this submission are reported by a later call.
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

    /// Begins a submission of at most `replays` replays with inputs of their own, which reads back `read_bytes` bytes.
    ///
    /// # Errors
    /// Any fault reported so far.
    pub fn begin<'a>(
        &'a mut self,
        device: &'a Device,
        memory: &'a mut Memory,
        replays: usize,
        read_bytes: u64,
    ) -> Result<Submission<'a>, GpuError> {
        device.check()?;
        let bytes = replays as u64 * self.input_bytes();
        if self.upload.buffer.as_ref().is_none_or(|buffer| buffer.size() < bytes) {
            self.upload.buffer = Some(device.raw.create_buffer(&wgpu::BufferDescriptor {
                label: Some("upload"),
                size: bytes,
                usage: wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            }));
        }
        let upload = Upload { bytes: std::mem::take(&mut self.upload.bytes), buffer: self.upload.buffer.clone() };
        let readback = (read_bytes > 0).then(|| Readback::new(device, read_bytes));
        let encoder = device.raw.create_command_encoder(&Default::default());
        Ok(Submission { plan: self, device, memory, upload, readback, encoder })
    }

    /// Bytes that the inputs of one replay have, its per-step scalars included.
    pub fn input_bytes(&self) -> u64 {
        let inputs = self.program.tensors.iter().filter(|t| t.role == Role::Input);
        inputs.map(|t| t.bytes()).sum::<u64>() + size_of::<Step>() as u64
    }

    /// Bytes of these tensors together.
    pub fn bytes_of(&self, tensors: &[TensorId]) -> u64 {
        tensors.iter().map(|t| self.program.tensor(*t).bytes()).sum()
    }

    /// Commands of a segment.
    pub fn commands(&self, segment: Segment) -> usize {
        self.lists[segment as usize].len()
    }

    /// The program that was compiled.
    pub fn program(&self) -> &Program {
        &self.program
    }

    fn replay(&self, memory: &mut Memory, encoder: &mut wgpu::CommandEncoder, segment: Segment) {
        refresh_stale(memory, encoder);
        self.encode(encoder, &self.lists[segment as usize]);
        self.written[segment as usize].iter().for_each(|index| memory.note_write(*index));
    }

    fn encode(&self, encoder: &mut wgpu::CommandEncoder, actions: &[Action]) {
        let mut rest = actions;
        while let Some(first) = rest.first() {
            match first {
                Action::Clear { buffer, bytes } => encoder.clear_buffer(buffer, 0, Some(*bytes)),
                Action::Copy { source, target, bytes } => encoder.copy_buffer_to_buffer(source, 0, target, 0, *bytes),
                Action::Refresh { buffer, texture } => copy_to_texels(encoder, buffer, texture),
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
        if let Some(buffer) = &self.buffers[tensor.0 as usize] {
            device.queue.write_buffer(buffer, 0, bytes);
        }
    }

    /// Starts reading tensors as they are after everything submitted so far. Planned activations share storage:
    /// make what the host reads an output.
    pub fn download(&self, device: &Device, tensors: &[TensorId]) -> Download {
        let find = |t: &TensorId| self.buffers[t.0 as usize].as_ref().map(|b| (b, 0, self.program.tensor(*t).bytes()));
        Download::start(device, &tensors.iter().filter_map(find).collect::<Vec<_>>())
    }

    /// Fills everything that a step must write before it reads with NaN, so that a test sees what it does not write.
    pub fn poison(&self, device: &Device) {
        let outputs = self.program.tensors.iter().enumerate().filter(|(_, t)| t.role == Role::Output);
        let outputs = outputs.filter_map(|(i, t)| self.buffers[i].clone().map(|b| (b, t.bytes())));
        for (buffer, bytes) in self.slots.iter().cloned().chain(outputs) {
            let nan = vec![0x7fc0_0123_u32; (bytes / 4) as usize];
            device.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&nan));
        }
    }

    /// Bytes of planned activations.
    pub fn activation_bytes(&self) -> u64 {
        self.memory_plan.total_bytes()
    }

    /// Replays one segment command by command, waiting for each, and tells how long each took by the caller's clock
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
        refresh_stale(memory, &mut encoder);
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

/// One submission being recorded: replays of a plan, each with inputs of its own, and what is read back in between.
///
/// Inputs are collected on the host and uploaded once; the submission copies them to their tensors where they were written.
pub struct Submission<'a> {
    plan: &'a mut Plan,
    device: &'a Device,
    memory: &'a mut Memory,
    upload: Upload,
    readback: Option<Readback>,
    encoder: wgpu::CommandEncoder,
}

impl Submission<'_> {
    /// Sets the elements of an input from here on.
    ///
    /// # Panics
    /// If the tensor is not part of the plan, the length differs, or more inputs are written than were announced.
    pub fn write(&mut self, tensor: TensorId, bytes: &[u8]) {
        let info = self.plan.program.tensor(tensor);
        assert_eq!(bytes.len() as u64, info.bytes(), "plan: bytes of {}", info.name);
        if let Some(buffer) = &self.plan.buffers[tensor.0 as usize] {
            self.upload.copy(&mut self.encoder, buffer, bytes);
        }
    }

    /// Sets the per-step scalars from here on.
    pub fn set_step(&mut self, step: &Step) {
        self.upload.copy(&mut self.encoder, &self.plan.step, bytemuck::bytes_of(step));
    }

    /// Replays a segment.
    pub fn replay(&mut self, segment: Segment) {
        self.plan.replay(self.memory, &mut self.encoder, segment);
    }

    /// Reads tensors as they are at this point.
    ///
    /// # Panics
    /// If more is read than was announced.
    pub fn read(&mut self, tensors: &[TensorId]) {
        let readback = self.readback.as_mut().expect("a submission that reads announces how much");
        for tensor in tensors {
            if let Some(buffer) = &self.plan.buffers[tensor.0 as usize] {
                readback.copy(&mut self.encoder, buffer, 0, self.plan.program.tensor(*tensor).bytes());
            }
        }
    }

    /// Submits. Returns what was read, if something was, in one part; faults are reported by a later call.
    pub fn submit(mut self) -> Option<Download> {
        if let Some(buffer) = self.upload.buffer.as_ref().filter(|_| !self.upload.bytes.is_empty()) {
            self.device.queue.write_buffer(buffer, 0, &self.upload.bytes);
        }
        self.upload.bytes.clear();
        self.plan.upload = self.upload;
        let submission = self.device.submit(self.encoder);
        self.readback.map(|readback| readback.map(self.device, Vec::new(), submission))
    }
}

impl Upload {
    fn copy(&mut self, encoder: &mut wgpu::CommandEncoder, target: &wgpu::Buffer, bytes: &[u8]) {
        let source = self.buffer.as_ref().expect("made when the submission began");
        encoder.copy_buffer_to_buffer(source, self.bytes.len() as u64, target, 0, bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }
}

fn refresh_stale(memory: &mut Memory, encoder: &mut wgpu::CommandEncoder) {
    for index in memory.stale.drain(..) {
        let stored = &mut memory.tensors[index];
        stored.is_stale = false;
        stored.representations.iter().for_each(|(_, texture)| copy_to_texels(encoder, &stored.buffer, texture));
    }
}

fn copy_to_texels(encoder: &mut wgpu::CommandEncoder, buffer: &wgpu::Buffer, texture: &wgpu::Texture) {
    let size = texture.size();
    let layout = wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(size.width * 16), rows_per_image: None };
    encoder.copy_buffer_to_texture(wgpu::TexelCopyBufferInfo { buffer, layout }, texture.as_image_copy(), size);
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
            remedy: match is_persistent(t.role) {
                true => "Its size follows from the model, not from the batch: use a narrower model, fewer experts or a smaller vocabulary, or another adapter",
                false => "Use a smaller batch with more accumulation, a shorter sequence, or a narrower model",
            }
            .into(),
        }),
        _ => Ok(()),
    }
}

fn is_persistent(role: Role) -> bool {
    matches!(role, Role::Parameter | Role::ParameterGradient | Role::State)
}

/// Indices in the memory, ascending.
fn written_by(program: &Program, memory: &Memory, commands: &[Command]) -> Vec<usize> {
    let uses = commands.iter().flat_map(Command::uses).filter(|(_, access, _)| access.writes());
    let tensors = uses.map(|(id, _, _)| program.tensor(id)).filter(|t| is_persistent(t.role));
    let indices: BTreeSet<usize> = tensors.map(|t| memory.find(&t.name)).collect();
    indices.into_iter().collect()
}

/// One buffer a tensor: from memory if persistent, a slot if planned, its own otherwise.
fn tensor_buffers(
    device: &Device,
    program: &Program,
    memory: &mut Memory,
    plan: &MemoryPlan,
    slots: &[(wgpu::Buffer, u64)],
) -> Vec<Option<wgpu::Buffer>> {
    let buffer_of = |(index, info): (usize, &super::TensorInfo)| {
        if is_persistent(info.role) {
            let index = *memory.index.entry(info.name.clone()).or_insert_with(|| {
                let buffer = storage(device, &info.name, info.bytes());
                memory.tensors.push(Stored { buffer, bytes: info.bytes(), representations: Vec::new(), is_stale: false });
                memory.tensors.len() - 1
            });
            let stored = &memory.tensors[index];
            assert_eq!(stored.bytes, info.bytes(), "plans of one memory disagree on the size of {}", info.name);
            return Some(stored.buffer.clone());
        }
        if info.role.is_planned() {
            return plan.slot_of[index].map(|slot| slots[slot].0.clone());
        }
        let buffer = storage(device, &info.name, info.bytes());
        if let Some(values) = &info.values {
            device.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(values));
        }
        Some(buffer)
    };
    program.tensors.iter().enumerate().map(buffer_of).collect()
}

struct Builder<'a> {
    device: &'a Device,
    program: &'a Program,
    memory: &'a mut Memory,
    buffers: &'a [Option<wgpu::Buffer>],
    share: bool,
}

impl Builder<'_> {
    fn buffer(&self, id: TensorId) -> wgpu::Buffer {
        self.buffers[id.0 as usize].clone().expect("a used tensor has a buffer")
    }

    fn clear_gradients(&self) -> Vec<Action> {
        let gradients = self.program.tensors.iter().enumerate().filter(|(_, t)| t.role == Role::ParameterGradient);
        gradients.map(|(i, t)| Action::Clear { buffer: self.buffer(TensorId(i as u32)), bytes: t.bytes() }).collect()
    }

    fn list(&mut self, commands: &[Command]) -> Vec<Action> {
        let is_kept = |key: Represented| is_persistent(self.program.tensor(key.tensor).role);
        let refreshes = schedule_refreshes(commands, is_kept);
        let textures = self.textures(commands, &refreshes);
        let uniforms = self.uniforms(commands);
        let mut actions = Vec::new();
        let mut offset = 0;
        for (index, command) in commands.iter().enumerate() {
            for key in &refreshes[index] {
                actions.push(Action::Refresh { buffer: self.buffer(key.tensor), texture: textures[&(*key, index)].clone() });
            }
            actions.push(match command {
                Command::Clear(id) => Action::Clear { buffer: self.buffer(*id), bytes: self.program.tensor(*id).bytes() },
                Command::Copy { source, target } => {
                    Action::Copy { source: self.buffer(*source), target: self.buffer(*target), bytes: self.program.tensor(*source).bytes() }
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
        let pipeline = self.device.pipeline(d.kernel, &d.constants);
        let mut views = Vec::new();
        for (t, _, kind) in d.uses() {
            views.push(Represented::of(t, kind).map(|key| texture(key).create_view(&Default::default())));
        }
        let buffers: Vec<_> = d.tensors.iter().map(|t| self.buffer(t.id)).collect();
        let mut entries = Vec::new();
        if !d.params.is_empty() {
            let size = std::num::NonZeroU64::new(d.params.len() as u64);
            let resource = wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: uniforms, offset: offset as u64, size });
            entries.push(wgpu::BindGroupEntry { binding: 0, resource });
        }
        for (((t, b), view), buffer) in d.tensors.iter().zip(d.kernel.bindings).zip(&views).zip(&buffers) {
            let size = std::num::NonZeroU64::new(t.bytes());
            let resource = match view {
                Some(view) => wgpu::BindingResource::TextureView(view),
                None => wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: 0, size }),
            };
            entries.push(wgpu::BindGroupEntry { binding: b.binding, resource });
        }
        let descriptor = wgpu::BindGroupDescriptor { label: Some(&label), layout: &pipeline.layout, entries: &entries };
        let group = self.device.raw.create_bind_group(&descriptor);
        Action::Launch { pipeline: pipeline.raw, group, workgroups: d.workgroups, label }
    }

    fn texture(&self, key: Represented) -> wgpu::Texture {
        let info = self.program.tensor(key.tensor);
        self.device.raw.create_texture(&wgpu::TextureDescriptor {
            label: Some(&info.name),
            size: self.extent(key),
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: wgpu::TextureFormat::Rgba32Float,
            usage: wgpu::TextureUsages::TEXTURE_BINDING | wgpu::TextureUsages::COPY_DST,
            view_formats: &[],
        })
    }

    fn extent(&self, key: Represented) -> wgpu::Extent3d {
        let elements = self.program.tensor(key.tensor).shape.len();
        let Representation::Texels { width } = key.form;
        wgpu::Extent3d { width: width / 4, height: elements / width, depth_or_array_layers: 1 }
    }

    /// A texture for every (representation, command from which it is current). Those of persistent tensors live in the memory, under
    /// command 0; the others share textures of equal extent whose lifetimes do not overlap.
    fn textures(&mut self, commands: &[Command], refreshes: &[Vec<Represented>]) -> HashMap<(Represented, usize), wgpu::Texture> {
        let mut textures = HashMap::new();
        let mut last_read: HashMap<Represented, Vec<usize>> = HashMap::new();
        for (index, command) in commands.iter().enumerate() {
            for key in representations_of(command) {
                last_read.entry(key).or_default().push(index);
            }
        }
        let mut keys: Vec<_> = last_read.keys().copied().collect();
        keys.sort();
        for key in keys {
            let info = self.program.tensor(key.tensor);
            if is_persistent(info.role) {
                let stored = self.memory.find(&info.name);
                let known = self.memory.tensors[stored].representations.iter().find(|(form, _)| *form == key.form);
                let texture = match known {
                    Some((_, texture)) => texture.clone(),
                    None => {
                        let texture = self.texture(key);
                        self.memory.tensors[stored].representations.push((key.form, texture.clone()));
                        self.memory.note_write(stored);
                        texture
                    }
                };
                textures.insert((key, 0), texture.clone());
                for (index, list) in refreshes.iter().enumerate() {
                    if list.contains(&key) {
                        textures.insert((key, index), texture.clone());
                    }
                }
            }
        }
        let mut pool: Vec<(wgpu::Texture, usize)> = Vec::new();
        for (index, list) in refreshes.iter().enumerate() {
            for key in list.iter().filter(|key| !is_persistent(self.program.tensor(key.tensor).role)) {
                let next = (index + 1..refreshes.len()).find(|i| refreshes[*i].contains(key)).unwrap_or(usize::MAX);
                let last = last_read[key].iter().copied().rfind(|r| *r < next).unwrap_or(index);
                let extent = self.extent(*key);
                let free = pool.iter_mut().find(|(t, until)| self.share && *until < index && t.size() == extent);
                let texture = match free {
                    Some((texture, until)) => {
                        *until = last;
                        texture.clone()
                    }
                    None => {
                        pool.push((self.texture(*key), last));
                        pool[pool.len() - 1].0.clone()
                    }
                };
                textures.insert((*key, index), texture);
            }
        }
        textures
    }
}

/// The texture of the latest refresh at or before a command.
fn current(textures: &HashMap<(Represented, usize), wgpu::Texture>, key: Represented, index: usize) -> wgpu::Texture {
    let latest = textures.iter().filter(|((k, at), _)| *k == key && *at <= index).max_by_key(|((_, at), _)| *at);
    latest.map(|(_, texture)| texture.clone()).expect("a representation is refreshed before it is read")
}
