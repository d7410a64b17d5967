//! A config for an imported model: the model is defined by its files, so the config only sets data and training.

use super::hugging_face::{is_setting_of_training, value_of, with_value};
use crate::config_file::{self, Conflict, Loaded, Problems, Reader};
use crate::run::ModelConfig;
use crate::run::config::{Config, TokenizerKind, rules};

/// The tokenizer of an imported model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnTokenizer {
    /// None.
    Missing,
    /// Its ids are bytes.
    Bytes,
    /// It will be stored at this path.
    File(String),
}

/// The result of [`load_around`].
#[derive(Debug)]
pub struct Around {
    /// The config.
    pub config: Config,
    /// Differences from the imported model, and settings that were ignored, one line each.
    pub notes: Vec<String>,
    /// Whether the tokenizer is that of the config rather than the model's.
    pub states_tokenizer: bool,
}

/// Like [`load`](crate::run::config::load), with `model` instead of the config's. The config's training settings of the model apply.
/// Other model settings are refused in a `--set`, and noted in a file, which may have been written for another model.
/// Sequences are at most as long as the model's context unless their length is set.
pub fn load_around(
    model: &ModelConfig,
    tokenizer: &OwnTokenizer,
    sources: Reader,
    path: &str,
    sets: &[String],
) -> Result<Around, Problems> {
    let mut loaded = config_file::load::<Config>(sources, path, sets);
    let notes = settle(&mut loaded, model);
    let states_tokenizer = loaded.entries.keys().any(|key| key.starts_with("data.tokenizer."));
    let data = &mut loaded.config.data;
    match tokenizer {
        _ if states_tokenizer && data.tokenizer.kind == TokenizerKind::Bpe => loaded.refuse(Conflict::new(
            "a newly trained tokenizer has other ids than the model's",
            &[("data.tokenizer.kind", "trains one".into())],
            "leave `data.tokenizer` out to use the model's own, or specify its tokenizer.json with kind = \"file\"",
        )),
        OwnTokenizer::Missing if !states_tokenizer => loaded.refuse(Conflict::new(
            "the model's folder has no tokenizer, so the meaning of its ids is unknown",
            &[("data.tokenizer.kind", "not stated".into())],
            "set it: --set data.tokenizer.kind=file --set data.tokenizer.path=tokenizer.json, or kind=bytes if an id is a byte",
        )),
        OwnTokenizer::File(path) if !states_tokenizer => {
            data.tokenizer.kind = TokenizerKind::File;
            data.tokenizer.path = path.clone();
        }
        _ => {}
    }
    if !loaded.entries.contains_key("data.sequence_length") {
        loaded.config.data.sequence_length = loaded.config.data.sequence_length.min(model.context);
    }
    if loaded.is_sound() {
        rules::check(&mut loaded);
    }
    Ok(Around { config: loaded.finish()?, notes, states_tokenizer })
}

/// Puts the model into the config, with the training settings that the config has for it.
fn settle(loaded: &mut Loaded<Config>, model: &ModelConfig) -> Vec<String> {
    let mut stated: Vec<_> = loaded.entries.iter().filter_map(|(path, entry)| Some((path.strip_prefix("model.")?, entry))).collect();
    // Choices first, because they decide which other keys apply.
    stated.sort_by_key(|(key, _)| !key.ends_with(".kind"));
    let (mut given, mut notes, mut refused) = (model.clone(), Vec::new(), Vec::new());
    for (key, entry) in stated {
        let now = value_of(&given, key);
        let is_same = now.as_ref().is_some_and(|now| *now == entry.value);
        // The tokenizer's vocabulary size says nothing about the model.
        if is_same || (key == "vocabulary" && entry.value.as_integer() == Some(0)) {
            continue;
        }
        match now {
            Some(now) if is_setting_of_training(key) => {
                notes.push(format!("model.{key} = {}, as set; the model's files have {now}", entry.value));
                given = with_value(&given, key, &entry.value);
            }
            Some(now) if entry.is_set() => refused.push((format!("model.{key}"), format!("the model has {now}"))),
            None if entry.is_set() => refused.push((format!("model.{key}"), "has no effect on this model".into())),
            Some(now) => notes.push(format!("model.{key} = {} is ignored: the model has {now}", entry.value)),
            None => notes.push(format!("model.{key} = {} is ignored: it has no effect on this model", entry.value)),
        }
    }
    for (key, text) in refused {
        loaded.refuse(Conflict::new(
            "an imported model is defined by its files",
            &[(&key, text)],
            "leave it out; only training settings can be changed",
        ));
    }
    loaded.config.model = given;
    loaded.give("model.", "by the model's files");
    notes
}
