//! What the files of a checkpoint are made of: their names, the manifest, and the rules that values and hashes follow. The files
//! themselves are [`checkpoint`](super::checkpoint)'s.

use std::{collections::BTreeMap, ops::RangeInclusive};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    checkpoint_error::CheckpointError,
    tensor_file::{NamedTensor, data_bytes},
};
use crate::run::{
    digest::{hex, sha256_hex},
    state::TrainState,
};

/// Name of the file with the parameters.
pub const MODEL: &str = "model.safetensors";
/// Name of the file with the optimizer's moments.
pub const OPTIMIZER: &str = "optim.safetensors";
/// Name of the file with the [`TrainState`].
pub const STATE: &str = "state.json";
/// Name of the file with the hashes of the others; it is written last.
pub const MANIFEST: &str = "manifest.json";
/// The files of a checkpoint in the order in which they are written.
pub const FILES: [&str; 4] = [MODEL, OPTIMIZER, STATE, MANIFEST];

pub(super) const FORMAT: &str = "moelab-checkpoint";
pub(super) const VERSION: u32 = 1;

/// Everything that a run needs to resume.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The parameters.
    pub tensors: Vec<NamedTensor>,
    /// The optimizer's moments.
    pub optimizer: Vec<NamedTensor>,
    /// The counters.
    pub state: TrainState,
}

/// Name and shape of exactly the tensors that a checkpoint of this model must have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The parameters.
    pub tensors: Vec<(String, Vec<usize>)>,
    /// The optimizer's moments.
    pub optimizer: Vec<(String, Vec<usize>)>,
}

impl Expected {
    /// The tensors of `snapshot`.
    pub fn of(snapshot: &Snapshot) -> Self {
        let specs = |tensors: &[NamedTensor]| tensors.iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
        Self { tensors: specs(&snapshot.tensors), optimizer: specs(&snapshot.optimizer) }
    }
}

/// The content of `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format: String,
    pub(super) version: u32,
    pub(super) files: BTreeMap<String, FileEntry>,
    /// Absent in checkpoints of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) log: Option<LogMark>,
}

impl Manifest {
    pub(super) fn new(log: Option<LogMark>) -> Self {
        Self { format: FORMAT.to_string(), version: VERSION, files: BTreeMap::new(), log }
    }

    pub(super) fn add(&mut self, file: &str, bytes: u64, sha256: String) {
        self.files.insert(file.to_string(), FileEntry { bytes, sha256 });
    }
}

/// The run's log when the checkpoint was saved, to detect a truncated or exchanged log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogMark {
    /// Number of its lines.
    pub lines: u64,
    /// SHA-256 over them, without their times.
    pub sha256: String,
    /// Check of the two values above, which no other file of the checkpoint covers.
    check: String,
}

impl LogMark {
    /// The mark of a number of lines with this hash.
    pub fn new(lines: u64, sha256: String) -> Self {
        let check = sha256_hex(format!("{lines} {sha256}").as_bytes());
        Self { lines, sha256, check }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileEntry {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// [`weights_sha256`](super::checkpoint::weights_sha256) of parameters whose bytes come in sequence, in the order of their names.
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

/// The input of [`weights_sha256`](super::checkpoint::weights_sha256) before the values of a tensor.
pub(super) fn hash_spec(hash: &mut Sha256, name: &str, shape: &[usize]) {
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name.as_bytes());
    hash.update((shape.len() as u64).to_le_bytes());
    for &side in shape {
        hash.update((side as u64).to_le_bytes());
    }
}

pub(super) fn json_bytes(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("maps have string keys and floats are written by `exact`");
    bytes.push(b'\n');
    bytes
}
