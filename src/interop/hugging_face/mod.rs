//! Models in the layout of Hugging Face transformers: `config.json` and safetensors, written and read.
//!
//! | moelab's options | model type |
//! |---|---|
//! | LayerNorm, learned positions, biases, plain FFN | `gpt2` |
//! | dense gated FFN | `llama` |
//! | experts, softmax over the selected | `mixtral` |
//! | the same with QK norm, softmax over the selected or over all, first layers dense | `qwen3_moe` |
//! | experts, sigmoid scores, selection bias, shared experts, partial rotary positions | `glm4_moe` |
//! | the same with latent attention | `deepseek_v3` |
//! | recursion over two states | `hrm_text` |
//!
//! Guarantees: the output of [`export`] computes the same as the model in evaluation, and [`Described::read`] reads it back
//! bit-exactly; a model that no type can express is refused with all reasons (`config`). What cannot be converted is listed in both
//! directions: training settings without a counterpart, types of weights, layers that predict further tokens. What would change the
//! model's output is refused. Files are not trusted: every key and tensor must be known and in range, or the file is refused with all
//! problems; headers are checked before the weights are read. An absent key means the same as in transformers, and differs from
//! `null`. One table per model type (`model_types`) serves both directions.
//!
//! Input and output are bytes and strings; reading and writing files is up to the caller.

mod config;
pub mod folder;
mod keys;
mod logits;
mod model_type;
mod model_types;
mod rules;
mod tensors;

use std::collections::HashMap;

use crate::run::ModelConfig;
use crate::run::checkpoint::NamedTensor;
use crate::run::quote::cut;
pub use crate::train::tensor_file::HEAD_BYTES;
use crate::train::tensor_file::read_header;
pub use config::{is_setting_of_training, settings_of_training, value_of, with_value};
use keys::Json;
pub use logits::logits;
use model_type::ModelType;
use model_types::MODEL_TYPES;
pub use tensors::{Part, Stored};

/// Name of the file with the model's config.
pub const CONFIG: &str = "config.json";
/// Name of the file with the weights.
pub const WEIGHTS: &str = "model.safetensors";

/// Maximum bytes of a `config.json`.
const MOST_CONFIG_BYTES: usize = 1 << 20;

/// A model as Hugging Face files.
#[derive(Clone, Debug, PartialEq)]
pub struct HfModel {
    /// Name of the model type.
    pub model_type: &'static str,
    /// Content of `config.json`.
    pub config_json: String,
    /// Content of `model.safetensors`.
    pub weights: Vec<u8>,
    /// Training settings that the files do not keep, as `model.dropout.ffn = 0.1`.
    pub lost: Vec<String>,
}

/// A model that no type of transformers can express.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this model has no counterpart in Hugging Face transformers. The nearest is `{model_type}`, but:\n  {}", reasons.join("\n  "))]
pub struct Refusal {
    /// The nearest model type.
    pub model_type: &'static str,
    /// Everything that would have to change.
    pub reasons: Vec<String>,
}

/// Files of a model that moelab does not support.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this model cannot be imported:\n  {}", problems.join("\n  "))]
pub struct ImportError {
    /// All problems: file, key or tensor, expected, found.
    pub problems: Vec<String>,
}

/// A model from Hugging Face files.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// Its config.
    pub model: ModelConfig,
    /// Its parameters, and the selection biases of its routers, if any, by their names in the tree.
    pub tensors: Vec<NamedTensor>,
    /// What the run does not keep from the files, one line each.
    pub notes: Vec<String>,
}

/// A model described by its `config.json`, before its weights are read.
pub struct Described {
    /// Its config, with the training settings of `config.json`.
    pub model: ModelConfig,
    model_type: &'static ModelType,
    json: Json,
}

/// The model type of a model, and the training settings that it does not keep.
fn model_type_of(model: &ModelConfig) -> Result<(&'static ModelType, Vec<String>), Refusal> {
    let mut nearest: Option<(usize, Refusal)> = None;
    for model_type in MODEL_TYPES {
        let (mut reasons, mut kinds, mut lost) = (Vec::new(), 0, Vec::new());
        match config::kept(model_type, model) {
            Ok(kept) => {
                for difference in config::differences(model, &kept) {
                    match difference.is_training_only {
                        true => lost.extend(difference.lost_setting()),
                        false => reasons.push(difference.reason(model_type)),
                    }
                    kinds += usize::from(difference.is_of_kind() && !difference.is_training_only);
                }
                reasons.extend((model_type.limits)(model));
                reasons.extend((model_type.unwritable)(model));
            }
            Err(problems) => reasons.extend(problems),
        }
        if reasons.is_empty() {
            let left_out = tensors::left_out(model_type, model);
            reasons.extend(left_out.iter().map(|name| format!("`{name}` has no tensor in models of type {}", model_type.name)));
        }
        if reasons.is_empty() {
            return Ok((model_type, lost));
        }
        let distance = KIND * kinds + reasons.len();
        if nearest.as_ref().is_none_or(|(least, _)| distance < *least) {
            nearest = Some((distance, Refusal { model_type: model_type.name, reasons }));
        }
    }
    Err(nearest.expect("the list of model types is not empty").1)
}

/// Weight of a different kind of FFN, attention, norm or depth in the search for the nearest type, relative to other settings.
const KIND: usize = 10;

/// The tensors of a model's file, and the rows of the parameters that they consist of.
///
/// # Errors
/// A model that no type can express.
pub fn layout(model: &ModelConfig) -> Result<Vec<Stored>, Refusal> {
    Ok(tensors::stored(model_type_of(model)?.0, model))
}

/// Converts tensors of a model's tree (weights, or their gradients) to those of its file. Missing tensors are zeros.
///
/// # Errors
/// A model that no type can express.
pub fn file_tensors(model: &ModelConfig, ours: &[NamedTensor]) -> Result<Vec<NamedTensor>, Refusal> {
    let by_name: HashMap<&str, &NamedTensor> = ours.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    Ok(layout(model)?.iter().map(|stored| tensors::gather(stored, &by_name)).collect())
}

/// Writes a model. `ours` are its parameters and states by their names in the tree; `end_of_document` is the tokenizer's. `source`
/// is the `config.json` that the model was imported from, whose keys without effect on the output are written again.
///
/// # Errors
/// A model that no type can express, with all reasons.
pub fn export(model: &ModelConfig, ours: &[NamedTensor], end_of_document: Option<u32>, source: Option<&[u8]>) -> Result<HfModel, Refusal> {
    let (model_type, mut lost) = model_type_of(model)?;
    let mut json = config::write(model_type, model);
    let source: Option<Json> = source.and_then(|source| serde_json::from_slice(source).ok());
    let carried = source.filter(|source| source.get("model_type").and_then(serde_json::Value::as_str) == Some(model_type.name));
    match carried {
        Some(source) => {
            for (key, value) in config::carried(&source) {
                json.entry(key).or_insert(value);
            }
            let dtype = ["dtype", "torch_dtype"].iter().find_map(|key| source.get(*key)?.as_str()).unwrap_or("float32");
            if dtype != "float32" {
                lost.push(format!("dtype = {}: the weights are written as float32", keys::shortened(dtype)));
            }
        }
        None => {
            for token in ["bos_token_id", "eos_token_id"] {
                json.insert(token.into(), end_of_document.into());
            }
            json.insert("pad_token_id".into(), serde_json::Value::Null);
        }
    }
    json.entry("use_cache").or_insert(true.into());
    let config_json = serde_json::to_string_pretty(&json).expect("plain values are JSON") + "\n";
    let weights = encode(&file_tensors(model, ours)?);
    Ok(HfModel { model_type: model_type.name, config_json, weights, lost })
}

/// Tensors as a safetensors file. Names must be unique.
pub fn encode(tensors: &[NamedTensor]) -> Vec<u8> {
    // Some versions of transformers reject a file that does not state for which library it was written.
    let format = [("format".to_string(), "pt".to_string())].into_iter().collect();
    let bytes = safetensors::serialize(tensors.iter().map(|tensor| (&tensor.name, tensor)), Some(format));
    bytes.expect("every tensor has the elements of its shape")
}

/// Reads a `config.json`.
///
/// # Errors
/// Everything that is unknown, missing or out of range.
pub fn describe(config_json: &[u8]) -> Result<Described, ImportError> {
    let of_config = |problems: Vec<String>| ImportError {
        problems: keys::first_of(problems.into_iter().map(|problem| format!("{CONFIG}: {problem}")).collect()),
    };
    if config_json.len() > MOST_CONFIG_BYTES {
        return Err(of_config(vec![format!("{} bytes, expected at most {MOST_CONFIG_BYTES}", config_json.len())]));
    }
    let json: Json = serde_json::from_slice(config_json)
        .map_err(|error| of_config(vec![format!("it is not a JSON object: {}", cut(&error.to_string(), 200))]))?;
    let found = json.get("model_type").and_then(serde_json::Value::as_str).unwrap_or_default();
    let Some(model_type) = MODEL_TYPES.into_iter().find(|model_type| model_type.name == found) else {
        let known: Vec<&str> = MODEL_TYPES.iter().map(|model_type| model_type.name).collect();
        let reason = if found == "olmoe" { ", whose QK norm covers whole projections" } else { "" };
        let found = json.get("model_type").map_or("missing".into(), keys::shown);
        return Err(of_config(vec![format!("`model_type` is {found}{reason}, expected one of {}", known.join(", "))]));
    };
    let model = config::read(model_type, &json).map_err(of_config)?;
    let beyond = (model_type.limits)(&model);
    if !beyond.is_empty() {
        return Err(of_config(beyond));
    }
    Ok(Described { model, model_type, json })
}

impl Described {
    /// Name of its model type.
    pub fn model_type(&self) -> &'static str {
        self.model_type.name
    }

    /// Checks the headers of its files before the rest is read: for each file its name, its first
    /// [`HEAD_BYTES`], or the whole file, and its length in bytes.
    ///
    /// # Errors
    /// Every tensor that is missing, unexpected, or of another shape or type.
    pub fn check_headers(&self, files: &[(&str, &[u8], u64)]) -> Result<(), ImportError> {
        self.matched(files).map(drop)
    }

    fn matched(&self, files: &[(&str, &[u8], u64)]) -> Result<tensors::Matched, ImportError> {
        let mut headers = Vec::new();
        for (name, head, length) in files {
            headers.push((*name, read_header(name, head, *length).map_err(|error| ImportError { problems: vec![error.to_string()] })?));
        }
        let predictions = rules::prediction_layers(&self.json);
        tensors::matched(self.model_type, &self.model, predictions, &headers).map_err(|problems| ImportError { problems })
    }

    /// Reads its tensors from the bytes of its files, each with its name for messages.
    ///
    /// # Errors
    /// Everything that [`Described::check_headers`] refuses, and every tensor that is not finite.
    pub fn read(self, files: &[(&str, &[u8])]) -> Result<Imported, ImportError> {
        let heads: Vec<(&str, &[u8], u64)> = files.iter().map(|(name, bytes)| (*name, *bytes, bytes.len() as u64)).collect();
        let matched = self.matched(&heads)?;
        let tensors = tensors::read(self.model_type, &self.model, &matched, files).map_err(|problems| ImportError { problems })?;
        let notes = [rules::not_carried(&self.json), matched.notes].concat();
        Ok(Imported { model: self.model, tensors, notes })
    }
}
