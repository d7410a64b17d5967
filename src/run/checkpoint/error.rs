//! Why a checkpoint is refused.

/// Why a checkpoint was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// A file is missing.
    #[error("`{file}` is missing: the checkpoint is incomplete")]
    Missing {
        /// Name of the file.
        file: String,
    },
    /// A file or a header exceeds the limit.
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
        /// The reader's message.
        problem: String,
    },
    /// The checkpoint is of another format version.
    #[error("`manifest.json`: format version {found}, this build reads version {wanted}: use the build that wrote it")]
    Version {
        /// The version in the manifest.
        found: u32,
        /// The version that this build reads.
        wanted: u32,
    },
    /// A file was truncated or extended.
    #[error("`{file}` has {found} bytes, the manifest says {wanted}: it was truncated or changed")]
    Size {
        /// Name of the file.
        file: String,
        /// Bytes according to the manifest.
        wanted: u64,
        /// Bytes found.
        found: u64,
    },
    /// A file was damaged or changed.
    #[error("`{file}` has SHA-256 {found}, the manifest says {wanted}: it was damaged or changed")]
    Checksum {
        /// Name of the file.
        file: String,
        /// Hash according to the manifest.
        wanted: String,
        /// Hash found.
        found: String,
    },
    /// A safetensors header is malformed.
    #[error("`{file}` is not a safetensors file: {problem}")]
    Header {
        /// Name of the file.
        file: String,
        /// The reader's message.
        problem: String,
    },
    /// The tensors are not those of this model.
    #[error("`{file}` does not match the model of this run: {}", problems.join("; "))]
    Tensors {
        /// Name of the file.
        file: String,
        /// Each difference: tensor, expected, found.
        problems: Vec<String>,
    },
    /// A value cannot result from training.
    #[error("`{file}`: `{tensor}` is {value} at element {element}, expected {wanted}: training cannot result in such a value")]
    OutOfRange {
        /// Name of the file.
        file: String,
        /// Name of the tensor.
        tensor: String,
        /// Index into its data.
        element: usize,
        /// The value.
        value: String,
        /// Its range.
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
