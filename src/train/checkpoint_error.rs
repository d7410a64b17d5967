//! Why a checkpoint is refused.

/// Why a checkpoint was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// A file is not there.
    #[error("`{file}` is missing: the checkpoint is incomplete")]
    Missing {
        /// Name of the file.
        file: String,
    },
    /// A file or a header is beyond the limit.
    #[error("`{file}`: {what} is {found}, at most {limit} is accepted")]
    TooLarge {
        /// Name of the file.
        file: String,
        /// What is too large.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The largest size accepted.
        limit: usize,
    },
    /// The manifest or the state cannot be read.
    #[error("`{file}` cannot be read: {problem}")]
    Json {
        /// Name of the file.
        file: String,
        /// What the reader says.
        problem: String,
    },
    /// The checkpoint is of another format version.
    #[error("`manifest.json`: format version {found}, this build reads version {wanted}: use the build that wrote it")]
    Version {
        /// The version in the manifest.
        found: u32,
        /// What this build reads.
        wanted: u32,
    },
    /// A file is shorter or longer than it was.
    #[error("`{file}` has {found} bytes, the manifest says {wanted}: it was cut off or changed")]
    Size {
        /// Name of the file.
        file: String,
        /// Bytes by the manifest.
        wanted: u64,
        /// Bytes found.
        found: u64,
    },
    /// A file is not what was written.
    #[error("`{file}` has SHA-256 {found}, the manifest says {wanted}: it was damaged or changed")]
    Checksum {
        /// Name of the file.
        file: String,
        /// Hash by the manifest.
        wanted: String,
        /// Hash found.
        found: String,
    },
    /// A safetensors header is malformed.
    #[error("`{file}` is not a safetensors file: {problem}")]
    Header {
        /// Name of the file.
        file: String,
        /// What the reader says.
        problem: String,
    },
    /// The tensors are not those of this model.
    #[error("`{file}` does not fit the model of this run: {}", problems.join("; "))]
    Tensors {
        /// Name of the file.
        file: String,
        /// Each difference: tensor, wanted, found.
        problems: Vec<String>,
    },
    /// A value is one that no training leaves.
    #[error("`{file}`: `{tensor}` is {value} at element {element}, wanted {wanted}: no training leaves such a value")]
    OutOfRange {
        /// Name of the file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Index into its data.
        element: usize,
        /// The value.
        value: String,
        /// What it can be.
        wanted: String,
    },
    /// A value is NaN or infinite.
    #[error("`{file}`: `{tensor}` is {value} at element {element}: such weights cannot be trained on")]
    NonFinite {
        /// Name of the file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Index into its data.
        element: usize,
        /// The value.
        value: String,
    },
}
