//! The schema: the allowed values of each key, declared once together with the struct.
//!
//! `options!` writes a struct of options, `choices!` an enum of named choices. Both implement [`Value`], whose [`Kind`]
//! is the schema as data, the only input of the checker, the messages, the effective file and `explain`.
//!
//! Long because the macro and what it expands to are read together.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize, Serializer};

/// The values that a key accepts.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// An integer, bounds inclusive.
    Integer {
        /// Minimum.
        min: u64,
        /// Maximum.
        max: u64,
    },
    /// A finite number, bounds inclusive.
    Real {
        /// Minimum.
        min: f64,
        /// Maximum.
        max: f64,
    },
    /// A string of at most [`Kind::LONGEST_TEXT`] bytes.
    Text,
    /// A list of at most [`Kind::LONGEST_LIST`] strings.
    Texts,
    /// One of these names.
    Choice(&'static [Choice]),
    /// A count up to `max`, or a percentage of a whole: see [`Amount`].
    Amount {
        /// Maximum.
        max: u32,
    },
    /// A count within bounds, or a word in its place.
    CountOr {
        /// Minimum.
        min: u32,
        /// Maximum.
        max: u32,
        /// The word.
        word: &'static str,
    },
    /// A list of plain values: see [`Literals`].
    Literals,
    /// Arbitrary keys, all with values of one kind.
    Map(Box<Kind>),
    /// A nested table of options.
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
    /// Its description, one or two sentences.
    pub doc: String,
    /// What it may hold.
    pub kind: Kind,
    /// The condition under which the key applies; a table's condition holds for all keys below it.
    pub when: Option<Condition>,
    /// What changing it means for a run that has started. A nested table declares this per key.
    pub class: Class,
}

/// The role of a key in a run, which decides whether it may change in a run that has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Defines the function that the weights and the optimizer's moments belong to: another value is another model.
    Model,
    /// Defines which text a run sees, and in what order.
    Data,
    /// Defines how the weights are updated: a run may resume with another value only if explicitly allowed.
    Optimisation,
    /// When a run ends and when it is evaluated; updates depend on it only through schedules that are relative to it.
    Length,
    /// What is kept and printed, file locations, and which kernels compute: training does not depend on it, but for rounding.
    Bookkeeping,
}

impl Class {
    /// All classes.
    pub const ALL: [Class; 5] = [Class::Model, Class::Data, Class::Optimisation, Class::Length, Class::Bookkeeping];

    /// The name in messages and on the command line.
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
    /// Names that satisfy the condition.
    pub among: &'static [&'static str],
}

/// A type that a config can contain.
///
/// Configs are read and written by what `options!` declares and not by derived code of serde, which took a quarter of a megabyte in each
/// module of the page.
pub trait Value: Sized {
    /// Its schema.
    fn kind() -> Kind;

    /// From a value that was checked against the schema; `None` from another. Keys that a table lacks have their defaults.
    fn read(value: &toml::Value) -> Option<Self>;

    /// As TOML; [`Value::read`] returns an equal value.
    fn write(&self) -> toml::Value;
}

/// A type with a range.
pub trait Ranged: Value {
    /// The type of the bounds.
    type Bound;
    /// Its schema within `range`.
    fn within(range: RangeInclusive<Self::Bound>) -> Kind;
}

/// A count, or a percentage of a whole that is known later: `12` or `"5%"`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// An absolute count.
    Count(u32),
    /// A percentage of the whole, 0 to 100.
    Percent(f64),
}

impl Amount {
    /// The count for a total of `whole`, rounded down.
    pub fn of(self, whole: u32) -> u32 {
        match self {
            Amount::Count(count) => count,
            Amount::Percent(percent) => (f64::from(whole) * percent / 100.0).floor() as u32,
        }
    }

    /// Parses `5%` or `12.5%`.
    pub fn parse_percent(text: &str) -> Option<Amount> {
        let percent: f64 = text.strip_suffix('%')?.trim().parse().ok()?;
        ((0.0..=100.0).contains(&percent) && percent.is_sign_positive()).then_some(Amount::Percent(percent))
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.write().serialize(serializer)
    }
}

/// Values that another schema gives a meaning: numbers, strings, booleans, each as a TOML literal such as `0.01` or `"cosine"`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Literals(pub Vec<String>);

impl Serialize for Literals {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.write().serialize(serializer)
    }
}

impl Value for Literals {
    fn kind() -> Kind {
        Kind::Literals
    }
    fn read(value: &toml::Value) -> Option<Self> {
        Some(Literals(value.as_array()?.iter().map(literal).collect()))
    }
    fn write(&self) -> toml::Value {
        self.0.iter().map(|text| text.parse::<toml::Value>().unwrap_or_else(|_| text.as_str().into())).collect::<Vec<_>>().into()
    }
}
impl Value for bool {
    fn kind() -> Kind {
        Kind::Boolean
    }
    fn read(value: &toml::Value) -> Option<Self> {
        value.as_bool()
    }
    fn write(&self) -> toml::Value {
        (*self).into()
    }
}
impl Value for u32 {
    fn kind() -> Kind {
        Kind::Integer { min: 0, max: u64::from(u32::MAX) }
    }
    fn read(value: &toml::Value) -> Option<Self> {
        value.as_integer()?.try_into().ok()
    }
    fn write(&self) -> toml::Value {
        (*self).into()
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
    fn read(value: &toml::Value) -> Option<Self> {
        value.as_integer()?.try_into().ok()
    }
    fn write(&self) -> toml::Value {
        i64::try_from(*self).expect("within the schema").into()
    }
}
impl Value for f64 {
    fn kind() -> Kind {
        Kind::Real { min: f64::MIN, max: f64::MAX }
    }
    fn read(value: &toml::Value) -> Option<Self> {
        value.as_float().or(value.as_integer().map(|value| value as f64))
    }
    fn write(&self) -> toml::Value {
        (*self).into()
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
    fn read(value: &toml::Value) -> Option<Self> {
        value.as_str().map(String::from)
    }
    fn write(&self) -> toml::Value {
        self.as_str().into()
    }
}
impl Value for Vec<String> {
    fn kind() -> Kind {
        Kind::Texts
    }
    fn read(value: &toml::Value) -> Option<Self> {
        value.as_array()?.iter().map(String::read).collect()
    }
    fn write(&self) -> toml::Value {
        self.iter().map(String::write).collect::<Vec<_>>().into()
    }
}
impl Value for Amount {
    fn kind() -> Kind {
        Kind::Amount { max: u32::MAX }
    }
    fn read(value: &toml::Value) -> Option<Self> {
        u32::read(value).map(Amount::Count).or_else(|| Amount::parse_percent(value.as_str()?))
    }
    fn write(&self) -> toml::Value {
        match self {
            Amount::Count(count) => count.write(),
            Amount::Percent(percent) => format!("{percent}%").into(),
        }
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
    fn read(value: &toml::Value) -> Option<Self> {
        value.as_table()?.iter().map(|(key, value)| Some((key.clone(), T::read(value)?))).collect()
    }
    fn write(&self) -> toml::Value {
        self.iter().map(|(key, value)| (key.clone(), value.write())).collect::<toml::Table>().into()
    }
}

/// Declares a struct of options with its defaults, ranges and docs.
///
/// The syntax is `struct Name: class`, where [`Class`] applies to every key without a `#[class(other)]`; a table without a class
/// does not compile. A key is declared as `name: Type = default => range;`. Without `= default` it has the type's default,
/// without `=> range` every value of the type is allowed. `#[when("full.key" = "a" | "b")]` before a key states the condition
/// under which it applies; it precedes `#[class(...)]`.
///
/// Defaults are part of the format of run folders, which store only values that differ from them: a default never changes.
#[macro_export]
macro_rules! options {
    ($(#[doc = $doc:literal])+ $vis:vis struct $name:ident : $class:ident {
        $($(#[doc = $field_doc:literal])+ $(#[when($when:literal = $($among:literal)|+)])? $(#[class($own:ident)])?
          $field:ident : $type:ty $(= $default:expr)? $(=> $range:expr)?;)+
    }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
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

            fn read(value: &toml::Value) -> Option<Self> {
                let mut read = Self::default();
                for (key, value) in value.as_table()? {
                    match key.as_str() {
                        $(stringify!($field) => read.$field = $crate::config_file::Value::read(value)?,)+
                        _ => return None,
                    }
                }
                Some(read)
            }

            fn write(&self) -> toml::Value {
                let mut table = toml::Table::new();
                $(table.insert(stringify!($field).into(), $crate::config_file::Value::write(&self.$field));)+
                table.into()
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

/// Declares an enum of named choices, each as `Variant = "name",`.
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

            fn read(value: &toml::Value) -> Option<Self> {
                match value.as_str()? {
                    $($text => Some(Self::$variant),)+
                    _ => None,
                }
            }

            fn write(&self) -> toml::Value {
                match self { $(Self::$variant => $text,)+ }.into()
            }
        }
    };
}

impl Kind {
    /// Maximum length of a string in bytes.
    pub const LONGEST_TEXT: usize = 4096;
    /// Maximum number of strings in a list.
    pub const LONGEST_LIST: usize = 1024;

    /// The allowed values, to follow "must be": `an integer from 1 to 64`.
    pub fn allowed(&self) -> String {
        match self {
            Kind::Boolean => "true or false".into(),
            Kind::Integer { min, max } => format!("an integer from {min} to {max}"),
            Kind::Real { min, max } => format!("a number from {} to {}", Number(*min), Number(*max)),
            Kind::Text => format!("a string of at most {} bytes", Self::LONGEST_TEXT),
            Kind::Texts => format!("a list of at most {} strings", Self::LONGEST_LIST),
            Kind::Choice(choices) => one_of(choices.iter().map(|choice| choice.name)),
            Kind::Amount { max } => format!("a count up to {max}, or a percentage such as \"5%\""),
            Kind::CountOr { min, max, word } => format!("an integer from {min} to {max}, or \"{word}\""),
            Kind::Literals => format!("a list of at most {} numbers, strings or booleans", Self::LONGEST_LIST),
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

    /// Calls `visit` with the full path, the field and the conditions of every key that is not a table.
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

/// A number in readable form: `0.9999`, `1e-8`.
struct Number(pub f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = self.0.abs();
        if size != 0.0 && !(1e-4..1e7).contains(&size) { write!(f, "{:e}", self.0) } else { write!(f, "{}", self.0) }
    }
}

/// A value as TOML, with an exponent for small and large numbers.
pub(super) fn literal(value: &toml::Value) -> String {
    match value.as_float().map(|number| Number(number).to_string()) {
        Some(digits) if digits.contains(['.', 'e']) => digits,
        Some(digits) => digits + ".0",
        None => value.to_string(),
    }
}

/// A config as TOML.
pub fn table_of<C: Value>(config: &C) -> toml::Table {
    let toml::Value::Table(table) = config.write() else { unreachable!("a config is a table of options") };
    table
}

/// The value at a dotted path of declared keys.
pub(super) fn lookup<'t>(table: &'t toml::Table, path: &str) -> Option<&'t toml::Value> {
    match path.split_once('.') {
        Some((head, rest)) => lookup(table.get(head)?.as_table()?, rest),
        None => table.get(path),
    }
}

impl Condition {
    /// The names as text: `"cosine" or "linear"`.
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
