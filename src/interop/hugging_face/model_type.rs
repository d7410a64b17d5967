//! The description of a model type of transformers: its keys in `config.json`, and its tensors.

use super::keys::{Key, Rule};
use crate::run::model::ModelConfig;

/// A model type of transformers.
pub(super) struct ModelType {
    /// `model_type` in `config.json`.
    pub name: &'static str,
    /// The class that loads it.
    pub architecture: &'static str,
    /// What all its models have in common, as keys of a model's config.
    pub always: &'static str,
    /// The keys that `config.json` states.
    pub keys: &'static [&'static [Key]],
    /// Rules for several keys.
    pub rules: &'static [Rule],
    /// Keys with only one supported value; they are written.
    pub fixed: &'static [Fixed],
    /// Likewise, but not written.
    pub switched_off: &'static [Fixed],
    /// Keys derived from others.
    pub ignored: &'static [&'static str],
    /// Limits of transformers for such a model.
    pub limits: fn(&ModelConfig) -> Vec<String>,
    /// Limits of transformers that other programs do not have: such a model can be read but not written.
    pub unwritable: fn(&ModelConfig) -> Vec<String>,
    /// Its tensors.
    pub layout: Layout,
}

/// A key of `config.json` with only one supported value.
#[derive(Clone, Copy)]
pub(super) struct Fixed {
    pub key: &'static str,
    /// That value, as JSON.
    pub only: &'static str,
    /// The default of transformers if the key is absent, as JSON.
    pub absent: &'static str,
}

impl Fixed {
    /// A key that may be absent if it has its value.
    pub const fn new(key: &'static str, only: &'static str) -> Fixed {
        Fixed { key, only, absent: only }
    }
}

/// A tensor of the tree and its name in a file. Names are without `.weight` or `.bias`; those of blocks are relative to the block.
#[derive(Clone, Copy)]
pub(super) enum Row {
    /// The same tensor.
    Whole(&'static str, &'static str),
    /// Its weight is stored [in, out].
    Transposed(&'static str, &'static str),
    /// Rows of queries, keys and values, as separate tensors.
    Split(&'static str, [&'static str; 3]),
    /// One tensor per expert, with `*` replaced by its index.
    Experts(&'static str, &'static str),
    /// Several of moelab's tensors, concatenated by rows.
    Stacked(&'static [&'static str], &'static str),
    /// Not a parameter, with a full name: `[E]`, zeros if a run has none.
    State(&'static str, &'static str),
    /// A full name; `[D]`, always zero in moelab's models.
    Zeros(&'static str),
}

/// The tensors of a model type.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Outside of networks; full names.
    pub top: &'static [Row],
    /// Prefixes of each network in moelab and in the file.
    pub networks: &'static [(&'static str, &'static str)],
    /// Of a network, outside of its blocks.
    pub network: &'static [Row],
    /// Name of the list of blocks in the file.
    pub blocks: &'static str,
    /// Of a block.
    pub block: &'static [&'static [Row]],
}
