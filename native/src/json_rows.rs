//! Extracts the text of a line of JSON: `{"text": "...", ...}`.
//!
//! JSON can contain an unpaired surrogate (`"\ud83d"`), written by programs that cut text at UTF-16 units. It is not a character,
//! and a Rust string cannot contain it; `data.invalid` determines how it is handled, anywhere in the line.

use std::fmt;

use anyhow::{Result, bail};
use moelab::run::config::Invalid;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

/// Maximum characters of a parser's message that are reported.
const LONGEST_MESSAGE: usize = 200;

/// The text of a line.
pub struct Row {
    /// Field `text`.
    pub text: String,
    /// Whether unpaired surrogates were replaced by U+FFFD.
    pub replaced: bool,
}

/// Parses a line at `place`; fields other than `text` are ignored.
///
/// # Errors
/// The line is not such an object; the error has file, line and column or field.
pub fn text(line: &str, invalid: Invalid, place: &str) -> Result<Row> {
    if line.trim_start().starts_with('[') {
        bail!("{place}: a list; expected one object per line with a field `text`");
    }
    let error = match serde_json::from_str::<Strict>(line) {
        Ok(Strict { text }) => return Ok(Row { text, replaced: false }),
        Err(error) => error,
    };
    // Parse again with strings as bytes, in which surrogates are encoded as by UTF-8.
    let loose = serde_json::from_str::<Loose>(line).ok();
    let halves = |bytes: &[u8]| surrogate(bytes).map(|(at, unit)| (bytes[..at].len(), unit));
    match loose.as_ref().map(|row| (row, halves(&row.text), halves(&row.keys))) {
        Some((row, found, in_keys)) if found.is_some() || in_keys.is_some() => {
            if invalid == Invalid::Refuse {
                let (at, unit) = found.or(in_keys).unwrap_or_default();
                let field = if found.is_some() { format!("byte {at} of field `text`") } else { "the name of a field".into() };
                bail!("{place}: {field} is \\u{unit:04x}, an unpaired surrogate: correct the file, or set data.invalid = \"replace\"");
            }
            Ok(Row { text: without_surrogates(&row.text), replaced: true })
        }
        _ => {
            let (column, message) = (error.column(), error.to_string());
            let message = message.strip_suffix(&format!(" at line {} column {column}", error.line())).unwrap_or(&message);
            // The message may quote the line.
            let message: String = message.chars().take(LONGEST_MESSAGE).collect();
            bail!("{place}:{column}: {message}; expected one object per line with a field `text`")
        }
    }
}

/// The first unpaired surrogate in otherwise valid UTF-8: its position and code.
fn surrogate(bytes: &[u8]) -> Option<(usize, u16)> {
    let at = bytes.windows(2).position(|pair| pair[0] == 0xed && pair[1] >= 0xa0)?;
    let low = bytes.get(at + 2).copied().unwrap_or_default();
    Some((at, 0xd000 | u16::from(bytes[at + 1] & 0x3f) << 6 | u16::from(low & 0x3f)))
}

/// Bytes as text, with one U+FFFD for each unpaired surrogate.
fn without_surrogates(bytes: &[u8]) -> String {
    let (mut text, mut rest) = (String::new(), bytes);
    while let Some((at, _)) = surrogate(rest) {
        text += &String::from_utf8_lossy(&rest[..at]);
        text.push('\u{fffd}');
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    text + &String::from_utf8_lossy(rest)
}

/// A line without unpaired surrogates.
#[derive(serde::Deserialize)]
#[serde(expecting = "an object")]
struct Strict {
    text: String,
}

/// A line with unpaired surrogates.
struct Loose {
    text: Vec<u8>,
    /// The names of all fields, joined.
    keys: Vec<u8>,
}

/// A JSON text as bytes.
struct Bytes(Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Bytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Text)
    }
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Loose;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose, A::Error> {
                let (mut text, mut keys) = (None, Vec::new());
                while let Some(Bytes(key)) = map.next_key()? {
                    if key != b"text" {
                        map.next_value::<IgnoredAny>()?;
                    } else if text.replace(map.next_value::<Bytes>()?.0).is_some() {
                        return Err(A::Error::duplicate_field("text"));
                    }
                    keys.extend(key);
                }
                Ok(Loose { text: text.ok_or_else(|| A::Error::missing_field("text"))?, keys })
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(line: &str) -> String {
        text(line, Invalid::Refuse, "a.jsonl:3").err().expect("the line is refused").to_string()
    }

    #[test]
    fn unpaired_surrogates_are_refused_with_their_place_or_replaced() {
        let replaced = |line: &str| text(line, Invalid::Replace, "").unwrap().text;
        assert!(message(r#"{"text": "é\ud83d b"}"#).starts_with("a.jsonl:3: byte 2 of field `text` is \\ud83d, an unpaired surrogate"));
        assert_eq!(replaced(r#"{"text": "é\ud83d b\ude00"}"#), "é\u{fffd} b\u{fffd}");
        assert_eq!(replaced(r#"{"text": "\ud83d\ude00\ude00"}"#), "😀\u{fffd}");
        assert!(message(r#"{"\ud83d": 1, "text": "a"}"#).starts_with("a.jsonl:3: the name of a field is \\ud83d"));
        assert_eq!(replaced(r#"{"\ud83d": 1, "text": "a"}"#), "a");
    }

    #[test]
    fn other_fields_do_not_matter() {
        let row = text(r#"{"id": "\ud83d", "more": {"\ude00": ["\ude00"]}, "text": "a\ud83d\ude00"}"#, Invalid::Refuse, "").unwrap();
        assert_eq!((row.text.as_str(), row.replaced), ("a😀", false));
    }

    #[test]
    fn invalid_rows_are_reported_with_line_and_column() {
        assert_eq!(message(r#"{"body": "a"}"#), "a.jsonl:3:13: missing field `text`; expected one object per line with a field `text`");
        assert!(message(r#"{"text": 5}"#).starts_with("a.jsonl:3:10: invalid type: integer `5`, expected a string"));
        assert!(message(r#"{"text": "a", "text": "b"}"#).contains("duplicate field `text`"));
        assert!(message(r#"{"text": "a"#).contains("EOF while parsing a string"));
        assert_eq!(message(r#"["a"]"#), "a.jsonl:3: a list; expected one object per line with a field `text`");
        let long = message(&format!("\"{}\"", "a".repeat(100_000)));
        assert!(long.starts_with("a.jsonl:3:100002: invalid type: string \"aaa") && long.len() < 400, "{}", long.len());
    }
}
