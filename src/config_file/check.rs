//! Walks every layer against the schema: unknown keys, wrong types, values out of range, keys that do not apply.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Root;
use super::layers::{self, Layer};
use super::problem::{Problem, Sources};
use super::schema::{Condition, Field, Kind, literal, lookup, names, table_of};
use super::value::{self, Written, nearest};

/// Maximum number of problems collected: a file with more is probably not a config.
const MAX_PROBLEMS: usize = 100;

/// The keys that a layer set, by full path.
pub type Entries = BTreeMap<String, Entry>;

/// One key as set by a layer.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The keys from the root down.
    pub segments: Vec<String>,
    /// The value.
    pub value: toml::Value,
    /// Index of the source.
    pub source: usize,
    /// Rank of the layer.
    pub rank: usize,
    /// Byte range of the key.
    pub key_span: Range<usize>,
    /// Byte range of the value.
    pub value_span: Range<usize>,
}

impl Entry {
    /// Whether a `--set` argument set it.
    pub fn is_set(&self) -> bool {
        self.rank == usize::MAX
    }
}

/// The result of checking all layers.
pub(super) struct Checked<C> {
    pub config: C,
    pub entries: Entries,
    pub problems: Vec<Problem>,
    pub tainted: BTreeSet<String>,
    pub complete: bool,
}

/// Checks all layers and merges their entries over the defaults of `C`.
pub(super) fn check<C: Root>(sources: &Sources, layers: &[Layer], problems: Vec<Problem>) -> Checked<C> {
    let root = C::kind();
    let Kind::Table(fields) = &root else { unreachable!("a config is a table of options") };
    let mut walk = Walk {
        root: &root,
        synonyms: C::SYNONYMS,
        layer: &Layer { source: 0, rank: 0, is_set: false },
        text: "",
        broken: Vec::new(),
        entries: Entries::new(),
        problems,
        tainted: BTreeSet::new(),
    };
    let mut complete = true;
    for layer in layers {
        walk.layer = layer;
        walk.text = sources.text(layer.source);
        let (parsed, errors) = layers::parse(walk.text);
        complete &= errors.is_empty();
        let found = errors.iter().map(|(span, e)| layers::syntax_problem(layer.source, walk.text, span.clone(), e));
        walk.problems.extend(found);
        walk.broken = parsed.broken;
        if let (Some(value), true) = (&parsed.extends, layer.is_set) {
            let problem = Problem::new("`extends` belongs in a file").key("extends");
            walk.problems.push(problem.label(layer.source, value.span(), "not allowed in a `--set`"));
        }
        if !parsed.lost {
            walk.table(fields, &parsed.table, &[]);
        }
    }
    let defaults = table_of(&C::default());
    walk.drop_inapplicable(&defaults);
    let config = C::read(&merged(&walk.entries).into()).expect("values that pass the schema fit the struct");
    Checked { config, entries: walk.entries, problems: walk.problems, tainted: walk.tainted, complete }
}

/// The entries as one nested table.
fn merged(entries: &Entries) -> toml::Table {
    let mut root = toml::Table::new();
    for entry in entries.values() {
        let (last, above) = entry.segments.split_last().expect("an entry has a key");
        let mut table = &mut root;
        for segment in above {
            let below = table.entry(segment).or_insert_with(|| toml::Table::new().into());
            table = below.as_table_mut().expect("no key of the schema is both a table and a value");
        }
        table.insert(last.clone(), entry.value.clone());
    }
    root
}

/// `above` and `key` as one path; a key that is not a bare TOML key is quoted.
fn join(above: &[String], key: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let quote = |s: &str| if !s.is_empty() && s.chars().all(bare) { s.to_owned() } else { format!("{s:?}") };
    above.iter().map(String::as_str).chain([key]).map(quote).collect::<Vec<_>>().join(".")
}

struct Walk<'a> {
    root: &'a Kind,
    synonyms: &'static [(&'static str, &'static [&'static str])],
    layer: &'a Layer,
    text: &'a str,
    broken: Vec<Range<usize>>,
    entries: Entries,
    problems: Vec<Problem>,
    tainted: BTreeSet<String>,
}

impl<'a> Walk<'a> {
    fn table(&mut self, fields: &'a [Field], table: &DeTable<'_>, above: &[String]) {
        let mut keys: Vec<_> = table.iter().collect();
        keys.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in keys {
            if self.problems.len() >= MAX_PROBLEMS || self.is_broken(value.span().start) {
                continue;
            }
            match fields.iter().find(|field| field.name == key.get_ref()) {
                Some(field) => self.field(&field.kind, &field.doc, key.get_ref(), key.span(), value, above),
                None => self.unknown(fields, key.get_ref(), key.span(), above),
            }
        }
    }

    fn written<'w>(&'w self, value: &'w Spanned<DeValue<'w>>) -> Written<'w> {
        Written { found: value.get_ref(), source: &self.text[value.span()], bare: self.layer.is_set }
    }

    /// Whether the line of this byte has a syntax error.
    fn is_broken(&self, at: usize) -> bool {
        self.broken.iter().any(|line| (line.start..=line.end).contains(&at))
    }

    /// Checks one known key.
    fn field(&mut self, kind: &'a Kind, doc: &str, key: &str, key_span: Range<usize>, value: &Spanned<DeValue<'_>>, above: &[String]) {
        let path = join(above, key);
        let segments: Vec<String> = above.iter().cloned().chain([key.to_owned()]).collect();
        match (kind, value.get_ref()) {
            (Kind::Table(fields), DeValue::Table(table)) => self.table(fields, table, &segments),
            (Kind::Map(kind), DeValue::Table(table)) => {
                for (key, value) in table {
                    self.field(kind, doc, key.get_ref(), key.span(), value, &segments);
                }
            }
            _ => match value::value(kind, self.written(value)) {
                Ok(good) => {
                    let Layer { source, rank, .. } = *self.layer;
                    let entry = Entry { segments, value: good, source, rank, key_span, value_span: value.span() };
                    self.entries.insert(path, entry);
                }
                Err(wrong) => {
                    let problem = Problem::new(wrong.message(&path)).key(&path);
                    let problem = problem.label(self.layer.source, wrong.at.unwrap_or(value.span()), wrong.label).note(doc);
                    self.problems.push(wrong.notes.into_iter().fold(problem, Problem::note));
                    self.tainted.insert(path);
                }
            },
        }
    }

    /// Reports an unknown key; suggests the nearest sibling, the same name in another table, or the key that other programs call so.
    fn unknown(&mut self, fields: &[Field], key: &str, span: Range<usize>, above: &[String]) {
        let path = join(above, key);
        let here = if above.is_empty() { String::new() } else { format!("{}.", above.join(".")) };
        let guesses = self.guesses(fields, key, &here);
        let short: Vec<_> = guesses.iter().map(|guess| format!("`{}`", guess.strip_prefix(&here).unwrap_or(guess))).collect();
        let label = if short.is_empty() { "no such key".into() } else { format!("did you mean {}?", short.join(" and ")) };
        let problem = Problem::new(format!("unknown key `{path}`")).key(&path).label(self.layer.source, span, label);
        self.problems.push(problem.note(match above {
            [] => format!("top-level keys: extends, {}", names(fields)),
            _ => format!("keys of `{}`: {}", above.join("."), names(fields)),
        }));
        self.tainted.extend(guesses);
    }

    fn guesses(&self, fields: &[Field], key: &str, here: &str) -> Vec<String> {
        let synonym = |name| self.synonyms.iter().find(|(synonym, _)| *synonym == name).map(|(_, meant)| *meant);
        let known = synonym(key).or_else(|| synonym(nearest(key, self.synonyms.iter().map(|(name, _)| *name))?));
        let sibling = nearest(key, fields.iter().map(|field| field.name)).map(|name| format!("{here}{name}"));
        if let (Some(meant), true) = (known, sibling.is_none() || synonym(key).is_some()) {
            let close: Vec<_> = meant.iter().filter(|meant| meant.starts_with(here)).collect();
            let meant = if close.is_empty() { meant.iter().collect() } else { close };
            return meant.into_iter().map(|&meant| meant.to_owned()).collect();
        }
        let mut same = Vec::new();
        self.root.leaves(&mut |path, field, _| {
            if field.name == key {
                same.push(path.to_owned());
            }
        });
        sibling.into_iter().chain((same.len() == 1).then(|| same.remove(0))).take(1).collect()
    }

    /// Refuses a key that its deciding choice switches off, if it is set in the same layer as that choice or a later one;
    /// drops it if it comes from an earlier layer.
    fn drop_inapplicable(&mut self, defaults: &toml::Table) {
        let (root, mut inert) = (self.root, Vec::new());
        root.leaves(&mut |path, _, conditions| {
            let below = format!("{path}.");
            let set = self.entries.iter().filter(|(key, _)| *key == path || key.starts_with(&below));
            inert.extend(set.filter_map(|(key, _)| Some((key.clone(), *conditions.iter().find(|c| !self.holds(c, defaults))?))));
        });
        for (key, condition) in inert {
            let entry = self.entries.remove(&key).expect("the key was just found");
            let decider = self.entries.get(condition.key);
            if self.tainted.contains(condition.key) || decider.is_some_and(|decider| decider.rank > entry.rank) {
                continue;
            }
            let mut problem = Problem::new(format!("`{key}` has no effect here: it applies only when {condition}")).key(&key).label(
                entry.source,
                entry.key_span,
                "never read",
            );
            problem = match decider {
                Some(decider) => problem.label(decider.source, decider.value_span.clone(), "because of this"),
                None => problem.note(format!("`{}` is {} by default", condition.key, text_of(condition.key, defaults))),
            };
            self.problems.push(problem.note(format!("remove `{key}`, or set `{}` to {}", condition.key, condition.names())));
            self.tainted.insert(key);
        }
    }

    fn holds(&self, condition: &Condition, defaults: &toml::Table) -> bool {
        let value = self.entries.get(condition.key).map(|entry| &entry.value).or_else(|| lookup(defaults, condition.key));
        value.and_then(toml::Value::as_str).is_some_and(|name| condition.among.contains(&name))
    }
}

fn text_of(key: &str, table: &toml::Table) -> String {
    lookup(table, key).map(literal).unwrap_or_default()
}
