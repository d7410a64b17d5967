//! Config files: TOML against a declared schema, with every problem reported at once.
//!
//! This module knows TOML but nothing about models. [`options!`](crate::options) declares a table of options once: names,
//! types, defaults, ranges, docs, and when a key applies. The serde struct, the checks, the messages, the effective file
//! and the text of `explain` are derived from that declaration.
//!
//! How a config is loaded:
//! 1. *Layers* (`layers`): the file, what it `extends` (base first), then each `--set key=value`. They are parsed with spans.
//! 2. *Check* (`check`): each layer is checked against the schema separately, so that an error in a base file is reported
//!    there. Valid values are kept in a flat map, one entry per key; later layers replace entries of earlier ones.
//! 3. *Applies* (`check`): a key that a sibling choice disables is refused if it was set together with or after that choice,
//!    and dropped if it comes from an earlier layer. No option is ever silently ignored.
//! 4. The entries merged over the defaults are the config. Checking values against each other is up to the caller, who
//!    reports conflicts with [`Loaded::refuse`].
//!
//! Nothing here opens a file: the caller passes a reader. Untrusted input is bounded: [`layers::MAX_BYTES`] per file,
//! [`layers::MAX_DEPTH`] files, the recursion limit of the parser, a range for every number.

mod check;
mod explain;
mod layers;
mod problem;
mod schema;
mod settings;
mod value;
mod write;

use std::collections::BTreeSet;

pub use check::{Entries, Entry};
pub use explain::{Explanation, explain};
pub use layers::{MAX_BYTES, MAX_DEPTH};
pub use problem::{Label, Place, Problem, Problems, Sources};
pub use schema::{Amount, Choice, Class, Condition, Field, Kind, Literals, Ranged, Value, table_of};
pub use settings::{Settings, settings, values};
pub use write::effective_toml;

/// A whole config: the root of a schema.
pub trait Root: Value + Default {
    /// Names from other programs, and the keys that they correspond to.
    const SYNONYMS: &'static [(&'static str, &'static [&'static str])];
}

/// Returns the text at a path, or the reason why it cannot be read.
pub type Reader<'a> = &'a dyn Fn(&str) -> Result<String, Unreadable>;

/// Why a file cannot be read, as text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

impl From<&str> for Unreadable {
    fn from(reason: &str) -> Unreadable {
        Unreadable(reason.into())
    }
}

impl From<String> for Unreadable {
    fn from(reason: String) -> Unreadable {
        Unreadable(reason)
    }
}

/// Keys whose values conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// What is wrong.
    pub message: String,
    /// The keys as dotted paths, each with a label; the first is the primary one.
    pub labels: Vec<(String, String)>,
    /// How to fix it.
    pub help: String,
}

impl Conflict {
    /// Of these keys.
    pub fn new(message: impl Into<String>, labels: &[(&str, String)], help: impl Into<String>) -> Conflict {
        let labels = labels.iter().map(|(key, text)| (key.to_string(), text.clone())).collect();
        Conflict { message: message.into(), labels, help: help.into() }
    }
}

/// A config, as much of it as could be read, with the problems found so far.
pub struct Loaded<C> {
    /// The entries merged over the defaults; entries with problems keep their default.
    pub config: C,
    /// The keys that a layer set, and where.
    pub entries: Entries,
    sources: Sources,
    problems: Vec<Problem>,
    tainted: BTreeSet<String>,
    /// Whether every layer could be read.
    complete: bool,
    /// Prefix of the keys that were set outside the layers, and by what.
    given: Option<(&'static str, &'static str)>,
}

/// Reads `path` and the files it extends with `reader`, applies `sets` (each `key=value`), and checks the result.
///
/// `extends` paths are relative to the file that contains them.
pub fn load<C: Root>(reader: Reader, path: &str, sets: &[String]) -> Loaded<C> {
    let mut sources = Sources::default();
    let mut problems = Vec::new();
    let layers = layers::read(reader, path, sets, &mut sources, &mut problems);
    let readable = problems.is_empty();
    let checked = check::check::<C>(&sources, &layers, problems);
    Loaded {
        config: checked.config,
        entries: checked.entries,
        problems: checked.problems,
        tainted: checked.tainted,
        complete: readable && checked.complete,
        given: None,
        sources,
    }
}

impl<C> Loaded<C> {
    /// Adds a conflict between keys, at the places where they are set.
    ///
    /// Does nothing if one of the keys already has a problem or a layer could not be read: its value would be a default that
    /// nobody wrote. Keys at their default have no place in a file; a note mentions them.
    pub fn refuse(&mut self, conflict: Conflict) {
        let Conflict { message, labels, help } = conflict;
        if !self.complete || labels.iter().any(|(key, _)| self.tainted.contains(key)) {
            return;
        }
        let mut problem = Problem::new(message).key(&labels[0].0);
        for (key, text) in &labels {
            match self.entries.get(key) {
                Some(entry) => problem = problem.label(entry.source, entry.value_span.clone(), format!("`{key}`: {text}")),
                None => {
                    let given = self.given.filter(|(prefix, _)| key.starts_with(prefix));
                    problem = problem.note(format!("`{key}`: {text} ({})", given.map_or("by default", |(_, by)| by)));
                }
            }
        }
        if !help.is_empty() {
            problem = problem.note(help);
        }
        self.problems.push(problem);
    }

    /// Refuses keys whose values `decider` replaced compared with the config `before`, if they were set together with or after
    /// it. Values of earlier layers are meant to be replaced.
    pub fn refuse_replaced(&mut self, decider: &str, before: &C)
    where
        C: Value,
    {
        let Some(rank) = self.entries.get(decider).map(|entry| entry.rank) else { return };
        let [before, now] = [before, &self.config].map(table_of);
        let is_replaced = |key: &str| schema::lookup(&before, key) != schema::lookup(&now, key);
        let replaced: Vec<_> = self.entries.iter().filter(|(key, entry)| entry.rank >= rank && is_replaced(key)).collect();
        let replaced: Vec<_> = replaced.into_iter().map(|(key, _)| key.clone()).collect();
        for key in replaced {
            let value = schema::lookup(&now, &key).map(schema::literal).unwrap_or_default();
            self.refuse(Conflict::new(
                format!("`{key}` has no effect here: `{decider}` replaces it"),
                &[(&key, format!("would be {value}")), (decider, "because of this".into())],
                format!("remove one of the two; `{decider}` may only replace values of an extended file"),
            ));
        }
    }

    /// Whether no problem was found so far.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// Forgets what the layers set for keys that start with `prefix`: their values in `config` come from elsewhere, which `by`
    /// describes.
    pub fn give(&mut self, prefix: &'static str, by: &'static str) {
        self.entries.retain(|key, _| !key.starts_with(prefix));
        self.given = Some((prefix, by));
    }

    /// The config, or all problems.
    pub fn finish(self) -> Result<C, Problems> {
        if self.problems.is_empty() { Ok(self.config) } else { Err(Problems::new(self.sources, self.problems)) }
    }
}
