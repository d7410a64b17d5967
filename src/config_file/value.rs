//! Checks one value against its kind: returns the value for the config, or what is wrong with it and how to fix it.

use std::ops::Range;

use toml::de::DeValue;

use super::schema::{Amount, Kind};

/// A value as written in a source.
#[derive(Clone, Copy)]
pub(super) struct Written<'w> {
    /// As parsed.
    pub found: &'w DeValue<'w>,
    /// As typed.
    pub source: &'w str,
    /// From a `--set`, where strings may be unquoted.
    pub bare: bool,
}

/// Returns the value for the config, or what is wrong with it.
pub(super) fn value(kind: &Kind, written: Written<'_>) -> Result<toml::Value, Wrong> {
    let Written { found, source, bare } = written;
    match (kind, found) {
        (Kind::Boolean, DeValue::Boolean(value)) => Ok((*value).into()),
        (Kind::Integer { min, max }, DeValue::Integer(digits)) => {
            let value = i128::from_str_radix(digits.as_str(), digits.radix()).unwrap_or(i128::MAX);
            match (i128::from(*min)..=i128::from(*max)).contains(&value) {
                true => Ok((value as i64).into()),
                false => Err(Wrong::range(kind, source)),
            }
        }
        (Kind::Real { min, max }, DeValue::Integer(_) | DeValue::Float(_)) => {
            let value = number(found).unwrap_or(f64::NAN);
            if value == 0.0 && value.is_sign_negative() {
                return Err(Wrong::range(kind, "-0.0, which is 0.0"));
            }
            match (*min..=*max).contains(&value) {
                true => Ok(value.into()),
                false => Err(Wrong::range(kind, source)),
            }
        }
        (Kind::Text, DeValue::String(text)) => text_value(kind, text),
        // A shell argument is a string anyway: a path or prompt that looks like a number or date is taken literally.
        (Kind::Text, _) if bare => text_value(kind, source),
        (Kind::Texts, DeValue::Array(list)) if list.len() <= Kind::LONGEST_LIST => {
            let texts = list.iter().map(|item| match item.get_ref() {
                DeValue::String(text) => text_value(&Kind::Text, text),
                other => Err(Wrong { at: Some(item.span()), ..Wrong::kind(kind, other) }),
            });
            Ok(toml::Value::Array(texts.collect::<Result<_, _>>()?))
        }
        (Kind::Texts, DeValue::String(text)) => Err(Wrong::kind(kind, found).note(format!("write [{text:?}]"))),
        (Kind::Choice(choices), DeValue::String(text)) => match choices.iter().any(|choice| choice.name == text) {
            true => Ok(text.as_ref().into()),
            false => Err(Wrong::choice(kind, text)),
        },
        (Kind::Amount { max }, DeValue::Integer(_)) => value(&Kind::Integer { min: 0, max: u64::from(*max) }, written),
        (Kind::Amount { .. }, DeValue::String(text)) => match Amount::parse_percent(text) {
            Some(_) => Ok(text.as_ref().into()),
            None => Err(Wrong::range(kind, &format!("{text:?}"))),
        },
        (Kind::Amount { .. }, DeValue::Float(_)) => {
            let percent = number(found).map_or(5.0, |fraction| fraction * 100.0);
            Err(Wrong::kind(kind, found).note(format!("as a share of the whole: \"{percent}%\"")))
        }
        (Kind::CountOr { min, max, .. }, DeValue::Integer(_)) => {
            value(&Kind::Integer { min: u64::from(*min), max: u64::from(*max) }, written).map_err(|_| Wrong::range(kind, source))
        }
        (Kind::CountOr { word, .. }, DeValue::String(text)) => match text == word {
            true => Ok((*word).into()),
            false => Err(Wrong::range(kind, &format!("{text:?}"))),
        },
        (Kind::Literals, DeValue::Array(list)) if list.len() <= Kind::LONGEST_LIST => {
            let plain = list
                .iter()
                .map(|item| plain(item.get_ref()).ok_or_else(|| Wrong { at: Some(item.span()), ..Wrong::kind(kind, item.get_ref()) }));
            Ok(toml::Value::Array(plain.collect::<Result<_, _>>()?))
        }
        (Kind::Literals, other) if plain(other).is_some() => Err(Wrong::kind(kind, found).note(format!("write [{source}]"))),
        _ => Err(Wrong::kind(kind, found)),
    }
}

/// A number, string or boolean.
fn plain(found: &DeValue<'_>) -> Option<toml::Value> {
    match found {
        DeValue::Boolean(value) => Some((*value).into()),
        DeValue::String(text) => text_value(&Kind::Text, text).ok(),
        DeValue::Integer(digits) => Some(i64::from_str_radix(digits.as_str(), digits.radix()).ok()?.into()),
        DeValue::Float(_) => Some(number(found)?.into()),
        _ => None,
    }
}

/// What is wrong with a value.
pub(super) struct Wrong {
    /// The allowed values.
    allowed: String,
    /// The span, if not the whole value.
    pub at: Option<Range<usize>>,
    /// The text at the span.
    pub label: String,
    /// How to fix it.
    pub notes: Vec<String>,
}

impl Wrong {
    fn range(kind: &Kind, found: &str) -> Self {
        Self { allowed: kind.allowed(), at: None, label: format!("found {}", shortened(found)), notes: Vec::new() }
    }

    fn kind(kind: &Kind, found: &DeValue<'_>) -> Self {
        let wrong = Self::range(kind, &described(found));
        match (kind, found) {
            (Kind::Integer { .. } | Kind::Real { .. } | Kind::Boolean, DeValue::String(text)) if DeValue::parse(text).is_ok() => {
                wrong.note(format!("without quotes: {text}"))
            }
            (Kind::Integer { .. }, DeValue::Float(_)) => match number(found).filter(|v| v.fract() == 0.0 && v.abs() < 1e15) {
                Some(whole) => wrong.note(format!("as an integer: {whole}")),
                None => wrong,
            },
            (Kind::Table(_), DeValue::Array(_)) => wrong.note("a table has one pair of brackets"),
            _ => wrong,
        }
    }

    fn choice(kind: &Kind, found: &str) -> Self {
        let Kind::Choice(choices) = kind else { return Self::range(kind, found) };
        let label = match nearest(found, choices.iter().map(|choice| choice.name)) {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => format!("found {}", shortened(&format!("{found:?}"))),
        };
        let notes = choices.iter().map(|choice| format!("\"{}\": {}", choice.name, choice.doc)).collect();
        Self { allowed: kind.allowed(), at: None, label, notes }
    }

    fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The message for the key at `path`.
    pub fn message(&self, path: &str) -> String {
        format!("`{path}` must be {}", self.allowed)
    }
}

fn text_value(kind: &Kind, text: &str) -> Result<toml::Value, Wrong> {
    match text.len() <= Kind::LONGEST_TEXT && !text.contains('\0') {
        true => Ok(text.into()),
        false if text.contains('\0') => Err(Wrong::range(kind, "a NUL")),
        false => Err(Wrong::range(kind, &format!("{} bytes", text.len()))),
    }
}

/// A finite number.
fn number(value: &DeValue<'_>) -> Option<f64> {
    let value: f64 = match value {
        DeValue::Integer(digits) => i128::from_str_radix(digits.as_str(), digits.radix()).ok()? as f64,
        DeValue::Float(digits) => digits.as_str().parse().ok()?,
        _ => return None,
    };
    value.is_finite().then_some(value)
}

fn described(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {text:?}"),
        DeValue::Integer(digits) => format!("the integer {digits}"),
        DeValue::Float(digits) => format!("the number {digits}"),
        DeValue::Boolean(value) => format!("{value}"),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// The name most similar to `word`, if any is similar enough.
pub(super) fn nearest<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    if word.len() > 64 {
        return None;
    }
    let word = word.to_lowercase();
    let scored = names.map(|name| (strsim::normalized_damerau_levenshtein(&word, name), name));
    scored.filter(|(score, _)| *score >= 0.6).min_by(|a, b| b.0.total_cmp(&a.0)).map(|(_, name)| name)
}
