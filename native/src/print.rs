//! Everything that the process prints. Use [`out!`](crate::out) and [`err!`](crate::err) in place of `println!` and `eprintln!`.
//!
//! Guaranteed:
//! - *A closed pipe or a full disk behind stdout or stderr ends nothing*: what cannot be written is dropped, where `println!` would
//!   panic. Of stdout the first failure is kept, and nothing is written after it; [`lost_output`] gives it to `main`.
//! - *Text from outside does not steer the terminal.* Control characters (line feed and tab aside) and those that
//!   reorder a line are written as escapes, `\u{1b}` in text and `\u001b` in JSON. `--json` carries the exact characters.
//!   Names (of files, runs, tensors, adapters) go through [`name`] or [`path`], which escape line feeds as well, so that a
//!   name cannot forge a line.

use std::{
    fmt::{self, Write as _},
    io::{self, ErrorKind, Write},
    path::Path,
    sync::OnceLock,
};

use serde::Serialize;

/// Prints a line to stdout, as `println!` does, but by the rules of [`print`](crate::print).
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::print::line_to_stdout(format_args!($($text)*)) };
}

/// Prints a line to stderr, as `eprintln!` does, but by the rules of [`print`](crate::print).
#[macro_export]
macro_rules! err {
    ($($text:tt)*) => { $crate::print::line_to_stderr(format_args!($($text)*)) };
}

/// Why stdout no longer takes anything: its first failure.
static STDOUT_FAILED: OnceLock<io::Error> = OnceLock::new();

/// Prints a line to stdout; see [`out!`](crate::out).
pub fn line_to_stdout(text: fmt::Arguments) {
    to_stdout(&visible(&format!("{text}\n")));
}

/// Prints a line to stderr; see [`err!`](crate::err).
pub fn line_to_stderr(text: fmt::Arguments) {
    to_stderr(&visible(&format!("{text}\n")));
}

/// Prints a value as one line of JSON to stdout.
pub fn json(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => json_line(&text),
        Err(error) => line_to_stderr(format_args!("error: a result cannot be written as JSON: {error}")),
    }
}

/// Prints a line of JSON that is text already, with or without its line feed.
pub fn json_line(text: &str) {
    to_stdout(&escaped(&format!("{}\n", text.trim_end_matches('\n')), escape_in_json));
}

/// Text in which nothing steers a terminal. Line feeds and tabs stay.
pub fn visible(text: &str) -> String {
    escaped(text, |c, escaped| escaped.extend(c.escape_unicode()))
}

/// A name from outside for use within a line.
pub fn name(text: &str) -> String {
    visible(text).replace('\n', "\\n").replace('\t', "\\t")
}

/// A path for use within a line.
pub fn path(path: &Path) -> String {
    name(&path.display().to_string())
}

/// What is wrong with stdout, if output was lost to more than a reader who had seen enough.
pub fn lost_output() -> Option<&'static io::Error> {
    STDOUT_FAILED.get().filter(|error| error.kind() != ErrorKind::BrokenPipe)
}

/// Stderr for writers of others, for example a logger.
#[derive(Clone, Copy, Debug)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        to_stderr(&visible(&String::from_utf8_lossy(bytes)));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn escape_in_json(c: char, escaped: &mut String) {
    write!(escaped, "\\u{:04x}", c as u32).expect("writing to a String cannot fail");
}

fn escaped(text: &str, escape: impl Fn(char, &mut String)) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            c if steers(c) => escape(c, &mut shown),
            c => shown.push(c),
        }
    }
    shown
}

/// Control characters, line and paragraph separators, and marks that change the direction of a line.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn to_stdout(text: &str) {
    if STDOUT_FAILED.get().is_some() {
        return;
    }
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // Another thread may have been first; one failure is enough.
        let _ = STDOUT_FAILED.set(error);
    }
}

fn to_stderr(text: &str) {
    // There is nowhere left to say that stderr is closed or full.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_becomes_visible() {
        assert_eq!(visible("a\u{1b}[2Jb\tc\nd\r\u{9b}\u{202e}e"), "a\\u{1b}[2Jb\tc\nd\\u{d}\\u{9b}\\u{202e}e");
        assert_eq!(name("run\nerror: forged\u{7f}"), "run\\nerror: forged\\u{7f}");
        assert_eq!(visible("größer 🦀"), "größer 🦀");
    }

    #[test]
    fn json_stays_json_and_keeps_its_characters() {
        let text = serde_json::to_string("\u{1b}\u{7f}\u{9b}\u{202e}\n").unwrap();
        let shown = escaped(&text, escape_in_json);
        assert_eq!(shown, r#""\u001b\u007f\u009b\u202e\n""#);
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), "\u{1b}\u{7f}\u{9b}\u{202e}\n");
    }
}
