//! A checkpoint as bytes: what [`run::checkpoint`](crate::run::checkpoint) describes, encoded and decoded.
//!
//! safetensors itself carries no checksum and lets NaN through, so decoding trusts nothing: it checks the manifest, then size and hash of
//! every file, then the tensors (`super::tensor_file`). Errors have file, tensor, expected and found values; nothing panics on untrusted
//! bytes. `lab::store` stores the bytes.

use super::checkpoint_values::{WeightsHash, check_values, hash_spec};
use super::encoder::{Encoder, pieces};
use super::tensor_file::{HEAD_BYTES, Part, little_endian, parts};
use crate::ops::state_range;
use crate::run::checkpoint::{Manifest, Verification};
use crate::run::digest::hex;
use crate::run::state::TrainState;
use sha2::{Digest, Sha256};
use std::collections::HashMap;

pub use crate::run::checkpoint::{CheckpointError, Expected, FILES, LogMark, MANIFEST, MODEL, NamedTensor, OPTIMIZER, STATE, Snapshot};

/// The files of one checkpoint: name and content.
pub type Files = Vec<(String, Vec<u8>)>;

/// Turns a snapshot into the four files, in the order of writing.
///
/// The result is deterministic. A snapshot that [`decode`] would refuse (a non-finite value, a negative mean of squares,
/// a name twice, a shape that does not fit its data) is refused here, so that a broken state never replaces an intact one.
pub fn encode(snapshot: &Snapshot, log: Option<LogMark>) -> Result<Files, CheckpointError> {
    let mut encoder = Encoder::new(&Expected::of(snapshot), &snapshot.state, log)?;
    let mut pieces = pieces(snapshot, usize::MAX)?;
    let mut files = Files::new();
    while let Some(remaining) = encoder.remaining() {
        let piece = if remaining > 0 { pieces.next().unwrap_or_default() } else { Vec::new() };
        let encoded = encoder.push(&piece)?;
        files.push((encoded.file.to_string(), [encoded.header.unwrap_or_default(), piece].concat()));
    }
    let (_, state, manifest) = encoder.finish();
    files.extend([(STATE.to_string(), state), (MANIFEST.to_string(), manifest)]);
    Ok(files)
}

/// Decodes the files of a checkpoint once they are found to be unchanged, and checks them against the tensors of the model.
///
/// Tensors come in the order of `expected`.
pub fn decode(files: &Files, expected: &Expected) -> Result<Snapshot, CheckpointError> {
    let state = verified_state(files)?;
    let lengths = [file(files, MODEL)?.len() as u64, file(files, OPTIMIZER)?.len() as u64];
    let mut read = |name: &str, offset: u64, bytes: usize| {
        let content = file(files, name)?;
        let start = content.len().min(offset as usize);
        Ok::<_, CheckpointError>(Some(content[start..content.len().min(start + bytes)].to_vec()))
    };
    let mut collected = Collected::new(expected);
    read_tensors(lengths, expected, usize::MAX, &mut read, &mut |name, offset, bytes| collected.take(name, offset, bytes))?;
    Ok(collected.finish(expected, state))
}

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

/// Reads the tensors of the files of the given lengths part by part and passes them on; returns the result of [`weights_sha256`].
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

/// The state, once all files are found to be unchanged. Does not depend on the model.
fn verified_state(files: &Files) -> Result<TrainState, CheckpointError> {
    let mut verification = Verification::new(Some(file(files, MANIFEST)?))?;
    while let Some((name, offset)) = verification.next() {
        let rest = &file(files, name)?[offset as usize..];
        verification.push(Some(rest))?;
    }
    Manifest::from_bytes(file(files, MANIFEST)?)?.state(file(files, STATE)?)
}

/// SHA-256 over all tensors in the order of their names: name, shape and little-endian values, each length first.
///
/// Two models have the same hash only if every weight has the same bits.
pub fn weights_sha256(tensors: &[NamedTensor]) -> String {
    let mut sorted: Vec<&NamedTensor> = tensors.iter().collect();
    sorted.sort_by(|a, b| a.name.cmp(&b.name));
    let mut hash = Sha256::new();
    for tensor in sorted {
        hash_spec(&mut hash, &tensor.name, &tensor.shape);
        hash.update(little_endian(&tensor.data));
    }
    hex(&hash.finalize())
}

fn file<'a>(files: &'a Files, name: &str) -> Result<&'a [u8], CheckpointError> {
    let found = files.iter().find(|(file, _)| file == name);
    found.map(|(_, bytes)| bytes.as_slice()).ok_or_else(|| CheckpointError::Missing { file: name.to_string() })
}
