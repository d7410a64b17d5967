//! The files next to config and weights in a model folder: generation settings, tokenizer files, the model card.

use serde_json::{Value, json};

use super::HfModel;
use crate::{
    data::tokenizer::Tokenizer,
    run::{Config, state::TrainState},
};

/// Generation settings.
pub const GENERATION: &str = "generation_config.json";
/// Tokenizer files, in the order in which they are searched.
pub const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];

/// Generation settings and tokenizer: those that the run was imported with, or else the run's own.
///
/// # Errors
/// Those of `kept`, which returns the files that the run was imported with.
pub fn beside<E>(
    config: &Config,
    own: Option<&Tokenizer>,
    is_imported: bool,
    kept: impl Fn(&str) -> Result<Option<Vec<u8>>, E>,
) -> Result<Vec<(String, Vec<u8>)>, E> {
    let (mut files, end) = (Vec::new(), own.and_then(Tokenizer::end_of_document));
    let mut kept = |name: &str| -> Result<bool, E> {
        let found = kept(name)?;
        files.extend(found.map(|bytes| (name.to_string(), bytes)));
        Ok(files.last().is_some_and(|(last, _)| last == name))
    };
    let has_generation = kept(GENERATION)?;
    let mut has_tokenizer = false;
    for name in TOKENIZER_FILES {
        has_tokenizer |= kept(name)?;
    }
    // Without the file, transformers uses config.json, which is exported unchanged.
    if !has_generation && !is_imported {
        files.push((GENERATION.into(), pretty(&generation(config, end))));
    }
    if let Some(tokenizer) = own.filter(|_| !has_tokenizer) {
        files.push(("tokenizer.json".into(), tokenizer.to_json().into_bytes()));
        files.push(("tokenizer_config.json".into(), pretty(&tokenizer_config(config, tokenizer))));
    }
    Ok(files)
}

fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

fn generation(config: &Config, end: Option<u32>) -> Value {
    let sample = &config.sample;
    let mut json = json!({ "bos_token_id": end, "eos_token_id": end, "do_sample": sample.temperature > 0.0 });
    if sample.temperature > 0.0 {
        json["temperature"] = sample.temperature.into();
        json["top_p"] = sample.top_p.into();
    }
    json
}

/// What `AutoTokenizer` reads besides tokenizer.json. The end of a document is only named if it is a separate token; for the
/// byte tokenizer it is a byte.
fn tokenizer_config(config: &Config, tokenizer: &Tokenizer) -> Value {
    let file: Value = serde_json::from_str(&tokenizer.to_json()).expect("a tokenizer writes JSON");
    let added = file["added_tokens"].as_array().cloned().unwrap_or_default();
    let end = added.iter().find(|token| token["id"].as_u64() == tokenizer.end_of_document().map(u64::from));
    let mut json = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.model.context,
        "clean_up_tokenization_spaces": false,
    });
    if let Some(end) = end {
        json["bos_token"] = end["content"].clone();
        json["eos_token"] = end["content"].clone();
    }
    json
}

/// The model card, `README.md`, of the run called `name`.
pub fn card(name: &str, config: &Config, model: &HfModel, state: &TrainState, tokenizer: Option<&Tokenizer>) -> String {
    let parameters: u64 = config.parameters().iter().map(|spec| spec.len()).sum();
    let mut card = format!(
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- moelab\n---\n\n# {name}\n\n\
         A `{}` model of {parameters} parameters, trained by moelab {} for {} updates on {} tokens.\n",
        model.model_type,
        env!("CARGO_PKG_VERSION"),
        state.update,
        state.tokens
    );
    if let Some(best) = state.best {
        card += &format!("Validation cross-entropy after update {}: {:.4} nats per token.\n", best.update, best.val_ce);
    }
    card += "\n`AutoModelForCausalLM.from_pretrained` and, if there is a tokenizer, `AutoTokenizer.from_pretrained` load this folder.\n";
    if tokenizer.is_some_and(Tokenizer::is_bytes) {
        card += "An id is a byte of UTF-8; id 0, which no text contains, ends documents.\n";
    }
    if !model.lost.is_empty() {
        card += "\nWhat these files do not keep:\n\n";
        model.lost.iter().for_each(|setting| card += &format!("- `{setting}`\n"));
    }
    card
}

/// A note if a run separates documents with another token than those that end a text for the model.
pub fn separator_note(config_json: &[u8], tokenizer: &Tokenizer) -> Option<String> {
    let config: Value = serde_json::from_slice(config_json).ok()?;
    let ends: Vec<u64> = match &config["eos_token_id"] {
        Value::Array(ids) => ids.iter().filter_map(Value::as_u64).collect(),
        id => id.as_u64().into_iter().collect(),
    };
    let own = tokenizer.end_of_document()?;
    let differs = !ends.is_empty() && !ends.contains(&u64::from(own));
    differs
        .then(|| format!("`eos_token_id` {ends:?} as the end of a document: the run separates documents by id {own}; {GENERATION} is kept"))
}
