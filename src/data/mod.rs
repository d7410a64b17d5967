//! Data: corpora, tokenizers, splits, windows and shards; the embedded language. Documents are passed in as text or bytes: this
//! layer opens no files.

pub mod baselines;
pub mod corpus;
pub mod dataset;
pub mod documents;
mod error;
pub mod language;
pub mod prepare;
pub mod shards;
pub mod shared;
pub mod texts;
pub mod tokenizer;

pub use corpus::Corpus;
pub use error::DataError;
