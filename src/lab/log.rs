//! The line format of `metrics.jsonl`: a check per line detects damage, and a mark in each checkpoint detects truncation.
//!
//! A line ends in `"check"`: the first eight hex digits of the SHA-256 of the line before it. A line whose check does not match is
//! damaged. A log without checks is of a release that wrote none; its lines are accepted until the run is resumed.
//!
//! A line of a record that has arrays repeats the check of its array record in `"arrays"`.
//!
//! A checkpoint keeps the number of lines that the log had, and a hash over them without their times ([`LogMark`]); both exclude
//! rewound lines and `rewound` lines themselves. A log that does not start with these lines was truncated, or is another run's.

use crate::run::{
    checkpoint::LogMark,
    digest::{hex, sha256_hex},
    records::{self, Event, LineError},
};
use sha2::{Digest, Sha256};

const CHECK: &str = r#","check":""#;
const ARRAYS: &str = r#","arrays":""#;
const TIME: &str = r#","time":{"#;
const CHECK_DIGITS: usize = 8;
/// Number of bytes that one damaged byte may become when read as UTF-8.
const MOST_LINE_END: usize = 3;

/// The body of a line: an event, and the check of its array record.
pub fn body_of(event: &Event, arrays: Option<u32>) -> String {
    let line = event.to_line();
    match arrays {
        Some(check) => format!("{}{ARRAYS}{check:08x}\"", body(&line)),
        None => body(&line).to_string(),
    }
}

/// A line of the log from its body.
pub fn seal(body: &str) -> String {
    format!("{body}{CHECK}{}\"}}\n", check(body))
}

/// A line without its end: check, brace and line feed.
fn body(line: &str) -> &str {
    let line = line.trim_end_matches('\n');
    line.strip_suffix('}').unwrap_or(line)
}

fn check(body: &str) -> String {
    let mut digest = sha256_hex(body.as_bytes());
    digest.truncate(CHECK_DIGITS);
    digest
}

/// One complete line.
pub struct Line {
    /// Its number, from 1.
    pub number: usize,
    /// The line without its check.
    pub body: String,
    /// Its content, or why it cannot be read.
    pub event: Result<Event, LineError>,
    /// The check of its array record, if it has one.
    pub arrays: Option<u32>,
    has_check: bool,
}

impl Line {
    /// Parses a line, given its index from 0 and its text without the line feed.
    pub fn open((index, line): (usize, &str)) -> Line {
        // A quotation mark in a string is escaped, so the match is the key.
        let (body, has_check, fits) = match line.rsplit_once(CHECK) {
            None => (body(line), false, true),
            Some((body, rest)) => (body, true, rest.strip_suffix("\"}").is_some_and(|found| found == check(body))),
        };
        let event = if fits { Event::from_line(line) } else { Err(LineError::Check) };
        let arrays = body.rsplit_once(ARRAYS).and_then(|(_, check)| u32::from_str_radix(check.strip_suffix('"')?, 16).ok());
        Line { number: index + 1, body: body.to_string(), event, arrays, has_check }
    }

    /// Whether it has a check.
    pub fn has_check(&self) -> bool {
        self.has_check
    }

    /// Makes it unreadable if it has no check although others have: damage may have hit its key.
    pub fn must_have_check(&mut self) {
        if !self.has_check {
            self.event = Err(LineError::NoCheck);
        }
    }
}

/// The content of a log.
pub struct Log {
    /// Its complete lines.
    pub lines: Vec<Line>,
    /// A problem with its end, other than a torn line, which a crash may leave.
    pub warning: Option<String>,
}

impl Log {
    /// Reads a log, damaged or not.
    pub fn parse(text: &str) -> Log {
        let mut lines: Vec<Line> = records::complete_lines(text).enumerate().map(Line::open).collect();
        let (mut warning, rest) = (None, text.rsplit('\n').next().unwrap_or_default());
        if let Some(end) = rest.rfind("\"}").map(|at| at + 2).filter(|end| end + MOST_LINE_END >= rest.len()) {
            // A whole line except for its line feed, possibly with something else in its place.
            let line = Line::open((lines.len(), &rest[..end]));
            if line.has_check && line.event.is_ok() {
                warning = (end < rest.len()).then(|| format!("metrics.jsonl:{}: its line feed was damaged: repaired", line.number));
                lines.push(line);
            }
        }
        // If one of the first two lines has a check, all have, and damage may have hit the key of one.
        if lines.iter().take(2).any(|line| line.has_check) {
            lines.iter_mut().for_each(Line::must_have_check);
        }
        Log { lines, warning }
    }
}

/// Counts and hashes the lines of a log.
#[derive(Clone, Default)]
pub struct Marker {
    lines: u64,
    hash: Sha256,
}

impl Marker {
    /// Adds a line by its body. The text is hashed, not its meaning, so that a later release computes the same hash.
    pub fn add(&mut self, body: &str) {
        let time = body.rfind(TIME).and_then(|start| Some(start..start + body[start..].find('}')? + 1));
        let (before, after) = time.map_or((body, ""), |time| (&body[..time.start], &body[time.end..]));
        [before, after, "\n"].iter().for_each(|part| self.hash.update(part));
        self.lines += 1;
    }

    /// Number of lines so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The mark of the lines so far.
    pub fn mark(&self) -> LogMark {
        let digest = self.hash.clone().finalize();
        LogMark::new(self.lines, hex(&digest))
    }
}
