//! A config around a model that is given: an imported one is what its files say, so its config states data and training only.

use super::hugging_face::{is_setting_of_training, value_of, with_value};
use crate::config_file::{self, Conflict, Loaded, Problems, Reader};
use crate::run::ModelConfig;
use crate::run::config::{Config, TokenizerKind, rules};

/// The tokenizer that came with a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnTokenizer {
    /// None.
    Missing,
    /// Its ids are bytes.
    Bytes,
    /// It will lie at this path.
    File(String),
}

/// What [`load_around`] makes.
#[derive(Debug)]
pub struct Around {
    /// The config.
    pub config: Config,
    /// Where it departs from the given model, and what was asked for and is not in it, a line each.
    pub notes: Vec<String>,
    /// The tokenizer is that of the config, not the model's own.
    pub states_tokenizer: bool,
}

/// As [`load`](crate::run::config::load), with `model` in place of the config's. Settings of training that the config states for the model hold;
/// another model is refused where a `--set` asks for it, and told where a file does, which may have been written for another model.
/// Sequences are at most as long as the model's context unless their length is stated.
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
            "a tokenizer that is trained here has other ids than the model's",
            &[("data.tokenizer.kind", "trains one".into())],
            "leave `data.tokenizer` out to take the model's own, or name its tokenizer.json by kind = \"file\"",
        )),
        OwnTokenizer::Missing if !states_tokenizer => loaded.refuse(Conflict::new(
            "the model's folder has no tokenizer, and its ids are not guessed",
            &[("data.tokenizer.kind", "not stated".into())],
            "state it: --set data.tokenizer.kind=file --set data.tokenizer.path=tokenizer.json, or kind=bytes if an id is a byte",
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

/// Puts the model into the config, with the settings of training that are stated for it.
fn settle(loaded: &mut Loaded<Config>, model: &ModelConfig) -> Vec<String> {
    let mut stated: Vec<_> = loaded.entries.iter().filter_map(|(path, entry)| Some((path.strip_prefix("model.")?, entry))).collect();
    // Choices first, as they decide which other keys apply.
    stated.sort_by_key(|(key, _)| !key.ends_with(".kind"));
    let (mut given, mut notes, mut refused) = (model.clone(), Vec::new(), Vec::new());
    for (key, entry) in stated {
        let now = value_of(&given, key);
        let is_same = now.as_ref().is_some_and(|now| *now == entry.value);
        // A size of the tokenizer's is no statement about the model.
        if is_same || (key == "vocabulary" && entry.value.as_integer() == Some(0)) {
            continue;
        }
        match now {
            Some(now) if is_setting_of_training(key) => {
                notes.push(format!("model.{key} = {}, as stated; the model's files mean {now}", entry.value));
                given = with_value(&given, key, &entry.value);
            }
            Some(now) if entry.is_set() => refused.push((format!("model.{key}"), format!("the model has {now}"))),
            None if entry.is_set() => refused.push((format!("model.{key}"), "has no effect on this model".into())),
            Some(now) => notes.push(format!("model.{key} = {} is not taken: the model has {now}", entry.value)),
            None => notes.push(format!("model.{key} = {} is not taken: it has no effect on this model", entry.value)),
        }
    }
    for (key, text) in refused {
        loaded.refuse(Conflict::new(
            "an imported model is what its files say",
            &[(&key, text)],
            "leave it out; settings of training can be set",
        ));
    }
    loaded.config.model = given;
    loaded.give("model.", "by the model's files");
    notes
}
