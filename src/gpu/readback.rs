//! Reading results without waiting in a step: a copy is requested, and read once the driver has mapped it.
//!
//! Staging buffers are reused: every update reads the same number of bytes, so after a few updates no more are created.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU8, Ordering},
};

use super::{Device, GpuError};

const PENDING: u8 = 0;
const READY: u8 = 1;
const FAILED: u8 = 2;

/// How long a native wait lasts before the device is considered lost.
const TIMEOUT_SECONDS: u64 = 120;
/// The same where a processor is the device: it is never lost, and a large micro-batch takes minutes.
const PROCESSOR_TIMEOUT_SECONDS: u64 = 3600;

fn timeout_seconds(device: &Device) -> u64 {
    if device.adapter.is_processor() { PROCESSOR_TIMEOUT_SECONDS } else { TIMEOUT_SECONDS }
}

/// Unused staging buffers, kept for the next download of the same size.
#[derive(Default)]
pub(super) struct StagingRing(Mutex<Vec<Staging>>);

/// A staging buffer, and whether it is mapped.
#[derive(Clone)]
struct Staging {
    buffer: wgpu::Buffer,
    state: Arc<AtomicU8>,
}

impl StagingRing {
    /// The buffers, and their total size in bytes.
    const MOST: usize = 16;
    const MOST_BYTES: u64 = 16 << 20;

    fn take(&self, bytes: u64) -> Option<Staging> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.iter().position(|staging| staging.buffer.size() == bytes).map(|i| free.swap_remove(i))
    }

    fn put_back(&self, staging: Staging) {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: u64 = free.iter().map(|staging| staging.buffer.size()).sum();
        if kept + staging.buffer.size() <= Self::MOST_BYTES && free.len() < Self::MOST {
            staging.buffer.unmap();
            free.push(staging);
        }
    }
}

/// A staging buffer that is being filled by the commands of one submission.
pub(super) struct Readback {
    staging: Staging,
    filled: u64,
}

impl Readback {
    /// A staging buffer of `bytes` bytes, a multiple of 4.
    pub(super) fn new(device: &Device, bytes: u64) -> Readback {
        let new = || {
            let buffer = device.raw.create_buffer(&wgpu::BufferDescriptor {
                label: Some("download"),
                size: bytes,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            Staging { buffer, state: Arc::default() }
        };
        Readback { staging: device.staging.take(bytes).unwrap_or_else(new), filled: 0 }
    }

    /// Appends a copy of a part of a buffer.
    pub(super) fn copy(&mut self, encoder: &mut wgpu::CommandEncoder, buffer: &wgpu::Buffer, offset: u64, bytes: u64) {
        encoder.copy_buffer_to_buffer(buffer, offset, &self.staging.buffer, self.filled, bytes);
        self.filled += bytes;
    }

    /// Requests the bytes, after the submission of the copies.
    pub(super) fn map(self, device: &Device, sizes: Vec<u64>, submission: wgpu::SubmissionIndex) -> Download {
        self.staging.state.store(PENDING, Ordering::Release);
        let sink = self.staging.state.clone();
        self.staging.buffer.map_async(wgpu::MapMode::Read, .., move |result| {
            sink.store(if result.is_ok() { READY } else { FAILED }, Ordering::Release);
        });
        Download { staging: self.staging, sizes, ring: device.staging.clone(), submission }
    }
}

/// Bytes on their way from the device to the host.
pub struct Download {
    staging: Staging,
    /// The size of each part that [`Download::poll`] returns.
    sizes: Vec<u64>,
    ring: Arc<StagingRing>,
    submission: wgpu::SubmissionIndex,
}

impl Download {
    /// Copies parts of buffers (buffer, offset, bytes) as they are after everything submitted so far.
    pub(super) fn start(device: &Device, parts: &[(&wgpu::Buffer, u64, u64)]) -> Download {
        let mut readback = Readback::new(device, parts.iter().map(|(_, _, bytes)| bytes).sum());
        let mut encoder = device.raw.create_command_encoder(&Default::default());
        for (buffer, offset, bytes) in parts {
            readback.copy(&mut encoder, buffer, *offset, *bytes);
        }
        let submission = device.submit(encoder);
        readback.map(device, parts.iter().map(|(_, _, bytes)| *bytes).collect(), submission)
    }

    /// Passes the bytes of all buffers, concatenated, to `read`; `None` if they are not available yet. Never blocks.
    ///
    /// # Errors
    /// If the device is lost or faulty.
    pub fn poll_with<R>(&self, device: &Device, read: impl FnOnce(&[u8]) -> R) -> Result<Option<R>, GpuError> {
        // On the web this does nothing: callbacks come when control returns to the event loop.
        let _ = device.raw.poll(wgpu::PollType::Poll);
        device.check()?;
        self.take(device, read)
    }

    /// Waits until the bytes are available, but not for later submissions. Only works natively.
    ///
    /// # Errors
    /// Those of [`Download::wait`].
    pub fn wait_ready(&self, device: &Device) -> Result<(), GpuError> {
        let timeout = Some(std::time::Duration::from_secs(timeout_seconds(device)));
        let outcome = device.raw.poll(wgpu::PollType::Wait { submission_index: Some(self.submission.clone()), timeout });
        device.check()?;
        outcome.map(|_| ()).map_err(|_| self.timed_out(device))
    }

    /// Waits for the bytes. Only works natively: in a browser nothing may block.
    ///
    /// # Errors
    /// If the device is lost, faulty, or takes longer than two minutes, a processor longer than an hour.
    pub fn wait(&self, device: &Device) -> Result<Vec<Vec<u8>>, GpuError> {
        self.wait_ready(device)?;
        self.take(device, |bytes| self.split(bytes))?.ok_or_else(|| self.timed_out(device))
    }

    fn timed_out(&self, device: &Device) -> GpuError {
        GpuError::Timeout { adapter: device.adapter.name.clone(), seconds: timeout_seconds(device) }
    }

    fn take<R>(&self, device: &Device, read: impl FnOnce(&[u8]) -> R) -> Result<Option<R>, GpuError> {
        match self.staging.state.load(Ordering::Acquire) {
            PENDING => return Ok(None),
            READY => {}
            // The device was without a fault a moment ago, so nothing is wrong with the request: a browser may say so before it says that
            // the device is lost.
            _ => {
                let reason = "a result could not be read back".into();
                return Err(GpuError::Lost { adapter: device.adapter.name.clone(), reason });
            }
        }
        let fault = |e: wgpu::MapRangeError| GpuError::Fault { adapter: device.adapter.name.clone(), message: e.to_string() };
        let mapped = self.staging.buffer.get_mapped_range(..).map_err(fault)?;
        Ok(Some(read(&mapped)))
    }

    fn split(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut rest = bytes;
        let part = |size: &u64| {
            let (part, tail) = rest.split_at(*size as usize);
            rest = tail;
            part.to_vec()
        };
        self.sizes.iter().map(part).collect()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // An abandoned buffer may still be written to.
        if self.staging.state.load(Ordering::Acquire) == READY {
            self.ring.put_back(self.staging.clone());
        }
    }
}
