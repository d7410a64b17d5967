//! Tensors that outlive a step, shared by the plans of a run.

use std::collections::HashMap;

use super::{
    Device, Download, Program,
    memory::{MemoryPlan, SlotPool},
    representation::Representation,
};

/// Tensors that outlive a step (parameters, their gradients, optimizer state), by name.
#[derive(Default)]
pub struct Memory {
    index: HashMap<String, usize>,
    tensors: Vec<Stored>,
    /// The tensors that were written after their representations were refreshed.
    stale: Vec<usize>,
    /// Bytes written by the host since it last waited for the device because of them.
    uploaded: u64,
    /// What plans use while they run, one after another.
    pool: SlotPool,
    slots: Vec<wgpu::Buffer>,
    images: HashMap<[u32; 2], Vec<wgpu::Texture>>,
}

/// Maximum bytes that the host writes before it waits: until then the driver keeps a copy of them.
const MOST_UPLOADED: u64 = 8 << 20;

/// Where the elements of a tensor are.
#[derive(Clone)]
pub(super) struct Region {
    pub buffer: wgpu::Buffer,
    /// In bytes, a multiple of 256.
    pub offset: u64,
}

impl Region {
    /// From the start of a buffer.
    pub fn whole(buffer: wgpu::Buffer) -> Region {
        Region { buffer, offset: 0 }
    }
}

struct Stored {
    region: Region,
    bytes: u64,
    representations: Vec<(Representation, wgpu::Texture)>,
    is_stale: bool,
}

impl Memory {
    /// The index of a tensor.
    pub(super) fn find(&self, name: &str) -> usize {
        *self.index.get(name).unwrap_or_else(|| panic!("memory: no tensor {name}"))
    }

    /// The tensor of this name, in a buffer that `make` creates if there is no such tensor.
    ///
    /// # Panics
    /// If it exists with another size.
    pub(super) fn region(&mut self, name: &str, bytes: u64, make: impl FnOnce() -> wgpu::Buffer) -> Region {
        self.stored(name, bytes, || Region::whole(make()))
    }

    /// The tensor of this name, at an offset of another.
    ///
    /// # Panics
    /// If it exists elsewhere or with another size: the plan with the stack must be the first to be compiled.
    pub(super) fn part(&mut self, name: &str, bytes: u64, stack: &str, offset: u64) -> Region {
        let whole = self.tensors[self.find(stack)].region.buffer.clone();
        let region = self.stored(name, bytes, || Region { buffer: whole.clone(), offset });
        assert!(region.buffer == whole && region.offset == offset, "plans of one memory disagree on where {name} is");
        region
    }

    fn stored(&mut self, name: &str, bytes: u64, make: impl FnOnce() -> Region) -> Region {
        let index = *self.index.entry(name.to_string()).or_insert_with(|| {
            self.tensors.push(Stored { region: make(), bytes, representations: Vec::new(), is_stale: false });
            self.tensors.len() - 1
        });
        let stored = &self.tensors[index];
        assert_eq!(stored.bytes, bytes, "plans of one memory disagree on the size of {name}");
        stored.region.clone()
    }

    /// A representation of a tensor, created by `make` if it does not exist.
    pub(super) fn representation(&mut self, name: &str, form: Representation, make: impl FnOnce() -> wgpu::Texture) -> wgpu::Texture {
        let index = self.find(name);
        let known = self.tensors[index].representations.iter().find(|(known, _)| *known == form);
        if let Some((_, texture)) = known {
            return texture.clone();
        }
        let texture = make();
        self.tensors[index].representations.push((form, texture.clone()));
        self.note_write(index);
        texture
    }

    /// A buffer with its bytes for each slot of a plan; `make` creates those that no plan before it had.
    pub(super) fn slots(
        &mut self,
        program: &Program,
        plan: &MemoryPlan,
        make: impl Fn(usize, u64) -> wgpu::Buffer,
    ) -> Vec<(wgpu::Buffer, u64)> {
        let taken = self.pool.take(program, plan);
        for index in self.slots.len()..self.pool.bytes.len() {
            self.slots.push(make(index, self.pool.bytes[index]));
        }
        taken.into_iter().map(|slot| (self.slots[slot].clone(), self.pool.bytes[slot])).collect()
    }

    /// A texture for each of these extents, in texels, that no other of them has; `make` creates those that no list of commands before had.
    pub(super) fn images(&mut self, extents: &[[u32; 2]], make: impl Fn([u32; 2]) -> wgpu::Texture) -> Vec<wgpu::Texture> {
        let mut used: HashMap<[u32; 2], usize> = HashMap::new();
        let texture = |extent: &[u32; 2]| {
            let known = self.images.entry(*extent).or_default();
            let index = used.entry(*extent).or_default();
            if *index == known.len() {
                known.push(make(*extent));
            }
            *index += 1;
            known[*index - 1].clone()
        };
        extents.iter().map(texture).collect()
    }

    /// Marks the representations of a tensor as stale.
    pub(super) fn note_write(&mut self, index: usize) {
        if !std::mem::replace(&mut self.tensors[index].is_stale, true) {
            self.stale.push(index);
        }
    }

    /// Whether a plan has created a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
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
    /// If no plan has created the tensor, or the part is out of bounds.
    pub fn write_at(&mut self, device: &Device, name: &str, offset: u64, bytes: &[u8]) {
        let index = self.find(name);
        assert!(offset + bytes.len() as u64 <= self.tensors[index].bytes, "memory: bytes of {name}");
        let region = &self.tensors[index].region;
        device.queue.write_buffer(&region.buffer, region.offset + offset, bytes);
        self.note_write(index);
        self.uploaded += bytes.len() as u64;
        if self.uploaded >= MOST_UPLOADED {
            self.uploaded = 0;
            device.finish_uploads();
        }
    }

    /// Starts reading the current values of tensors.
    ///
    /// # Panics
    /// If no plan has created one of them.
    pub fn download(&self, device: &Device, names: &[String]) -> Download {
        let whole = |name: &String| {
            let stored = &self.tensors[self.find(name)];
            (&stored.region.buffer, stored.region.offset, stored.bytes)
        };
        Download::start(device, &names.iter().map(whole).collect::<Vec<_>>())
    }

    /// Starts reading the current values of parts of tensors: name, offset in bytes and length in bytes, multiples of 4.
    ///
    /// # Panics
    /// If no plan has created one of them, or a part is out of bounds.
    pub fn download_parts(&self, device: &Device, parts: &[(&str, u64, u64)]) -> Download {
        let part = |(name, offset, bytes): &(&str, u64, u64)| {
            let stored = &self.tensors[self.find(name)];
            assert!(offset + bytes <= stored.bytes, "memory: bytes of {name}");
            (&stored.region.buffer, stored.region.offset + *offset, *bytes)
        };
        Download::start(device, &parts.iter().map(part).collect::<Vec<_>>())
    }

    /// Records the refresh of stale representations.
    pub(super) fn refresh(&mut self, encoder: &mut wgpu::CommandEncoder) {
        for index in self.stale.drain(..) {
            let stored = &mut self.tensors[index];
            stored.is_stale = false;
            stored.representations.iter().for_each(|(_, texture)| copy_to_texels(encoder, &stored.region, texture));
        }
    }
}

/// Records the copy of a tensor to the texture that represents it.
pub(super) fn copy_to_texels(encoder: &mut wgpu::CommandEncoder, region: &Region, texture: &wgpu::Texture) {
    let size = texture.size();
    let layout = wgpu::TexelCopyBufferLayout { offset: region.offset, bytes_per_row: Some(size.width * 16), rows_per_image: None };
    encoder.copy_buffer_to_texture(wgpu::TexelCopyBufferInfo { buffer: &region.buffer, layout }, texture.as_image_copy(), size);
}
