//! A checkpoint as plain data: the names of its files, its tensors and its manifest, and how the files are verified.
//!
//! | file | content |
//! |---|---|
//! | `model.safetensors` | the parameters, f32 |
//! | `optim.safetensors` | the optimizer's moments, f32 |
//! | `state.json` | [`TrainState`] |
//! | `manifest.json` | format version, size and SHA-256 of the three others, and a [`LogMark`] |
//!
//! The hash of the weights, by which runs are compared, is the SHA-256 over the parameters in the order of their names: name, shape and
//! little-endian values, each length first. Two models have the same hash only if every weight has the same bits.
//!
//! The manifest must equal its canonical form exactly, so that no flipped bit goes unnoticed. Encoding and decoding the tensors needs
//! the feature `engine`.

mod error;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    digest::{hex, sha256_hex},
    state::TrainState,
};

pub use error::CheckpointError;

/// Name of the file with the parameters.
pub const MODEL: &str = "model.safetensors";
/// Name of the file with the optimizer's moments.
pub const OPTIMIZER: &str = "optim.safetensors";
/// Name of the file with the [`TrainState`].
pub const STATE: &str = "state.json";
/// Name of the file with the hashes of the others; it is written last.
pub const MANIFEST: &str = "manifest.json";

/// Bytes of a piece of a file: reading, checking, hashing and writing one takes about a millisecond.
pub const PIECE_BYTES: usize = 1 << 18;

const FORMAT: &str = "moelab-checkpoint";
const VERSION: u32 = 1;
const JSON_LIMIT_BYTES: usize = 1 << 20;

/// One tensor with its name in the parameter tree.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Name, unique within its file.
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// The values, one per element.
    pub data: Vec<f32>,
}

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
pub struct Manifest {
    format: String,
    version: u32,
    files: BTreeMap<String, FileEntry>,
    /// The run's log; absent in checkpoints of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogMark>,
}

impl Manifest {
    /// A manifest without files.
    pub fn new(log: Option<LogMark>) -> Self {
        Self { format: FORMAT.to_string(), version: VERSION, files: BTreeMap::new(), log }
    }

    /// Adds a file by its size and hash.
    pub fn add(&mut self, file: &str, bytes: u64, sha256: String) {
        self.files.insert(file.to_string(), FileEntry { bytes, sha256 });
    }

    /// The content of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        json_bytes(self)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// Bytes that [`Manifest::to_bytes`] does not result in.
    pub fn from_bytes(bytes: &[u8]) -> Result<Manifest, CheckpointError> {
        let damaged = |problem: &str| CheckpointError::Json { file: MANIFEST.to_string(), problem: problem.to_string() };
        let manifest: Manifest = read_json(MANIFEST, bytes)?;
        if manifest.format != FORMAT {
            return Err(damaged("it is not the manifest of a moelab checkpoint"));
        }
        if manifest.version != VERSION {
            return Err(CheckpointError::Version { found: manifest.version, wanted: VERSION });
        }
        if manifest.to_bytes() != bytes {
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

    /// The state, verified, from the bytes of its file.
    pub fn state(&self, bytes: &[u8]) -> Result<TrainState, CheckpointError> {
        let mut check = FileCheck::default();
        check.push(bytes);
        check.finish(STATE, &self.files[STATE])?;
        read_json(STATE, bytes)
    }

    /// Bytes of the files with the parameters and the moments.
    pub fn tensor_file_bytes(&self) -> [u64; 2] {
        [MODEL, OPTIMIZER].map(|file| self.files[file].bytes)
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
struct FileEntry {
    bytes: u64,
    sha256: String,
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

/// Verifies that the files of a checkpoint are unchanged (manifest, sizes, hashes), piece by piece. Does not depend on the model.
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
        Ok(Verification { files: Manifest::from_bytes(manifest)?.files.into_iter().collect(), check: FileCheck::default() })
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

/// The content of a JSON file of a checkpoint.
pub fn json_bytes(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("maps have string keys and floats are written by `exact`");
    bytes.push(b'\n');
    bytes
}

fn read_json<T: for<'de> Deserialize<'de>>(name: &str, bytes: &[u8]) -> Result<T, CheckpointError> {
    let file = name.to_string();
    if bytes.len() > JSON_LIMIT_BYTES {
        let (found, limit) = (bytes.len(), JSON_LIMIT_BYTES);
        return Err(CheckpointError::TooLarge { file, what: "its size in bytes", found, limit });
    }
    serde_json::from_slice(bytes).map_err(|error| CheckpointError::Json { file, problem: error.to_string() })
}
