//! What a model type of transformers is described by: its keys in `config.json`, and its tensors.

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
    /// What `config.json` states.
    pub keys: &'static [&'static [Key]],
    /// What its keys say together.
    pub rules: &'static [Rule],
    /// Keys that have one value in moelab's models; they are written.
    pub fixed: &'static [Fixed],
    /// Keys as those, that are not written.
    pub switched_off: &'static [Fixed],
    /// Keys that follow from others.
    pub ignored: &'static [&'static str],
    /// What transformers refuses of such a model.
    pub limits: fn(&ModelConfig) -> Vec<String>,
    /// What it refuses though other programs do not: such a model is read, and not written.
    pub unwritable: fn(&ModelConfig) -> Vec<String>,
    /// Its tensors.
    pub layout: Layout,
}

/// A key of `config.json` that has one value in moelab's models.
#[derive(Clone, Copy)]
pub(super) struct Fixed {
    pub key: &'static str,
    /// That value, as JSON.
    pub only: &'static str,
    /// What transformers takes where the key is absent, as JSON.
    pub absent: &'static str,
}

impl Fixed {
    /// A key that is absent where it has its value.
    pub const fn new(key: &'static str, only: &'static str) -> Fixed {
        Fixed { key, only, absent: only }
    }
}

/// A tensor of the tree and its name in a file. Names lack their end, `.weight` or `.bias`; those of blocks begin in the block.
#[derive(Clone, Copy)]
pub(super) enum Row {
    /// The same tensor.
    Whole(&'static str, &'static str),
    /// Its weight is stored [in, out].
    Transposed(&'static str, &'static str),
    /// Rows of queries, keys and values, each a tensor of its own.
    Split(&'static str, [&'static str; 3]),
    /// A tensor for each expert, whose number stands for `*`.
    Experts(&'static str, &'static str),
    /// Several of ours one below the other.
    Stacked(&'static [&'static str], &'static str),
    /// No parameter, and a whole name: `[E]`, zeros where a run has none.
    State(&'static str, &'static str),
    /// A whole name of `[D]` that is zero in every model of ours.
    Zeros(&'static str),
}

/// The tensors of a model type.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Outside of networks; whole names.
    pub top: &'static [Row],
    /// Prefixes of each network here and there.
    pub networks: &'static [(&'static str, &'static str)],
    /// Of a network, outside of its blocks.
    pub network: &'static [Row],
    /// What the list of blocks is called there.
    pub blocks: &'static str,
    /// Of a block.
    pub block: &'static [&'static [Row]],
}
