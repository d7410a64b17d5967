//! The values of a checkpoint's tensors: their hash, and their valid range. The files are [`checkpoint`](super::checkpoint)'s.

use std::ops::RangeInclusive;

use sha2::{Digest, Sha256};

use super::tensor_file::data_bytes;
use crate::run::{checkpoint::CheckpointError, digest::hex};

/// The hash of parameters ([`read_tensors`](super::checkpoint::read_tensors)) whose bytes come in sequence, in the order of their names.
pub(super) struct WeightsHash {
    hash: Sha256,
    /// The remaining ones, the next one last: name, shape, and bytes.
    specs: Vec<(String, Vec<usize>)>,
    /// Remaining bytes of the current one.
    left: usize,
}

impl WeightsHash {
    pub(super) fn new(specs: &[(String, Vec<usize>)]) -> Self {
        let mut specs = specs.to_vec();
        specs.sort_by(|a, b| b.0.cmp(&a.0));
        let mut new = Self { hash: Sha256::new(), specs, left: 0 };
        new.enter();
        new
    }

    fn enter(&mut self) {
        while self.left == 0
            && let Some((name, shape)) = self.specs.pop()
        {
            hash_spec(&mut self.hash, &name, &shape);
            self.left = data_bytes(&shape);
        }
    }

    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.left > 0 {
            let (part, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.hash.update(part);
            self.left -= part.len();
            self.enter();
            bytes = rest;
        }
    }

    pub(super) fn finish(self) -> String {
        hex(&self.hash.finalize())
    }
}

/// Refuses the first of some little-endian values that is out of range; `first` is the index of the first in the tensor.
pub(super) fn check_values(
    file: &str,
    tensor: &str,
    first: usize,
    bytes: &[u8],
    range: &RangeInclusive<f32>,
) -> Result<(), CheckpointError> {
    let values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    values.enumerate().try_for_each(|(index, value)| check_value(file, tensor, first + index, value, range))
}

/// Refuses a value that is out of range or not finite.
#[inline]
fn check_value(file: &str, tensor: &str, element: usize, value: f32, range: &RangeInclusive<f32>) -> Result<(), CheckpointError> {
    if range.contains(&value) {
        return Ok(());
    }
    let (file, tensor) = (file.to_string(), tensor.to_string());
    Err(match value.is_finite() {
        true => {
            let (least, most) = (range.start(), range.end());
            let wanted = if *most == f32::MAX { format!("{least} or more") } else { format!("{least} to {most}") };
            CheckpointError::OutOfRange { file, tensor, element, value: value.to_string(), wanted }
        }
        false => CheckpointError::NonFinite { file, tensor, element, value: value.to_string() },
    })
}

/// The input of the hash before the values of a tensor.
fn hash_spec(hash: &mut Sha256, name: &str, shape: &[usize]) {
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name.as_bytes());
    hash.update((shape.len() as u64).to_le_bytes());
    for &side in shape {
        hash.update((side as u64).to_le_bytes());
    }
}
