//! Data: the language and its scorer, tokenizers, shards, corpora, baselines. No GPU.

mod baselines;
mod data;
mod language;
mod shards;
mod tokenizer;
