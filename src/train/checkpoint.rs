//! A checkpoint as bytes: weights, optimizer moments and counters, with a manifest to detect damage.
//!
//! | file | content |
//! |---|---|
//! | `model.safetensors` | the parameters, f32 |
//! | `optim.safetensors` | the optimizer's moments, f32 |
//! | `state.json` | [`TrainState`] |
//! | `manifest.json` | format version, size and SHA-256 of the three others, and a [`LogMark`] |
//!
//! safetensors itself carries no checksum and lets NaN through, so decoding trusts nothing: it checks the manifest (which must
//! equal the canonical form exactly, so that no flipped bit goes unnoticed), then size and hash of every file, then the tensors
//! (`super::tensor_file`). Errors have file, tensor, expected and found values; nothing panics on untrusted bytes. `lab::store`
//! stores the bytes.

use super::checkpoint_format::{FORMAT, FileEntry, Manifest, VERSION, WeightsHash, check_values, hash_spec, json_bytes};
use super::encoder::{Encoder, pieces};
use super::tensor_file::{HEAD_BYTES, Part, little_endian, parts};
use crate::ops::state_range;
use crate::run::digest::hex;
use crate::run::state::TrainState;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, VecDeque};

pub use super::checkpoint_error::CheckpointError;
pub use super::checkpoint_format::{Expected, FILES, LogMark, MANIFEST, MODEL, OPTIMIZER, STATE, Snapshot};
pub use super::tensor_file::NamedTensor;

const JSON_LIMIT_BYTES: usize = 1 << 20;

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

/// Decodes the files of a checkpoint, after [`verify`], and checks them against the tensors of the model.
///
/// Tensors come in the order of `expected`.
pub fn decode(files: &Files, expected: &Expected) -> Result<Snapshot, CheckpointError> {
    let state = read_state(files)?;
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

/// Reads the state alone, after [`verify`]: enough to determine whether a checkpoint belongs to a run before its model is built.
pub fn read_state(files: &Files) -> Result<TrainState, CheckpointError> {
    verify(files)?;
    read_json(STATE, file(files, STATE)?)
}

/// Checks that the files are unchanged: manifest, sizes, hashes. Does not depend on the model.
pub fn verify(files: &Files) -> Result<(), CheckpointError> {
    let manifest = read_manifest(file(files, MANIFEST)?)?;
    for (name, entry) in &manifest.files {
        check_entry(name, entry, file(files, name)?)?;
    }
    Ok(())
}

/// The mark of the log in a manifest; none in that of an earlier release.
pub fn read_log_mark(manifest: &[u8]) -> Result<Option<LogMark>, CheckpointError> {
    Ok(read_manifest(manifest)?.log)
}

/// The state, checked against the manifest, without reading the tensors.
pub fn peek_state(manifest: &[u8], state: &[u8]) -> Result<TrainState, CheckpointError> {
    let manifest = read_manifest(manifest)?;
    check_entry(STATE, &manifest.files[STATE], state)?;
    read_json(STATE, state)
}

fn read_manifest(bytes: &[u8]) -> Result<Manifest, CheckpointError> {
    let damaged = |problem: &str| CheckpointError::Json { file: MANIFEST.to_string(), problem: problem.to_string() };
    let manifest: Manifest = read_json(MANIFEST, bytes)?;
    if manifest.format != FORMAT {
        return Err(damaged("it is not the manifest of a moelab checkpoint"));
    }
    if manifest.version != VERSION {
        return Err(CheckpointError::Version { found: manifest.version, wanted: VERSION });
    }
    if json_bytes(&manifest) != bytes {
        return Err(damaged("its bytes have changed"));
    }
    if !manifest.files.keys().map(String::as_str).eq([MODEL, OPTIMIZER, STATE]) {
        return Err(damaged("it does not list exactly the files of a checkpoint"));
    }
    if manifest.log.as_ref().is_some_and(|log| *log != LogMark::new(log.lines, log.sha256.clone())) {
        return Err(damaged("its mark of the log has changed"));
    }
    Ok(manifest)
}

/// Lengths of the files with the parameters and the moments, according to a manifest.
pub(crate) fn tensor_file_bytes(manifest: &[u8]) -> Result<[u64; 2], CheckpointError> {
    let manifest = read_manifest(manifest)?;
    Ok([MODEL, OPTIMIZER].map(|file| manifest.files[file].bytes))
}

fn check_entry(name: &str, entry: &FileEntry, bytes: &[u8]) -> Result<(), CheckpointError> {
    let mut check = FileCheck::default();
    check.push(bytes);
    check.finish(name, entry)
}

/// A file that is being checked against its entry in the manifest.
#[derive(Default)]
struct FileCheck {
    bytes: u64,
    hash: Sha256,
}

impl FileCheck {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    fn finish(self, name: &str, entry: &FileEntry) -> Result<(), CheckpointError> {
        let (file, found) = (name.to_string(), self.bytes);
        if found != entry.bytes {
            return Err(CheckpointError::Size { file, wanted: entry.bytes, found });
        }
        let found = hex(&self.hash.finalize());
        if found != entry.sha256 {
            return Err(CheckpointError::Checksum { file, wanted: entry.sha256.clone(), found });
        }
        Ok(())
    }
}

/// [`verify`] for files that are read piece by piece.
pub struct Verification {
    files: VecDeque<(String, FileEntry)>,
    check: FileCheck,
}

impl Verification {
    /// Starts with the manifest.
    ///
    /// # Errors
    /// A manifest that is missing or damaged.
    pub fn new(manifest: Option<&[u8]>) -> Result<Verification, CheckpointError> {
        let manifest = manifest.ok_or_else(|| CheckpointError::Missing { file: MANIFEST.to_string() })?;
        Ok(Verification { files: read_manifest(manifest)?.files.into_iter().collect(), check: FileCheck::default() })
    }

    /// The file to be read, and the offset of its next piece; `None` once all files have been verified.
    pub fn next(&self) -> Option<(&str, u64)> {
        self.files.front().map(|(name, _)| (name.as_str(), self.check.bytes))
    }

    /// Checks the next piece of that file: an empty one at its end, `None` if the file does not exist.
    ///
    /// # Errors
    /// A file that is missing or damaged.
    pub fn push(&mut self, piece: Option<&[u8]>) -> Result<(), CheckpointError> {
        let Some((name, entry)) = self.files.front() else { return Ok(()) };
        match piece {
            None => return Err(CheckpointError::Missing { file: name.clone() }),
            Some([]) => std::mem::take(&mut self.check).finish(name, entry)?,
            Some(piece) => {
                self.check.push(piece);
                return Ok(());
            }
        }
        self.files.pop_front();
        Ok(())
    }
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

fn read_json<T: for<'de> Deserialize<'de>>(name: &str, bytes: &[u8]) -> Result<T, CheckpointError> {
    let file = name.to_string();
    if bytes.len() > JSON_LIMIT_BYTES {
        let (found, limit) = (bytes.len(), JSON_LIMIT_BYTES);
        return Err(CheckpointError::TooLarge { file, what: "its size in bytes", found, limit });
    }
    serde_json::from_slice(bytes).map_err(|error| CheckpointError::Json { file, problem: error.to_string() })
}
