//! Corresponding keys of `config.json` and of a model's config, and rules where they differ in form.

use std::collections::BTreeMap;

use serde_json::Value as Found;

use crate::config_file::{Kind, Value};
use crate::run::model::ModelConfig;
pub(super) use crate::run::quote::shortened;

/// A model's config by dotted keys, with every key present.
pub(super) type Flat = BTreeMap<String, toml::Value>;
/// The content of `config.json`.
pub(super) type Json = serde_json::Map<String, Found>;

/// A key of `config.json` that corresponds to one or more keys of a model's config.
#[derive(Clone, Copy)]
pub(super) struct Key {
    /// Name in `config.json`.
    pub json: &'static str,
    /// Names in the model's config: all are set to the same value.
    ours: &'static [&'static str],
    form: Form,
    /// The meaning of an absent key, as JSON; other keys are required.
    absent: Option<&'static str>,
    /// The meaning of `null`, as JSON. transformers keeps a `null` and rejects most, so it differs from an absent key.
    null: Option<&'static str>,
}

/// How the values of a [`Key`] correspond.
#[derive(Clone, Copy)]
enum Form {
    Same,
    /// `null` in JSON is 0 in the config.
    NullForZero,
    /// Pairs of a JSON text and the name of a choice; of several with the same name the first is written.
    Named(&'static [(&'static str, &'static str)]),
}

impl Key {
    /// The same value under both names.
    pub const fn same(json: &'static str, ours: &'static [&'static str]) -> Key {
        Key { json, ours, form: Form::Same, absent: None, null: None }
    }

    /// Named choices: pairs of the JSON text and the name of the choice.
    pub const fn named(json: &'static str, ours: &'static [&'static str], names: &'static [(&'static str, &'static str)]) -> Key {
        Key { json, ours, form: Form::Named(names), absent: None, null: None }
    }

    /// As [`Key::same`], but 0 in the config is `null` in JSON, and 0 in JSON is not allowed.
    pub const fn positive(json: &'static str, ours: &'static [&'static str]) -> Key {
        Key { json, ours, form: Form::NullForZero, absent: None, null: None }
    }

    /// Sets the meaning of an absent key, as JSON.
    pub const fn or(self, absent: &'static str) -> Key {
        Key { absent: Some(absent), ..self }
    }

    /// Sets the meaning of `null`, as JSON; for a [`Key::positive`], `null` is 0 in the config.
    pub const fn or_null(self, null: &'static str) -> Key {
        Key { null: Some(null), ..self }
    }

    pub fn read(&self, json: &Json, flat: &mut Flat) -> Result<(), String> {
        let meant = match json.get(self.json) {
            None => self.absent.map(from_text),
            Some(Found::Null) => self.null.map(from_text),
            Some(_) => None,
        };
        let is_allowed_null = meant.as_ref().is_some_and(Found::is_null);
        let Some(found) = meant.as_ref().or(json.get(self.json)) else { return Err(format!("`{}` is missing", self.json)) };
        let wanted = |what: &str| format!("`{}` is {}, expected {what}", self.json, shown(found));
        for ours in self.ours {
            let kind = ModelConfig::kind().find(ours).cloned().expect("a key of the table is a key of the model");
            let value = match self.form {
                Form::Same => converted(found, &kind).ok_or_else(|| wanted(&kind.allowed()))?,
                Form::NullForZero if is_allowed_null => toml::Value::Integer(0),
                Form::NullForZero => {
                    let value = converted(found, &kind).filter(|value| value.as_integer() != Some(0));
                    let or_null = if self.null == Some("null") { "null or " } else { "" };
                    value.ok_or_else(|| wanted(&format!("{or_null}{}, but not 0", kind.allowed())))?
                }
                Form::Named(names) => {
                    let text = found.to_string();
                    let all = || names.iter().map(|(json, _)| *json).collect::<Vec<_>>().join(", ");
                    let name = names.iter().find(|(json, _)| *json == text).map(|(_, name)| *name);
                    name.ok_or_else(|| wanted(&format!("one of {}", all())))?.into()
                }
            };
            flat.insert((*ours).into(), value);
        }
        Ok(())
    }

    pub fn write(&self, flat: &Flat, json: &mut Json) {
        let value = &flat[self.ours[0]];
        let written = match self.form {
            Form::NullForZero if value.as_integer() == Some(0) => Some(Found::Null),
            Form::Same | Form::NullForZero => Some(serde_json::to_value(value).expect("a number, a text or a truth value is JSON")),
            // A choice without a JSON name is omitted, so reading the file back reveals it.
            Form::Named(names) => names.iter().find(|(_, name)| value.as_str() == Some(*name)).map(|(json, _)| from_text(json)),
        };
        json.extend(written.map(|written| (self.json.to_string(), written)));
    }
}

/// A rule for several keys of `config.json`.
#[derive(Clone, Copy)]
pub(super) struct Rule {
    /// The keys that it reads.
    pub reads: &'static [&'static str],
    /// Sets keys of the model's config.
    pub read: fn(&Json, &mut Flat) -> Result<(), String>,
    /// Adds keys to `config.json`.
    pub write: fn(&ModelConfig, &mut Json),
}

/// Converts a JSON value to one that the schema allows.
pub(super) fn converted(found: &Found, kind: &Kind) -> Option<toml::Value> {
    match kind {
        Kind::Boolean => found.as_bool().map(toml::Value::Boolean),
        Kind::Integer { min, max } => {
            let number = found.as_u64().filter(|number| (min..=max).contains(&number))?;
            i64::try_from(number).ok().map(toml::Value::Integer)
        }
        Kind::Real { min, max } => found.as_f64().filter(|number| (min..=max).contains(&number)).map(toml::Value::Float),
        _ => None,
    }
}

/// A constant of the tables.
pub(super) fn from_text(json: &str) -> Found {
    serde_json::from_str(json).expect("a constant of this module is JSON")
}

/// A value from a file, truncated for a message.
pub(super) fn shown(found: &Found) -> String {
    shortened(&found.to_string())
}

/// Maximum number of problems reported for a file.
const MOST_PROBLEMS: usize = 16;

/// The first problems, and the number of the others.
pub(super) fn first_of(mut problems: Vec<String>) -> Vec<String> {
    if problems.len() > MOST_PROBLEMS {
        let more = problems.len() - MOST_PROBLEMS;
        problems.truncate(MOST_PROBLEMS);
        problems.push(format!("and {more} more"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_problems_are_reported() {
        let shown = first_of((0..50_001).map(|i| i.to_string()).collect());
        assert_eq!((shown.len(), shown[16].as_str()), (17, "and 49985 more"));
    }
}
