//! Errors in the user's data.

/// An error in data, a tokenizer or their options: what is wrong, what was expected, how to fix it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Options that conflict with each other or with the data.
    #[error("{0}")]
    Options(String),
    /// A tokenizer file is rejected, or text cannot be encoded.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A token shard is damaged or does not match.
    #[error("token shard: {0}")]
    Shard(String),
    /// There are too few documents to hold any out.
    #[error(
        "the corpus has {distinct} distinct documents ({documents} in all), expected at least 2: training and validation each \
         need one. Add files, or split the text into more documents (data.separator)"
    )]
    TooFewDocuments {
        /// Number of documents.
        documents: usize,
        /// Number of distinct documents.
        distinct: usize,
    },
    /// A side of the split has too few tokens.
    #[error(
        "the {side} documents give {windows} windows of {wanted_tokens} tokens ({tokens} tokens), expected at least \
         {wanted_windows}. {advice}"
    )]
    TooShort {
        /// `training`, `validation` or `evaluated`.
        side: &'static str,
        /// Tokens on this side.
        tokens: usize,
        /// Number of whole windows.
        windows: usize,
        /// Tokens per window.
        wanted_tokens: usize,
        /// Least number of windows.
        wanted_windows: usize,
        /// How to fix it.
        advice: &'static str,
    },
}
