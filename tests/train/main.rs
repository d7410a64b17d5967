//! Data: the language and its scorer, tokenizers, shards, corpora, baselines. No GPU.

mod around;
mod baselines;
mod data;
mod generate;
mod identity;
mod initial;
mod language;
mod model_tokenizer;
mod shards;
mod shared;
mod split;
mod tokenizer;
