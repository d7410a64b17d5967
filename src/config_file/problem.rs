//! Problems and their display: what is wrong, where (file, line, column), the source line with carets, and how to fix it.

use std::fmt;
use std::ops::Range;

use codespan_reporting::diagnostic::{Diagnostic, Label as Caret};
use codespan_reporting::files::SimpleFiles;
use codespan_reporting::term;

/// Number of problems shown; the rest is only counted.
const SHOWN: usize = 50;
/// Source lines longer than this are not quoted.
const LONGEST_QUOTE: usize = 400;

/// The texts that a config was read from, in reading order.
#[derive(Clone, Debug, Default)]
pub struct Sources(Vec<(String, String)>);

impl Sources {
    /// Adds a named text; returns its index.
    pub(super) fn add(&mut self, name: impl Into<String>, text: impl Into<String>) -> usize {
        self.0.push((name.into(), text.into()));
        self.0.len() - 1
    }

    /// The text of a source.
    pub(super) fn text(&self, source: usize) -> &str {
        &self.0[source].1
    }
}

/// A problem.
#[derive(Clone, Debug)]
pub struct Problem {
    /// Full path of the affected key, if there is one.
    pub key: Option<String>,
    /// What is wrong, in one line.
    pub message: String,
    /// Where; the primary place first.
    pub labels: Vec<Label>,
    /// Additional notes.
    pub notes: Vec<String>,
}

/// A span of a source and how it relates to the problem.
#[derive(Clone, Debug)]
pub struct Label {
    /// Index of the source.
    pub source: usize,
    /// Byte range in its text.
    pub span: Range<usize>,
    /// Shown next to the carets.
    pub text: String,
}

/// The place of a problem; lines and columns count from 1, columns in characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Name of the file, or the `--set` argument.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { key: None, message: message.into(), labels: Vec::new(), notes: Vec::new() }
    }

    pub(super) fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    pub(super) fn label(mut self, source: usize, span: Range<usize>, text: impl Into<String>) -> Self {
        self.labels.push(Label { source, span, text: text.into() });
        self
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// All problems of a config, in the order of the sources; never empty. `Display` prints the full message.
#[derive(Clone, Debug)]
pub struct Problems {
    sources: Sources,
    problems: Vec<Problem>,
}

impl std::error::Error for Problems {}

impl Problems {
    pub(super) fn new(sources: Sources, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.labels.first().map(|label| (label.source, label.span.start)));
        Self { sources, problems }
    }

    /// Each problem, with its place if it has one.
    pub fn iter(&self) -> impl Iterator<Item = (&Problem, Option<Place>)> {
        self.problems.iter().map(|problem| (problem, problem.labels.first().map(|label| self.place(label))))
    }

    fn place(&self, label: &Label) -> Place {
        let (name, text) = &self.sources.0[label.source];
        let before = &text[..label.span.start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place { file: printable(name), line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }

    fn diagnostic(&self, problem: &Problem) -> Diagnostic<usize> {
        let mut diagnostic = Diagnostic::error().with_message(printable(&problem.message));
        for (i, label) in problem.labels.iter().enumerate() {
            let text = self.sources.text(label.source);
            let line_start = text[..label.span.start].rfind('\n').map_or(0, |at| at + 1);
            let line_end = text[label.span.start..].find('\n').map_or(text.len(), |at| label.span.start + at);
            if line_end - line_start > LONGEST_QUOTE {
                let Place { file, line, column } = self.place(label);
                diagnostic = diagnostic.with_note(format!("{file}:{line}:{column}: {}", printable(&label.text)));
                continue;
            }
            let span = label.span.start..label.span.end.min(line_end);
            let caret = if i == 0 { Caret::primary(label.source, span) } else { Caret::secondary(label.source, span) };
            diagnostic = diagnostic.with_label(caret.with_message(printable(&label.text)));
        }
        diagnostic.with_notes(problem.notes.iter().map(|note| printable(note)).collect())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut files = SimpleFiles::new();
        for (name, text) in &self.sources.0 {
            files.add(printable(name), printable(text));
        }
        for problem in self.problems.iter().take(SHOWN) {
            let shown = term::emit_into_string(&term::Config::default(), &files, &self.diagnostic(problem));
            for line in shown.map_err(|_| fmt::Error)?.trim_end().lines() {
                writeln!(f, "{}", line.trim_end())?;
            }
            writeln!(f)?;
        }
        match self.problems.len() {
            1 => write!(f, "1 problem"),
            n if n > SHOWN => write!(f, "{n} problems, the first {SHOWN} shown"),
            n => write!(f, "{n} problems"),
        }
    }
}

/// `text` without characters that control a terminal or reorder a line, each replaced by as many `?` as it has bytes, so
/// that spans stay valid. Configs may come from untrusted sources.
fn printable(text: &str) -> String {
    let steers = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\r' => shown.push(' '),
            _ if steers(c) => (0..c.len_utf8()).for_each(|_| shown.push('?')),
            _ => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_replaced_by_marks_of_equal_length() {
        let text = "a\u{1b}[31m\u{202e}b\u{9b}";
        assert_eq!(printable(text), "a?[31m???b??");
        assert_eq!(printable(text).len(), text.len());
        assert_eq!(printable("é\tü\n"), "é\tü\n");
    }

    #[test]
    fn places_count_characters_from_one() {
        let mut sources = Sources::default();
        let source = sources.add("x.toml", "é = 1\näb = 2\n");
        let problem = Problem::new("no").label(source, 9..11, "here");
        let problems = Problems::new(sources, vec![problem]);
        let (_, place) = problems.iter().next().unwrap();
        assert_eq!(place, Some(Place { file: "x.toml".into(), line: 2, column: 2 }));
    }
}
