//! The layers of a config: a file over what it `extends`, and `--set key=value` over that.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, Sources};
use super::{Reader, Unreadable};

/// Maximum size of a file in bytes.
pub const MAX_BYTES: usize = 256 * 1024;
/// Maximum number of files in a chain of `extends`.
pub const MAX_DEPTH: usize = 8;
/// Maximum length of a `--set` argument in bytes.
const MAX_SET_BYTES: usize = 8 * 1024;
/// Maximum number of syntax errors reported per source: one mistake usually causes several.
const MAX_SYNTAX_ERRORS: usize = 5;

/// One source and its place among the others.
pub(super) struct Layer {
    /// Index of the source in [`Sources`].
    pub source: usize,
    /// Later layers replace earlier ones; all `--set` arguments share the last rank.
    pub rank: usize,
    /// A `--set` argument, where strings may be unquoted.
    pub is_set: bool,
}

/// A parsed source.
pub(super) struct Parsed<'s> {
    /// The table, without `extends`.
    pub table: DeTable<'s>,
    /// The value of `extends`.
    pub extends: Option<Spanned<DeValue<'s>>>,
    /// Lines with syntax errors; nothing else is reported for them.
    pub broken: Vec<Range<usize>>,
    /// The error may have swallowed what follows it.
    pub lost: bool,
}

/// Reads the chain of files, base first, then the `--set` arguments.
pub(super) fn read(reader: Reader, path: &str, sets: &[String], sources: &mut Sources, problems: &mut Vec<Problem>) -> Vec<Layer> {
    let mut files = chain(reader, path, sources, problems);
    files.reverse();
    let layers = files.into_iter().enumerate().map(|(rank, source)| Layer { source, rank, is_set: false });
    let sets = sets.iter().filter_map(|set| {
        let source = add_set(set, sources, problems)?;
        Some(Layer { source, rank: usize::MAX, is_set: true })
    });
    layers.chain(sets).collect()
}

/// The file and its bases as sources, the file first.
fn chain(reader: Reader, path: &str, sources: &mut Sources, problems: &mut Vec<Problem>) -> Vec<usize> {
    let mut found = Vec::new();
    let mut names = vec![normal(path)];
    let mut asked: Option<(usize, Range<usize>)> = None;
    loop {
        let name = names.last().expect("the list starts with the path").clone();
        let text = match reader(&name).and_then(within_size) {
            Ok(text) => text,
            Err(reason) => {
                let problem = Problem::new(format!("cannot read `{name}`: {reason}"));
                problems.push(match asked {
                    Some((source, span)) => problem
                        .key("extends")
                        .label(source, span, "named here")
                        .note("a path in `extends` is relative to the file that names it"),
                    None => problem,
                });
                return found;
            }
        };
        let source = sources.add(&name, text);
        found.push(source);
        let Some((base, span)) = extends(sources, source, problems) else { return found };
        let next = normal(&format!("{}{base}", &name[..name.rfind('/').map_or(0, |at| at + 1)]));
        let refuse = |message| Problem::new(message).key("extends").label(source, span.clone(), "extends this");
        if let Some(at) = names.iter().position(|seen| *seen == next) {
            let round: Vec<_> = names[at..].iter().chain([&next]).map(|file| format!("`{file}`")).collect();
            problems.push(refuse(format!("files extend each other in a cycle: {}", round.join(" → "))));
            return found;
        }
        if names.len() == MAX_DEPTH {
            problems.push(refuse(format!("a chain of `extends` may have at most {MAX_DEPTH} files")));
            return found;
        }
        names.push(next);
        asked = Some((source, span));
    }
}

fn within_size(text: String) -> Result<String, Unreadable> {
    match text.len() {
        0..=MAX_BYTES => Ok(text),
        bytes => Err(format!("{bytes} bytes, a config may have at most {MAX_BYTES}; refer to data and tokenizers by path").into()),
    }
}

/// The path in a source's `extends` as written, and where.
fn extends(sources: &Sources, source: usize, problems: &mut Vec<Problem>) -> Option<(String, Range<usize>)> {
    let value = parse(sources.text(source)).0.extends?;
    let base = value.get_ref().as_str().unwrap_or("");
    let outside = base.starts_with('/') || base.contains(['\\', ':']);
    if base.is_empty() || outside {
        let label = if outside { "relative to this file, with `/` between folders" } else { "expected one path" };
        let problem = Problem::new("`extends` must be the path of a config").key("extends").label(source, value.span(), label);
        problems.push(problem.note("for example extends = \"../base.toml\""));
        return None;
    }
    Some((base.to_owned(), value.span()))
}

/// `a/./b/../c` as `a/c`, without asking the file system.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." if parts.last().is_some_and(|last| !last.is_empty() && *last != "..") => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// Parses with recovery; returns the parsed source and its syntax errors, at most one per line.
pub(super) fn parse(text: &str) -> (Parsed<'_>, Vec<(Range<usize>, String)>) {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut table = table.into_inner();
    let extends = table.remove("extends");
    let mut errors: Vec<_> = errors.iter().map(|e| (e.span().unwrap_or(0..0), e.message().to_owned())).collect();
    errors.sort_by_key(|(span, _)| span.start);
    let mut broken = Vec::new();
    let lost = errors.iter().any(|(_, e)| e.starts_with("unclosed") || e.starts_with("key with no value"));
    errors.retain(|(span, _)| {
        let line = line_around(text, span.start);
        let first = !broken.contains(&line) && broken.len() < MAX_SYNTAX_ERRORS;
        if first {
            broken.push(line);
        }
        first
    });
    (Parsed { table, extends, broken, lost }, errors)
}

/// Rephrases a syntax error for people who write configs.
pub(super) fn syntax_problem(source: usize, text: &str, span: Range<usize>, message: &str) -> Problem {
    let line = &text[line_around(text, span.start)];
    let unquoted = message.starts_with("string values must be quoted");
    let (what, help) = if unquoted && span.is_empty() {
        ("a value is missing", "write key = value")
    } else if unquoted && text[span.clone()].starts_with(|c: char| c.is_ascii_digit()) {
        ("a number is followed by other characters", "strings need quotes")
    } else if unquoted {
        ("a string without quotes", "for example kind = \"cosine\"")
    } else if !line.contains('=') && line.contains(':') {
        ("`:` instead of `=`", "write key = value; open a table with [table] on a separate line")
    } else if message.starts_with("key with no value") {
        ("a key without a value", "write key = value; open a table with [table] on a separate line")
    } else if message.starts_with("duplicate key") {
        ("set twice in one file", "keep one of the two; a table can be opened only once")
    } else if message.contains("array") {
        (message, "a list that starts on an earlier line may lack its `]`")
    } else if message.starts_with("cannot extend value of type inline table") {
        ("an inline table cannot be extended", "add the key inside its { }, or open the table with [table] on a separate line")
    } else {
        (message, "")
    };
    let problem = Problem::new(format!("this is not TOML: {what}")).label(source, span, "here");
    if help.is_empty() { problem } else { problem.note(help) }
}

/// Adds `a.b.c=value` as a source. A value that is not TOML is taken as a string.
fn add_set(set: &str, sources: &mut Sources, problems: &mut Vec<Problem>) -> Option<usize> {
    let (key, value) = set.split_once('=').unwrap_or(("", ""));
    let (key, value) = (key.trim(), value.trim());
    if key.is_empty() || value.is_empty() || set.len() > MAX_SET_BYTES || set.contains(['\n', '\r']) {
        let source = sources.add("--set", set.get(..200).unwrap_or(set));
        let problem = Problem::new(format!("`--set` must be key=value on one line of at most {MAX_SET_BYTES} bytes"));
        problems.push(problem.label(source, 0..0, "not key=value").note("for example --set model.router.top_k=1"));
        return None;
    }
    let meant_as_toml = value.starts_with(['"', '\'', '[', '{']) || DeValue::parse(value).is_ok();
    let text = if meant_as_toml { set.to_owned() } else { format!("{key}={}", toml::Value::from(value)) };
    Some(sources.add("--set", text))
}

/// The byte range of the line that contains a byte.
pub(super) fn line_around(text: &str, at: usize) -> Range<usize> {
    let at = at.min(text.len());
    let start = text.as_bytes()[..at].iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
    let end = text.as_bytes()[at..].iter().position(|&b| b == b'\n').map_or(text.len(), |i| at + i);
    start..end
}
