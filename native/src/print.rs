//! Printing. Use [`out!`](crate::out) and [`err!`](crate::err) instead of `println!` and `eprintln!`.
//!
//! Guarantees:
//! - *A closed pipe or a full disk behind stdout or stderr does not end the process*: output that cannot be written is dropped, where
//!   `println!` would panic. The first failure of stdout is kept, and nothing is written after it; [`lost_output`] returns it to `main`.
//! - *Untrusted text cannot control the terminal.* Control characters (line feed and tab aside) and those that
//!   reorder a line are written as escapes, `\u{1b}` in text and `\u001b` in JSON. `--json` preserves the exact characters.
//!   Names (of files, runs, tensors, adapters) go through [`name`] or [`path`], which escape line feeds as well, so that a
//!   name cannot forge a line.

use std::{
    fmt::{self, Write as _},
    io::{self, ErrorKind, Write},
    path::Path,
    sync::OnceLock,
};

use moelab::lab::escape::escaped;
pub use moelab::lab::escape::{name, visible};
use serde::Serialize;

/// Prints a line to stdout, like `println!`, but with the guarantees of [`print`](crate::print).
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::print::line_to_stdout(format_args!($($text)*)) };
}

/// Prints a line to stderr, like `eprintln!`, but with the guarantees of [`print`](crate::print).
#[macro_export]
macro_rules! err {
    ($($text:tt)*) => { $crate::print::line_to_stderr(format_args!($($text)*)) };
}

/// The first failure of stdout, after which nothing is written.
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

/// Prints a line of serialised JSON, with or without its line feed.
pub fn json_line(text: &str) {
    to_stdout(&escaped(&format!("{}\n", text.trim_end_matches('\n')), escape_in_json));
}

/// A path for use within a line.
pub fn path(path: &Path) -> String {
    name(&path.display().to_string())
}

/// The failure of stdout, if output was lost for another reason than a closed pipe.
pub fn lost_output() -> Option<&'static io::Error> {
    STDOUT_FAILED.get().filter(|error| error.kind() != ErrorKind::BrokenPipe)
}

/// Stderr as a writer, for example for a logger.
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

fn to_stdout(text: &str) {
    if STDOUT_FAILED.get().is_some() {
        return;
    }
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // Another thread may have set it first; one failure is enough.
        let _ = STDOUT_FAILED.set(error);
    }
}

fn to_stderr(text: &str) {
    // A failure of stderr cannot be reported anywhere.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_stays_valid_and_keeps_its_characters() {
        let text = serde_json::to_string("\u{1b}\u{7f}\u{9b}\u{202e}\n").unwrap();
        let shown = escaped(&text, escape_in_json);
        assert_eq!(shown, r#""\u001b\u007f\u009b\u202e\n""#);
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), "\u{1b}\u{7f}\u{9b}\u{202e}\n");
    }
}
