//! Many replays of a plan in one submission, each with its own inputs, with results read back in between.

use super::{Device, Download, GpuError, Memory, Plan, Role, Segment, Step, TensorId, persistent::Region, readback::Readback};

/// Bytes from the host that a submission copies to inputs between its replays.
#[derive(Default)]
pub(super) struct Upload {
    bytes: Vec<u8>,
    /// `None` until needed; then as large as the largest submission required.
    buffer: Option<wgpu::Buffer>,
}

impl Plan {
    /// Starts a submission of at most `replays` replays with separate inputs, which reads back `read_bytes` bytes.
    ///
    /// # Errors
    /// Any error reported so far.
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

    /// Bytes of the inputs of one replay, including its per-step scalars.
    pub fn input_bytes(&self) -> u64 {
        let inputs = self.program.tensors.iter().filter(|t| t.role == Role::Input);
        inputs.map(|t| t.bytes()).sum::<u64>() + size_of::<Step>() as u64
    }
}

/// A submission being recorded: replays of a plan with separate inputs, and the results read back in between.
///
/// Inputs are collected on the host and uploaded once; the submission copies them to their tensors at the point of each write.
pub struct Submission<'a> {
    plan: &'a mut Plan,
    device: &'a Device,
    memory: &'a mut Memory,
    upload: Upload,
    readback: Option<Readback>,
    encoder: wgpu::CommandEncoder,
}

impl Submission<'_> {
    /// Sets the elements of an input for the following replays.
    ///
    /// # Panics
    /// If the tensor is not part of the plan, the length differs, or the inputs exceed the announced replays.
    pub fn write(&mut self, tensor: TensorId, bytes: &[u8]) {
        let info = self.plan.program.tensor(tensor);
        assert_eq!(bytes.len() as u64, info.bytes(), "plan: bytes of {}", info.name);
        if let Some(region) = &self.plan.regions[tensor.0 as usize] {
            self.upload.copy(&mut self.encoder, region, bytes);
        }
    }

    /// Sets the per-step scalars for the following replays.
    pub fn set_step(&mut self, step: &Step) {
        self.upload.copy(&mut self.encoder, &Region::whole(self.plan.step.clone()), bytemuck::bytes_of(step));
    }

    /// Replays a segment.
    pub fn replay(&mut self, segment: Segment) {
        self.plan.replay(self.memory, &mut self.encoder, segment);
    }

    /// Reads tensors as they are at this point.
    ///
    /// # Panics
    /// If more is read than announced.
    pub fn read(&mut self, tensors: &[TensorId]) {
        let readback = self.readback.as_mut().expect("a submission that reads states the size");
        for tensor in tensors {
            if let Some(region) = &self.plan.regions[tensor.0 as usize] {
                readback.copy(&mut self.encoder, &region.buffer, region.offset, self.plan.program.tensor(*tensor).bytes());
            }
        }
    }

    /// Submits. Returns the read-back, if any, as one part; a later call reports errors.
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
    fn copy(&mut self, encoder: &mut wgpu::CommandEncoder, target: &Region, bytes: &[u8]) {
        let source = self.buffer.as_ref().expect("created at the start of the submission");
        encoder.copy_buffer_to_buffer(source, self.bytes.len() as u64, &target.buffer, target.offset, bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }
}
