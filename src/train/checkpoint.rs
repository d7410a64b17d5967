//! Reading the tensors of a checkpoint ([`run::checkpoint`](crate::run::checkpoint)), part by part.
//!
//! safetensors itself carries no checksum and lets NaN through, so reading trusts nothing: after the manifest has been verified, the
//! headers are bounded and compared with the model (`super::tensor_file`), and every value must be finite and in its range. Errors have
//! file, tensor, expected and found values; nothing panics on untrusted bytes. `lab::store` stores the bytes.

use super::checkpoint_values::{WeightsHash, check_values};
use super::tensor_file::{HEAD_BYTES, Part, parts};
use crate::ops::state_range;
use crate::run::checkpoint::{CheckpointError, Expected, MODEL, NamedTensor, OPTIMIZER, Snapshot};
use crate::run::state::TrainState;
use std::collections::HashMap;

/// Receives a part of a tensor: name, offset in bytes, and its bytes.
pub type Take<'a> = &'a mut dyn FnMut(&str, u64, &[u8]);

/// Reads a part of a file: name, offset and length in bytes. Shorter at the end of the file, `None` if the file does not exist.
pub type Read<'a, E> = &'a mut dyn FnMut(&str, u64, usize) -> Result<Option<Vec<u8>>, E>;

/// A part of a tensor in a file of a checkpoint.
pub(crate) struct TensorPart {
    pub file: &'static str,
    pub at: u64,
    pub bytes: usize,
    tensor: String,
    offset: u64,
}

/// The positions of the tensors in the files of the given lengths: the parameters in the order of their names, then the moments.
pub(crate) fn tensor_parts<E: From<CheckpointError>>(
    lengths: [u64; 2],
    expected: &Expected,
    part_bytes: usize,
    read: Read<E>,
) -> Result<Vec<TensorPart>, E> {
    let mut all = Vec::new();
    for ((file, specs), length) in [(MODEL, &expected.tensors), (OPTIMIZER, &expected.optimizer)].into_iter().zip(lengths) {
        let missing = || CheckpointError::Missing { file: file.to_string() };
        let mut head = read(file, 0, 8)?.ok_or_else(missing)?;
        if let Some(header_bytes) = head.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes)) {
            // A longer file is refused because of its length.
            let most = header_bytes.min(HEAD_BYTES as u64) as usize;
            head.extend(read(file, 8, most)?.ok_or_else(missing)?);
        }
        let parts = parts(file, &head, length, specs, part_bytes)?;
        all.extend(parts.into_iter().map(|Part { tensor, offset, at, bytes }| TensorPart { file, at, bytes, tensor, offset }));
    }
    Ok(all)
}

/// Reads the tensors of the files of the given lengths part by part and passes them on; returns the hash of
/// the weights.
pub(crate) fn read_tensors<E: From<CheckpointError>>(
    lengths: [u64; 2],
    expected: &Expected,
    part_bytes: usize,
    read: Read<E>,
    take: Take,
) -> Result<String, E> {
    let mut weights = WeightsHash::new(&expected.tensors);
    for part in tensor_parts(lengths, expected, part_bytes, &mut *read)? {
        let TensorPart { file, at, bytes, tensor, offset } = part;
        let piece = read(file, at, bytes)?.unwrap_or_default();
        let range = if file == OPTIMIZER { state_range(&tensor) } else { f32::MIN..=f32::MAX };
        check_values(file, &tensor, offset as usize / 4, &piece, &range)?;
        if file == MODEL {
            weights.update(&piece);
        }
        take(&tensor, offset, &piece);
    }
    Ok(weights.finish())
}

/// Tensors that are being collected in memory.
pub(crate) struct Collected(HashMap<String, Vec<f32>>);

impl Collected {
    pub(crate) fn new(expected: &Expected) -> Self {
        let tensors = expected.tensors.iter().chain(&expected.optimizer);
        Self(tensors.map(|(name, shape)| (name.clone(), Vec::with_capacity(shape.iter().product()))).collect())
    }

    /// See [`Take`]; parts come in order, or start over.
    pub(crate) fn take(&mut self, name: &str, offset: u64, bytes: &[u8]) {
        if let Some(data) = self.0.get_mut(name) {
            data.truncate(offset as usize / 4);
            data.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        }
    }

    pub(crate) fn finish(mut self, expected: &Expected, state: TrainState) -> Snapshot {
        let mut named = |specs: &[(String, Vec<usize>)]| -> Vec<NamedTensor> {
            let tensor = |(name, shape): &(String, Vec<usize>)| {
                let data = self.0.remove(name).unwrap_or_default();
                NamedTensor { name: name.clone(), shape: shape.clone(), data }
            };
            specs.iter().map(tensor).collect()
        };
        Snapshot { tensors: named(&expected.tensors), optimizer: named(&expected.optimizer), state }
    }
}
