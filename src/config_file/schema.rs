//! The schema: what each key may hold, declared once beside the struct that holds it.
//!
//! `options!` writes a struct of options, `choices!` an enum of named choices. Both implement [`Value`], whose [`Kind`]
//! is the schema as data: the checker, the messages, the effective file and `explain` read nothing else.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What a key may hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number, both ends allowed.
    Integer {
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
    /// A finite number, both ends allowed.
    Real {
        /// Least.
        min: f64,
        /// Most.
        max: f64,
    },
    /// Text of at most [`Kind::LONGEST_TEXT`] bytes.
    Text,
    /// A list of texts, at most [`Kind::LONGEST_LIST`] of them.
    Texts,
    /// One of these names.
    Choice(&'static [Choice]),
    /// A count up to `max`, or a percentage of a whole: see [`Amount`].
    Amount {
        /// Most.
        max: u32,
    },
    /// Keys that the user chooses, all with values of one kind.
    Map(Box<Kind>),
    /// Options below.
    Table(Vec<Field>),
}

/// One named choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// As written in a file.
    pub name: &'static str,
    /// What it means.
    pub doc: &'static str,
}

/// One key of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The key, without the path before it.
    pub name: &'static str,
    /// What it is, one sentence or two.
    pub doc: String,
    /// What it may hold.
    pub kind: Kind,
    /// The key applies only then; a table's condition holds for all keys below it.
    pub when: Option<Condition>,
    /// What a change of it means to a run that has begun. Of a table below, its own declaration says it key by key.
    pub class: Class,
}

/// What a key is to a run, and so what follows if a run that has begun finds another value there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The function that the weights and the optimizer's moments belong to: another value is another model.
    Model,
    /// Which text a run sees, and in what order.
    Data,
    /// How the weights move: another value goes on as another run would, and must be asked for.
    Optimisation,
    /// Where a run ends and where it is measured; no update depends on it but through schedules that are relative to it.
    Length,
    /// What is kept, printed, and found where. No number of the training depends on it.
    Bookkeeping,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 5] = [Class::Model, Class::Data, Class::Optimisation, Class::Length, Class::Bookkeeping];

    /// As messages and the command line name it.
    pub fn name(self) -> &'static str {
        match self {
            Class::Model => "model",
            Class::Data => "data",
            Class::Optimisation => "optimisation",
            Class::Length => "length",
            Class::Bookkeeping => "bookkeeping",
        }
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// "`key` is one of `among`", where `key` is the full path of a choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    /// Full path of the deciding choice.
    pub key: &'static str,
    /// Names for which the condition holds.
    pub among: &'static [&'static str],
}

/// A type that can stand in a config.
pub trait Value {
    /// Its schema.
    fn kind() -> Kind;
}

/// A type whose values can be bounded.
pub trait Ranged: Value {
    /// What a bound is.
    type Bound;
    /// Its schema within `range`.
    fn within(range: RangeInclusive<Self::Bound>) -> Kind;
}

/// A count, or a percentage of a whole that is known later: `12` or `"5%"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So many.
    Count(u32),
    /// So many hundredths of the whole, 0 to 100.
    Percent(f64),
}

impl Amount {
    /// The count that this makes of `whole`, rounded down.
    pub fn of(self, whole: u32) -> u32 {
        match self {
            Amount::Count(count) => count,
            Amount::Percent(percent) => (f64::from(whole) * percent / 100.0).floor() as u32,
        }
    }

    /// Reads `5%` or `12.5%`.
    pub fn parse_percent(text: &str) -> Option<Amount> {
        let percent: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
        ((0.0..=100.0).contains(&percent) && percent.is_sign_positive()).then_some(Amount::Percent(percent))
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Amount::Count(count) => serializer.serialize_u32(*count),
            Amount::Percent(percent) => serializer.collect_str(&format_args!("{percent}%")),
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Count(u32),
            Percent(String),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Count(count) => Ok(Amount::Count(count)),
            Raw::Percent(text) => Amount::parse_percent(&text).ok_or_else(|| D::Error::custom("expected a percentage such as \"5%\"")),
        }
    }
}

impl Value for bool {
    fn kind() -> Kind {
        Kind::Boolean
    }
}
impl Value for u32 {
    fn kind() -> Kind {
        Kind::Integer { min: 0, max: u64::from(u32::MAX) }
    }
}
impl Ranged for u32 {
    type Bound = u32;
    fn within(range: RangeInclusive<u32>) -> Kind {
        Kind::Integer { min: u64::from(*range.start()), max: u64::from(*range.end()) }
    }
}
impl Value for u64 {
    /// TOML integers are signed.
    fn kind() -> Kind {
        Kind::Integer { min: 0, max: i64::MAX as u64 }
    }
}
impl Value for f64 {
    fn kind() -> Kind {
        Kind::Real { min: f64::MIN, max: f64::MAX }
    }
}
impl Ranged for f64 {
    type Bound = f64;
    fn within(range: RangeInclusive<f64>) -> Kind {
        Kind::Real { min: *range.start(), max: *range.end() }
    }
}
impl Value for String {
    fn kind() -> Kind {
        Kind::Text
    }
}
impl Value for Vec<String> {
    fn kind() -> Kind {
        Kind::Texts
    }
}
impl Value for Amount {
    fn kind() -> Kind {
        Kind::Amount { max: u32::MAX }
    }
}
impl Ranged for Amount {
    type Bound = u32;
    fn within(range: RangeInclusive<u32>) -> Kind {
        Kind::Amount { max: *range.end() }
    }
}
impl<T: Value> Value for BTreeMap<String, T> {
    fn kind() -> Kind {
        Kind::Map(Box::new(T::kind()))
    }
}

/// Declares a struct of options with its defaults, ranges and docs.
///
/// It reads `struct Name: class`, where the [`Class`] is that of every key but those with a `#[class(other)]` before them: a
/// table without one does not compile. A line reads `name: Type = default => range;`. Without `= default` the type's own default
/// holds, without `=> range` the whole type is allowed. `#[when("full.key" = "a" | "b")]` before a line says that it applies only
/// then; it stands before `#[class(...)]`.
///
/// A default is part of the format of run folders, which keep the values that differ from it: it is never changed.
#[macro_export]
macro_rules! options {
    ($(#[doc = $doc:literal])+ $vis:vis struct $name:ident : $class:ident {
        $($(#[doc = $field_doc:literal])+ $(#[when($when:literal = $($among:literal)|+)])? $(#[class($own:ident)])?
          $field:ident : $type:ty $(= $default:expr)? $(=> $range:expr)?;)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        $vis struct $name { $($(#[doc = $field_doc])+ pub $field: $type,)+ }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $crate::options!(@default $type $(, $default)?),)+ }
            }
        }

        impl $crate::config_file::Value for $name {
            fn kind() -> $crate::config_file::Kind {
                $crate::config_file::Kind::Table(vec![$($crate::config_file::Field {
                    name: stringify!($field),
                    doc: concat!($($field_doc),+).trim().to_owned(),
                    kind: $crate::options!(@kind $type $(, $range)?),
                    when: [$($crate::config_file::Condition { key: $when, among: &[$($among),+] })?].first().copied(),
                    class: [$($crate::options!(@class $own),)? $crate::options!(@class $class)][0],
                },)+])
            }
        }
    };
    (@default $type:ty) => { <$type>::default() };
    (@default $type:ty, $default:expr) => { $default };
    (@kind $type:ty) => { <$type as $crate::config_file::Value>::kind() };
    (@class model) => { $crate::config_file::Class::Model };
    (@class data) => { $crate::config_file::Class::Data };
    (@class optimisation) => { $crate::config_file::Class::Optimisation };
    (@class length) => { $crate::config_file::Class::Length };
    (@class bookkeeping) => { $crate::config_file::Class::Bookkeeping };
    (@kind $type:ty, $range:expr) => { <$type as $crate::config_file::Ranged>::within($range) };
}

/// Declares an enum of named choices; a line reads `Variant = "name",`.
#[macro_export]
macro_rules! choices {
    ($(#[doc = $doc:literal])+ $vis:vis enum $name:ident {
        $($(#[doc = $choice_doc:literal])+ $variant:ident = $text:literal,)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        $vis enum $name { $($(#[doc = $choice_doc])+ #[serde(rename = $text)] $variant,)+ }

        impl $crate::config_file::Value for $name {
            fn kind() -> $crate::config_file::Kind {
                const CHOICES: &[$crate::config_file::Choice] = &[$($crate::config_file::Choice {
                    name: $text,
                    doc: concat!($($choice_doc),+).trim_ascii(),
                },)+];
                $crate::config_file::Kind::Choice(CHOICES)
            }
        }
    };
}

impl Kind {
    /// Most bytes of a text.
    pub const LONGEST_TEXT: usize = 4096;
    /// Most texts of a list.
    pub const LONGEST_LIST: usize = 1024;

    /// What is allowed, to stand after "wants": `an integer from 1 to 64`.
    pub fn allowed(&self) -> String {
        match self {
            Kind::Boolean => "true or false".into(),
            Kind::Integer { min, max } => format!("an integer from {min} to {max}"),
            Kind::Real { min, max } => format!("a number from {} to {}", Number(*min), Number(*max)),
            Kind::Text => format!("a text of at most {} bytes", Self::LONGEST_TEXT),
            Kind::Texts => format!("a list of texts, at most {} of them", Self::LONGEST_LIST),
            Kind::Choice(choices) => one_of(choices.iter().map(|choice| choice.name)),
            Kind::Amount { max } => format!("a count up to {max}, or a percentage such as \"5%\""),
            Kind::Map(kind) => format!("a table whose values are {}", kind.allowed()),
            Kind::Table(fields) => format!("a table of {}", names(fields)),
        }
    }

    /// The schema below a dotted path of declared keys.
    pub fn find(&self, path: &str) -> Option<&Kind> {
        if path.is_empty() {
            return Some(self);
        }
        let (head, rest) = path.split_once('.').unwrap_or((path, ""));
        let Kind::Table(fields) = self else { return None };
        fields.iter().find(|field| field.name == head)?.kind.find(rest)
    }

    /// Calls `visit` with the full path, the field and the conditions of every key that is no table.
    pub fn leaves<'k>(&'k self, visit: &mut dyn FnMut(&str, &'k Field, &[Condition])) {
        fn walk<'k>(kind: &'k Kind, path: &str, above: &[Condition], visit: &mut dyn FnMut(&str, &'k Field, &[Condition])) {
            let Kind::Table(fields) = kind else { return };
            for field in fields {
                let path = if path.is_empty() { field.name.to_owned() } else { format!("{path}.{}", field.name) };
                let conditions: Vec<_> = above.iter().copied().chain(field.when).collect();
                match field.kind {
                    Kind::Table(_) => walk(&field.kind, &path, &conditions, visit),
                    _ => visit(&path, field, &conditions),
                }
            }
        }
        walk(self, "", &[], visit);
    }
}

/// The keys of a table for a message: `a, b, c`.
pub(super) fn names(fields: &[Field]) -> String {
    fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ")
}

/// A number as a person would write it: `0.9999`, `1e-8`.
struct Number(pub f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = self.0.abs();
        if size != 0.0 && !(1e-4..1e7).contains(&size) { write!(f, "{:e}", self.0) } else { write!(f, "{}", self.0) }
    }
}

/// A value as TOML, small and large numbers with an exponent.
pub(super) fn literal(value: &toml::Value) -> String {
    match value.as_float().map(|number| Number(number).to_string()) {
        Some(digits) if digits.contains(['.', 'e']) => digits,
        Some(digits) => digits + ".0",
        None => value.to_string(),
    }
}

/// The value at a dotted path of declared keys.
pub(super) fn lookup<'t>(table: &'t toml::Table, path: &str) -> Option<&'t toml::Value> {
    match path.split_once('.') {
        Some((head, rest)) => lookup(table.get(head)?.as_table()?, rest),
        None => table.get(path),
    }
}

impl Condition {
    /// The names, to be read: `"cosine" or "linear"`.
    pub fn names(&self) -> String {
        one_of(self.among.iter().copied())
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "`{}` is {}", self.key, self.names())
    }
}

/// `"a", "b" or "c"`.
fn one_of<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let mut quoted: Vec<_> = names.map(|name| format!("\"{name}\"")).collect();
    let last = quoted.pop().unwrap_or_default();
    if quoted.is_empty() { last } else { format!("{} or {last}", quoted.join(", ")) }
}
