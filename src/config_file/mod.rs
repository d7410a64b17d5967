//! Config files: TOML against a declared schema, with every problem reported at once.
//!
//! Knows TOML and nothing of models. [`options!`](crate::options) declares a table of options once: names, types,
//! defaults, ranges, docs, and when a key applies. From that one declaration come the serde struct, the checks, the
//! messages, the effective file and the text of `explain`.
//!
//! How a config comes to be:
//! 1. *Layers* (`layers`): the file, what it `extends` (base first), then each `--set key=value`. Parsed with spans.
//! 2. *Check* (`check`): each layer is walked against the schema on its own, so that a slip in a base file is reported
//!    where it stands. What holds is kept flat, one entry a key; a later layer replaces an entry of an earlier one.
//! 3. *Applies* (`check`): a key that its sibling choice switches off is refused if it was set beside or after that choice,
//!    and dropped if it came from an earlier layer. No option is ever silently inert.
//! 4. The entries over the defaults are the config. What the values mean together is for the caller to judge, with
//!    [`Loaded::refuse`] to say where.
//!
//! Nothing here opens a file: the caller passes a reader. Hostile input is bounded: [`layers::MAX_BYTES`] a file,
//! [`layers::MAX_DEPTH`] files, the recursion limit of the parser, a range on every number.

mod check;
mod explain;
mod layers;
mod problem;
mod schema;
mod settings;
mod value;
mod write;

use std::collections::BTreeSet;

use serde::{Serialize, de::DeserializeOwned};

pub use check::{Entries, Entry};
pub use explain::{Explanation, explain};
pub use layers::{MAX_BYTES, MAX_DEPTH};
pub use problem::{Label, Place, Problem, Problems, Sources};
pub use schema::{Amount, Choice, Class, Condition, Field, Kind, Ranged, Value};
pub use settings::{Settings, settings};
pub use write::effective_toml;

/// A whole config: the root of a schema.
pub trait Root: Value + Default + Serialize + DeserializeOwned {
    /// Names that people bring from elsewhere, and the keys that they mean here.
    const SYNONYMS: &'static [(&'static str, &'static [&'static str])];
}

/// Gives the text of a path, or the reason why not.
pub type Reader<'a> = &'a dyn Fn(&str) -> Result<String, Unreadable>;

/// Why a file cannot be read, in words.
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

/// Keys whose values do not go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// What is wrong.
    pub message: String,
    /// The keys, dotted paths, each with what its value means here; the first is to blame.
    pub labels: Vec<(String, String)>,
    /// What would help.
    pub help: String,
}

impl Conflict {
    /// Of these keys.
    pub fn new(message: impl Into<String>, labels: &[(&str, String)], help: impl Into<String>) -> Conflict {
        let labels = labels.iter().map(|(key, text)| (key.to_string(), text.clone())).collect();
        Conflict { message: message.into(), labels, help: help.into() }
    }
}

/// A config as far as it could be read, with what was found wrong so far.
pub struct Loaded<C> {
    /// The entries over the defaults; entries with problems are left at their default.
    pub config: C,
    /// The keys that a layer set, and where.
    pub entries: Entries,
    sources: Sources,
    problems: Vec<Problem>,
    tainted: BTreeSet<String>,
    /// Every layer could be read, so that a value seen is a value meant.
    complete: bool,
    /// Beginning of the keys that were given apart from the layers, and who gave them.
    given: Option<(&'static str, &'static str)>,
}

/// Reads `path` and what it extends with `reader`, lays `sets` (each `key=value`) over it, and checks all of it.
///
/// `extends` paths are relative to the file that names them.
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
    /// Adds a problem between keys, at the places where they are set.
    ///
    /// Does nothing if one of the keys has a problem already, or a layer could not be read: the value seen here would be
    /// a default that nobody wrote. Keys at their default have no place in a file and are told in a note.
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

    /// Refuses the keys whose values `decider` has replaced, so that the config is no longer as it was `before`: those that were set beside
    /// or after it. What an earlier layer states is meant to be replaced.
    pub fn refuse_replaced(&mut self, decider: &str, before: &C)
    where
        C: Serialize,
    {
        let Some(rank) = self.entries.get(decider).map(|entry| entry.rank) else { return };
        let [before, now] = [before, &self.config].map(|config| toml::Table::try_from(config).expect("a config of plain tables is TOML"));
        let is_replaced = |key: &str| schema::lookup(&before, key) != schema::lookup(&now, key);
        let replaced: Vec<_> = self.entries.iter().filter(|(key, entry)| entry.rank >= rank && is_replaced(key)).collect();
        let replaced: Vec<_> = replaced.into_iter().map(|(key, _)| key.clone()).collect();
        for key in replaced {
            let value = schema::lookup(&now, &key).map(schema::literal).unwrap_or_default();
            self.refuse(Conflict::new(
                format!("`{key}` has no effect here: `{decider}` replaces it"),
                &[(&key, format!("would be {value}")), (decider, "because of this".into())],
                format!("remove one of the two; what an extended file states may be replaced by `{decider}`"),
            ));
        }
    }

    /// Whether nothing was found wrong so far.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// Forgets what layers say of the keys that begin with `prefix`: their values were put into `config` from elsewhere, `by` says
    /// from where.
    pub fn give(&mut self, prefix: &'static str, by: &'static str) {
        self.entries.retain(|key, _| !key.starts_with(prefix));
        self.given = Some((prefix, by));
    }

    /// The config, or all problems.
    pub fn finish(self) -> Result<C, Problems> {
        if self.problems.is_empty() { Ok(self.config) } else { Err(Problems::new(self.sources, self.problems)) }
    }
}
