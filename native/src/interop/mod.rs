//! `moelab export` and `moelab import`: models in folders as Hugging Face transformers has them. What their files mean is for the core.

mod export;
mod import;
mod model_folder;

use moelab::data::tokenizer::Tokenizer;

pub use export::{ExportArgs, export};
pub use import::{ImportArgs, import};

/// Settings of generation.
const GENERATION: &str = "generation_config.json";
/// Files of a tokenizer, in the order in which they are looked for.
const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];

fn is_bytes(tokenizer: &Tokenizer) -> bool {
    tokenizer.digest() == Tokenizer::bytes().digest()
}
