//! Encodes the files of a checkpoint piece by piece as the bytes of its tensors arrive from the device, so that saving needs no second
//! copy of a model.
//!
//! A file is its safetensors header, which depends only on names and shapes, followed by its tensors in the order of their names
//! (the order that the official crate writes). Hashes are computed and values are checked as the bytes pass.

use std::{collections::VecDeque, ops::RangeInclusive};

use super::{
    checkpoint_values::{WeightsHash, check_values},
    tensor_file::{data_bytes, header_of, little_endian},
};
use crate::{
    gpu::{Device, Download, GpuError, Memory},
    ops::state_range,
    run::{
        checkpoint::{CheckpointError, Expected, LogMark, MODEL, Manifest, OPTIMIZER, PIECE_BYTES, STATE, Snapshot, json_bytes},
        digest::{hex, sha256_hex},
        state::TrainState,
    },
};
use sha2::{Digest, Sha256};

/// Number of pieces that are read from the device concurrently.
const PIECES_IN_FLIGHT: usize = 4;

/// A tensor's name and shape.
type Spec = (String, Vec<usize>);

fn sorted(specs: &[Spec]) -> Vec<Spec> {
    let mut specs = specs.to_vec();
    specs.sort();
    specs
}

/// Encodes a checkpoint from the pieces of its tensors' data: those of the parameters in the order of their names, then those of the
/// moments in the order of theirs. No piece has bytes of both.
pub struct Encoder {
    files: [TensorFile; 2],
    current: usize,
    manifest: Manifest,
    state: Vec<u8>,
    weights: WeightsHash,
}

/// The part of a file that results from a piece.
pub struct Encoded {
    /// Name of the file.
    pub file: &'static str,
    /// The header before the piece, if the file starts with it.
    pub header: Option<Vec<u8>>,
    /// Whether the file ends with the piece.
    pub ends: bool,
}

impl Encoder {
    /// A checkpoint of these tensors and this state.
    ///
    /// # Errors
    /// A duplicate name.
    pub fn new(expected: &Expected, state: &TrainState, log: Option<LogMark>) -> Result<Encoder, CheckpointError> {
        let files = [TensorFile::new(MODEL, &expected.tensors)?, TensorFile::new(OPTIMIZER, &expected.optimizer)?];
        let state = json_bytes(state);
        Ok(Encoder { files, current: 0, manifest: Manifest::new(log), state, weights: WeightsHash::new(&expected.tensors) })
    }

    /// Remaining bytes of the current file, or `None` after the last file.
    pub fn remaining(&self) -> Option<u64> {
        self.files.get(self.current).map(|file| file.remaining)
    }

    /// Bytes of all files except the manifest.
    pub fn total_bytes(&self) -> u64 {
        let of_file = |file: &TensorFile| file.header.len() as u64 + file.remaining;
        self.files.iter().map(of_file).sum::<u64>() + self.state.len() as u64
    }

    /// Encodes the next bytes of the current file; none if it has no data.
    ///
    /// # Errors
    /// A value that is not finite or out of range; more bytes than the file needs.
    pub fn push(&mut self, piece: &[u8]) -> Result<Encoded, CheckpointError> {
        let file = &mut self.files[self.current];
        let header = file.begin();
        file.push(piece)?;
        if file.name == MODEL {
            self.weights.update(piece);
        }
        let encoded = Encoded { file: file.name, header, ends: file.remaining == 0 };
        if encoded.ends {
            self.manifest.add(file.name, file.bytes, hex(&file.hash.finalize_reset()));
            self.current += 1;
        }
        Ok(encoded)
    }

    /// Hash of the parameters, state and manifest, after the last piece.
    pub fn finish(mut self) -> (String, Vec<u8>, Vec<u8>) {
        self.manifest.add(STATE, self.state.len() as u64, sha256_hex(&self.state));
        (self.weights.finish(), self.state, self.manifest.to_bytes())
    }
}

/// A safetensors file that is being encoded.
struct TensorFile {
    name: &'static str,
    tensors: Vec<Spec>,
    header: Vec<u8>,
    has_begun: bool,
    /// Remaining bytes of data.
    remaining: u64,
    /// Bytes so far, including the header.
    bytes: u64,
    hash: Sha256,
    /// Index of the current tensor, the range of its values, and the number of its bytes so far.
    tensor: usize,
    range: RangeInclusive<f32>,
    offset: usize,
}

impl TensorFile {
    fn new(name: &'static str, specs: &[Spec]) -> Result<TensorFile, CheckpointError> {
        let tensors = sorted(specs);
        if let Some([(twice, _), _]) = tensors.array_windows().find(|[one, other]| one.0 == other.0) {
            let problems = vec![format!("`{twice}` is duplicated")];
            return Err(CheckpointError::Tensors { file: name.to_string(), problems });
        }
        let header = header_of(name, &tensors)?;
        let remaining = tensors.iter().map(|(_, shape)| data_bytes(shape) as u64).sum();
        let (hash, range) = (Sha256::new(), f32::MIN..=f32::MAX);
        Ok(TensorFile { name, tensors, header, has_begun: false, remaining, bytes: 0, hash, tensor: 0, range, offset: 0 })
    }

    fn begin(&mut self) -> Option<Vec<u8>> {
        if std::mem::replace(&mut self.has_begun, true) {
            return None;
        }
        self.hash.update(&self.header);
        self.bytes = self.header.len() as u64;
        self.enter();
        Some(std::mem::take(&mut self.header))
    }

    /// Advances to the next tensor with data.
    fn enter(&mut self) {
        while let Some((name, shape)) = self.tensors.get(self.tensor) {
            if data_bytes(shape) > 0 {
                self.range = if self.name == OPTIMIZER { state_range(name) } else { f32::MIN..=f32::MAX };
                return;
            }
            self.tensor += 1;
        }
    }

    fn push(&mut self, piece: &[u8]) -> Result<(), CheckpointError> {
        let Some(remaining) = self.remaining.checked_sub(piece.len() as u64) else {
            let problem = format!("{} bytes too many were given for it", piece.len() as u64 - self.remaining);
            return Err(CheckpointError::Header { file: self.name.to_string(), problem });
        };
        self.hash.update(piece);
        self.bytes += piece.len() as u64;
        let mut rest = piece;
        while !rest.is_empty() {
            let (name, shape) = &self.tensors[self.tensor];
            let whole = data_bytes(shape);
            let (part, behind) = rest.split_at(rest.len().min(whole - self.offset));
            check_values(self.name, name, self.offset / 4, part, &self.range)?;
            self.offset += part.len();
            if self.offset == whole {
                (self.tensor, self.offset) = (self.tensor + 1, 0);
                self.enter();
            }
            rest = behind;
        }
        self.remaining = remaining;
        Ok(())
    }
}

/// The pieces of a snapshot in memory, of at most `bytes` bytes each, in the order of [`Encoder`].
///
/// # Errors
/// A tensor whose data does not fit its shape.
pub fn pieces(snapshot: &Snapshot, bytes: usize) -> Result<impl Iterator<Item = Vec<u8>> + '_, CheckpointError> {
    for (file, tensors) in [(MODEL, &snapshot.tensors), (OPTIMIZER, &snapshot.optimizer)] {
        if let Some(tensor) = tensors.iter().find(|tensor| data_bytes(&tensor.shape) != size_of_val(tensor.data.as_slice())) {
            let problem = format!("`{}` {:?} has {} values", tensor.name, tensor.shape, tensor.data.len());
            return Err(CheckpointError::Header { file: file.to_string(), problem });
        }
    }
    let expected = Expected::of(snapshot);
    let mut requests = Requests::new(&expected, bytes);
    let piece = move || {
        let parts = requests.next()?;
        let find = |(name, offset, length): &(String, u64, u64)| {
            let tensor = snapshot.tensors.iter().chain(&snapshot.optimizer).find(|tensor| tensor.name == *name)?;
            let data = little_endian(&tensor.data);
            Some(data[*offset as usize..(*offset + *length) as usize].to_vec())
        };
        Some(parts.iter().filter_map(find).flatten().collect())
    };
    Ok(std::iter::from_fn(piece))
}

/// The parts of tensors of which each piece consists: name, offset and length in bytes.
struct Requests {
    files: VecDeque<VecDeque<(String, u64)>>,
    /// The parts from the first tensor of the first file on.
    offset: u64,
    piece_bytes: u64,
}

impl Requests {
    fn new(expected: &Expected, piece_bytes: usize) -> Requests {
        let sizes = |specs: &[Spec]| {
            let sizes = sorted(specs).into_iter().map(|(name, shape)| (name, data_bytes(&shape) as u64));
            sizes.filter(|(_, bytes)| *bytes > 0).collect()
        };
        let files = [&expected.tensors, &expected.optimizer].map(|specs| sizes(specs)).into();
        Requests { files, offset: 0, piece_bytes: (piece_bytes as u64 / 4).max(1) * 4 }
    }

    fn next(&mut self) -> Option<Vec<(String, u64, u64)>> {
        while self.files.front()?.is_empty() {
            self.files.pop_front();
        }
        let file = self.files.front_mut()?;
        let (mut parts, mut room) = (Vec::new(), self.piece_bytes);
        while let Some((name, bytes)) = file.front().filter(|_| room > 0) {
            let length = room.min(bytes - self.offset);
            parts.push((name.clone(), self.offset, length));
            (self.offset, room) = (self.offset + length, room - length);
            if self.offset == *bytes {
                file.pop_front();
                self.offset = 0;
            }
        }
        Some(parts)
    }
}

/// Reads the tensors of a run from its device, piece by piece, in the order of [`Encoder`]. They must not change meanwhile.
pub(super) struct SnapshotReader {
    requests: Requests,
    pending: VecDeque<Download>,
}

impl SnapshotReader {
    pub(super) fn new(expected: &Expected) -> SnapshotReader {
        SnapshotReader { requests: Requests::new(expected, PIECE_BYTES), pending: VecDeque::new() }
    }

    /// The remaining parts.
    pub(super) fn oldest(&self) -> Option<&Download> {
        self.pending.front()
    }

    /// The next piece, or `None` if it is not available yet, and after the last. Also requests the following pieces.
    pub(super) fn poll(&mut self, device: &Device, memory: &Memory) -> Result<Option<Vec<u8>>, GpuError> {
        while self.pending.len() < PIECES_IN_FLIGHT
            && let Some(parts) = self.requests.next()
        {
            let parts: Vec<(&str, u64, u64)> = parts.iter().map(|(name, offset, bytes)| (name.as_str(), *offset, *bytes)).collect();
            self.pending.push_back(memory.download_parts(device, &parts));
        }
        let Some(download) = self.pending.front() else { return Ok(None) };
        let piece = download.poll_with(device, <[u8]>::to_vec)?;
        if piece.is_some() {
            self.pending.pop_front();
        }
        Ok(piece)
    }
}
