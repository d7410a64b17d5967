//! The schema as text: description, allowed values and default of each key.

use serde::Serialize;

use super::Root;
use super::schema::{Class, Kind, literal, lookup, table_of};

/// Everything about one key, for help texts and tooltips.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// Full path.
    pub key: String,
    /// Its description.
    pub doc: String,
    /// The allowed values.
    pub allowed: String,
    /// Its default, as TOML.
    pub default: String,
    /// Each choice and what it means; empty for other kinds.
    pub choices: Vec<(String, String)>,
    /// When the key applies; empty for always.
    pub applies: Vec<String>,
    /// What changing it means for a run that has started.
    pub class: Class,
}

/// Explains every key of a config, in the order of the schema.
pub fn explain<C: Root>() -> Vec<Explanation> {
    let defaults = table_of(&C::default());
    let mut all = Vec::new();
    C::kind().leaves(&mut |path, field, conditions| {
        let choices = match field.kind {
            Kind::Choice(choices) => choices.iter().map(|c| (c.name.to_owned(), c.doc.to_owned())).collect(),
            _ => Vec::new(),
        };
        all.push(Explanation {
            key: path.to_owned(),
            doc: field.doc.clone(),
            allowed: field.kind.allowed(),
            default: lookup(&defaults, path).map(literal).unwrap_or_default(),
            choices,
            applies: conditions.iter().map(ToString::to_string).collect(),
            class: field.class,
        });
    });
    all
}
