//! The tokenizer of a model folder, as `AutoTokenizer` of transformers loads it (checked with `tests/fixtures/hf/tokenizers.json`).
//!
//! The class that `tokenizer_config.json` names, or else the model type, decides which files are used:
//!
//! | class | text is split by | tokens from |
//! |---|---|---|
//! | `GPT2Tokenizer`, and none in a `gpt2` | GPT-2's pattern; `add_prefix_space` of `tokenizer_config.json` | `tokenizer.json`, or else `vocab.json` and `merges.txt` |
//! | `Qwen2Tokenizer`, and none in a `qwen3_moe` | Qwen 2's pattern after NFC; `add_prefix_space` likewise | the same |
//! | `PreTrainedTokenizerFast`, `TokenizersBackend`, none, and any in a `mixtral` or `glm4_moe` | `tokenizer.json` | `tokenizer.json` |
//! | `LlamaTokenizer` | `tokenizer.json`, if it is byte-level | `tokenizer.json` |
//!
//! Other classes have their own rules for splitting text and are refused, as are folders whose ids would have to be guessed.

use serde_json::{Map, Value};

use super::{Added, DataError, File, Merge, Model, Normalizer, PATTERNS, Pattern, PreTokenizer, QWEN2, Vocabulary};
use super::{Behavior, Kind};
use crate::data::tokenizer::END_OF_TEXT;
use crate::run::quote::{cut, shortened};

/// The contents of the tokenizer files in a model folder, if present.
#[derive(Clone, Copy, Debug, Default)]
pub struct ModelFiles<'a> {
    /// `model_type` of `config.json`.
    pub model_type: &'a str,
    /// `tokenizer.json`.
    pub tokenizer: Option<&'a [u8]>,
    /// `vocab.json`.
    pub vocab: Option<&'a [u8]>,
    /// `merges.txt`.
    pub merges: Option<&'a [u8]>,
    /// `tokenizer_config.json`.
    pub config: Option<&'a [u8]>,
    /// `special_tokens_map.json`.
    pub special_tokens: Option<&'a [u8]>,
    /// `added_tokens.json`.
    pub added_tokens: Option<&'a [u8]>,
}

/// How text is split.
enum Splitting {
    AsFile,
    Gpt2,
    Qwen2,
}

impl Splitting {
    /// The default special tokens of the class.
    fn special_tokens(&self) -> &'static [&'static str] {
        match self {
            Splitting::AsFile => &[],
            Splitting::Gpt2 => &["unk_token", "bos_token", "eos_token"],
            Splitting::Qwen2 => &["unk_token", "eos_token", "pad_token"],
        }
    }
}

/// Keys for a special token.
const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Keys for lists of special tokens.
const LISTS: [&str; 2] = ["additional_special_tokens", "extra_special_tokens"];

/// Returns a `tokenizer.json` with the ids of `AutoTokenizer`, and what it does not keep from the files, one line each.
pub(in crate::data::tokenizer) fn of_model(files: &ModelFiles) -> Result<(String, Vec<String>), DataError> {
    let config = object("tokenizer_config.json", files.config)?;
    if config.contains_key("auto_map") {
        return fault("tokenizer_config.json: `auto_map` names code of the model, which is not executed");
    }
    let class = config.get("tokenizer_class").and_then(Value::as_str).map(|class| class.strip_suffix("Fast").unwrap_or(class));
    let splitting = splitting(files, class)?;
    let defaults = splitting.special_tokens();
    let space = match config.get("add_prefix_space") {
        None | Some(Value::Null) => false,
        Some(found) => match found.as_bool() {
            Some(space) => space,
            None => return fault(&format!("tokenizer_config.json: `add_prefix_space` is {}, expected true or false", shown(found))),
        },
    };
    let mut file = parsed(files)?;
    let mut notes = around(files, &config);
    let level = |use_regex| PreTokenizer::ByteLevel { add_prefix_space: space, trim_offsets: true, use_regex };
    match splitting {
        Splitting::AsFile if config.contains_key("add_prefix_space") && space != file.adds_prefix_space() => {
            notes.push(format!("`add_prefix_space` = {space} of tokenizer_config.json: tokenizer.json differs, and takes precedence"));
        }
        Splitting::AsFile => {}
        Splitting::Gpt2 => (file.normalizer, file.pre_tokenizer) = (None, level(true)),
        Splitting::Qwen2 => {
            let split =
                PreTokenizer::Split { pattern: Pattern::Regex(PATTERNS[QWEN2].into()), behavior: Behavior::Isolated, invert: false };
            file.normalizer = Some(Normalizer::NFC);
            file.pre_tokenizer = PreTokenizer::Sequence { pretokenizers: vec![split, level(false)] };
        }
    }
    add_tokens(&mut file, files, &config, defaults, &mut notes)?;
    Ok((file.to_json(), notes))
}

fn splitting(files: &ModelFiles, class: Option<&str>) -> Result<Splitting, DataError> {
    let of_type = match files.model_type {
        "gpt2" => "GPT2Tokenizer",
        "qwen3_moe" => "Qwen2Tokenizer",
        _ => "TokenizersBackend",
    };
    let class = if ["mixtral", "glm4_moe"].contains(&files.model_type) { "TokenizersBackend" } else { class.unwrap_or(of_type) };
    match class {
        "GPT2Tokenizer" => Ok(Splitting::Gpt2),
        "Qwen2Tokenizer" => Ok(Splitting::Qwen2),
        _ if files.tokenizer.is_none() => fault(&format!(
            "there is no tokenizer.json, and vocab.json and merges.txt do not say how a `{}` splits text: expected the class \
             GPT2Tokenizer or Qwen2Tokenizer in tokenizer_config.json",
            shortened(class)
        )),
        "TokenizersBackend" | "PreTrainedTokenizer" | "LlamaTokenizer" => Ok(Splitting::AsFile),
        other => fault(&format!(
            "tokenizer_config.json: the class `{}` may have other rules for splitting: expected PreTrainedTokenizerFast, GPT2Tokenizer, \
             Qwen2Tokenizer or LlamaTokenizer",
            shortened(other)
        )),
    }
}

/// The model and its tokens.
fn parsed(files: &ModelFiles) -> Result<File, DataError> {
    if let Some(json) = files.tokenizer {
        return File::read(json);
    }
    let (Some(vocab), Some(merges)) = (files.vocab, files.merges) else {
        return fault("there is no tokenizer.json: expected it, or vocab.json and merges.txt");
    };
    let vocab: Vocabulary =
        serde_json::from_slice(vocab).map_err(|error| DataError::Tokenizer(format!("vocab.json: {}", cut(&error.to_string(), 200))))?;
    let merges = std::str::from_utf8(merges).map_err(|error| DataError::Tokenizer(format!("merges.txt: {error}")))?;
    let lines = merges.lines().filter(|line| !line.starts_with("#version") && !line.is_empty());
    let merges = lines.map(|line| Merge::Joined(line.to_string())).collect();
    let model = Model { kind: Kind::Bpe, vocab, merges, ..Model::empty() };
    Ok(File { model, ..File::bytes() })
}

/// Adds tokens of other files, and the special tokens that they name.
fn add_tokens(
    file: &mut File,
    files: &ModelFiles,
    config: &Map<String, Value>,
    defaults: &[&'static str],
    notes: &mut Vec<String>,
) -> Result<(), DataError> {
    let map = object("special_tokens_map.json", files.special_tokens)?;
    let unstated = defaults.iter().filter(|name| !config.contains_key(**name) && !map.contains_key(**name));
    let mut named: Vec<(&str, String)> = unstated.map(|name| (*name, END_OF_TEXT.to_string())).collect();
    for source in [config, &map] {
        named.extend(NAMED.iter().filter_map(|name| Some((*name, content(source.get(*name)?)?))));
        for name in LISTS {
            let listed: Vec<&Value> = match source.get(name) {
                Some(Value::Array(list)) => list.iter().collect(),
                Some(Value::Object(list)) => list.values().collect(),
                _ => Vec::new(),
            };
            named.extend(listed.into_iter().filter_map(|token| Some((name, content(token)?))));
        }
    }
    let is_named = |token: &str| named.iter().any(|(_, name)| name == token);
    for (id, token) in object("added_tokens.json", files.added_tokens)?.into_iter().map(|(token, id)| (id, token)) {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let Some(id) = id else { return fault(&format!("added_tokens.json: `{}` has no id", shortened(&token))) };
        file.add(Added { special: is_named(&token), ..Added::new(id, token) })?;
    }
    for (id, token) in config.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten() {
        let added = token.as_object().map(|token| token.iter().map(|(k, v)| (k.clone(), v.clone())).chain([("id".to_string(), id_of(id))]));
        let added = added.map(|fields| Value::Object(fields.filter(|(key, _)| key != "__type").collect()));
        let added = added.and_then(|added| serde_json::from_value::<Added>(added).ok());
        let Some(added) = added else {
            return fault(&format!(
                "tokenizer_config.json: `added_tokens_decoder.{}` is {}, expected a token",
                shortened(id),
                shown(token)
            ));
        };
        file.add(added)?;
    }
    for (place, (name, token)) in named.iter().enumerate() {
        match file.id_of(token) {
            None if named[..place].iter().any(|(_, before)| before == token) => {}
            Some(id) => file.add(Added { special: true, ..Added::new(id, token.clone()) })?,
            None => notes.push(format!(
                "`{}` (`{name}`) has no id in the tokenizer's files: transformers gives it a new one, the run has none",
                shortened(token)
            )),
        }
    }
    Ok(())
}

/// Tokens added around a text, which a run does not keep.
fn around(files: &ModelFiles, config: &Map<String, Value>) -> Vec<String> {
    let json: Value = files.tokenizer.and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default();
    let adds = |key: &str| config.get(key).and_then(Value::as_bool) == Some(true);
    let template = json["post_processor"].to_string().contains("SpecialToken");
    let mut notes = Vec::new();
    if adds("add_bos_token") || adds("add_eos_token") || template {
        notes.push(
            "special tokens around a text (post-processor, add_bos_token, add_eos_token): a run only has separators between documents"
                .into(),
        );
    }
    for key in ["truncation", "padding"] {
        if !json[key].is_null() {
            notes.push(format!("`{key}` of tokenizer.json: a run packs whole documents"));
        }
    }
    notes
}

/// A token, as a string or as an object.
fn content(token: &Value) -> Option<String> {
    token.as_str().or(token.get("content").and_then(Value::as_str)).map(str::to_string)
}

fn id_of(key: &str) -> Value {
    key.parse::<u32>().map_or(Value::Null, Value::from)
}

/// A JSON object, empty if there is no such file.
fn object(name: &str, json: Option<&[u8]>) -> Result<Map<String, Value>, DataError> {
    let Some(json) = json else { return Ok(Map::new()) };
    serde_json::from_slice(json)
        .map_err(|error| DataError::Tokenizer(format!("{name} is not a JSON object: {}", cut(&error.to_string(), 200))))
}

fn shown(found: &Value) -> String {
    shortened(&found.to_string())
}

fn fault<T>(what: &str) -> Result<T, DataError> {
    Err(DataError::Tokenizer(what.into()))
}
