//! What can be wrong with data that a user brings.

/// A fault in data, a tokenizer or their options: what is wrong, what was wanted, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// Options that do not fit each other or the data.
    #[error("{0}")]
    Options(String),
    /// A tokenizer file is refused, or text cannot be encoded.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A token shard is damaged or does not fit.
    #[error("token shard: {0}")]
    Shard(String),
    /// Nothing to hold out.
    #[error(
        "the corpus has {distinct} distinct documents ({documents} in all), wanted at least 2: training and validation each \
         need one. Add files, or split the text into more documents (data.separator)"
    )]
    TooFewDocuments {
        /// As given.
        documents: usize,
        /// Not counting repetitions.
        distinct: usize,
    },
    /// A side of the split has too few tokens.
    #[error(
        "the {side} documents give {windows} windows of {wanted_tokens} tokens ({tokens} tokens), wanted at least \
         {wanted_windows}. {advice}"
    )]
    TooShort {
        /// `training`, `validation` or `evaluated`.
        side: &'static str,
        /// Tokens on this side.
        tokens: usize,
        /// Whole windows that they give.
        windows: usize,
        /// Tokens that a window takes.
        wanted_tokens: usize,
        /// Least number of windows.
        wanted_windows: usize,
        /// What to do.
        advice: &'static str,
    },
}
