//! `metrics.jsonl` in bounded memory: an index of blocks of lines, by which a range of updates is found.

use std::ops::RangeInclusive;

use crate::{
    lab::{
        run_folder::{METRICS, log::Line},
        store::{Store, StoreError},
    },
    run::records::Event,
};

/// Bytes that are read at once.
const BLOCK_BYTES: usize = 64 << 10;

/// Which entries of an append-only file are of the run as it stands.
///
/// A `rewound` entry takes the run back to an update: the entries before it that are of later updates are history. So does a second
/// entry of an update, should damage have hit the entry that said so.
#[derive(Clone, Debug, Default)]
pub(in crate::lab) struct Rewinds {
    /// Position of each entry that goes back, and the least update that it or a later one goes back to.
    entries: Vec<(u64, u32)>,
    newest: Option<u32>,
}

impl Rewinds {
    /// Takes in the next `update` entry.
    pub fn note_update(&mut self, position: u64, update: u32) {
        if self.newest.is_some_and(|newest| update <= newest) {
            self.entries.push((position, update.saturating_sub(1)));
        }
        self.newest = Some(update);
    }

    /// Takes in the next `rewound` entry.
    pub fn note_rewound(&mut self, position: u64, to: u32) {
        self.entries.push((position, to));
        self.newest = self.newest.map(|newest| newest.min(to));
    }

    /// After the last entry.
    pub fn finish(mut self) -> Rewinds {
        let mut least = u32::MAX;
        for entry in self.entries.iter_mut().rev() {
            least = least.min(entry.1);
            entry.1 = least;
        }
        self
    }

    /// Whether an entry is of the run as it stands.
    pub fn keeps(&self, position: u64, update: u32) -> bool {
        let later = self.entries.partition_point(|(at, _)| *at <= position);
        self.entries.get(later).is_none_or(|(_, to)| update <= *to)
    }
}

struct Block {
    offset: u64,
    bytes: usize,
    /// Lines before it.
    lines: u64,
    /// The least and the greatest update of its lines.
    updates: RangeInclusive<u32>,
}

/// A line as an index finds it.
pub(in crate::lab) struct Entry {
    /// The line.
    pub line: Line,
    /// Whether it is of the run as it stands, not of what was rewound.
    pub is_current: bool,
}

/// Where the lines are.
#[derive(Default)]
pub(in crate::lab) struct Lines {
    blocks: Vec<Block>,
    rewinds: Rewinds,
    /// The lines are of a release that gave each a check.
    have_checks: bool,
    /// Updates of the first and the last `update` line that is current.
    pub updates: Option<(u32, u32)>,
}

impl Lines {
    /// Looks through the log once. A last line that was torn is left out.
    pub fn scan(store: &dyn Store) -> Result<Lines, StoreError> {
        let mut lines = Lines::default();
        let (mut offset, mut count, mut pending) = (0_u64, 0, Vec::new());
        loop {
            let part = store.read_at(METRICS, offset + pending.len() as u64, BLOCK_BYTES)?.unwrap_or_default();
            let is_last = part.is_empty();
            pending.extend(part);
            if let Some(end) = pending.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1) {
                let rest = pending.split_off(end);
                count += lines.add_block(&pending, offset, count);
                offset += end as u64;
                pending = rest;
            }
            if is_last {
                break;
            }
        }
        lines.rewinds = lines.rewinds.finish();
        lines.updates = lines.updates.map(|(first, last)| (first, lines.rewinds.newest.unwrap_or(last)));
        Ok(lines)
    }

    /// Takes in complete lines; returns how many.
    fn add_block(&mut self, bytes: &[u8], offset: u64, lines: u64) -> u64 {
        let (mut count, mut least, mut greatest) = (0, u32::MAX, 0);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let position = lines + count;
            if position < 2 {
                self.have_checks |= Line::open((0, String::from_utf8_lossy(line).trim_end_matches('\n'))).has_check();
            }
            count += 1;
            let Some((kind, update)) = head(line) else { continue };
            (least, greatest) = (least.min(update), greatest.max(update));
            match kind {
                b"update" => {
                    self.rewinds.note_update(position, update);
                    self.updates = Some((self.updates.map_or(update, |(first, _)| first.min(update)), update));
                }
                b"rewound" => self.rewinds.note_rewound(position, update),
                _ => {}
            }
        }
        self.blocks.push(Block { offset, bytes: bytes.len(), lines, updates: least..=greatest });
        count
    }

    /// The lines about updates in `range`, rewound ones and damaged ones among them, in the order of the log. The header is of every range.
    pub fn entries<'a>(&'a self, store: &'a dyn Store, range: RangeInclusive<u32>) -> impl Iterator<Item = Result<Entry, StoreError>> + 'a {
        let (from, to) = range.into_inner();
        let overlaps = move |block: &&Block| block.lines == 0 || *block.updates.start() <= to && *block.updates.end() >= from;
        let is_within = move |entry: &Result<Entry, StoreError>| {
            let event = entry.as_ref().ok().and_then(|entry| entry.line.event.as_ref().ok());
            event.and_then(Event::update).is_none_or(|update| (from..=to).contains(&update))
        };
        self.blocks.iter().filter(overlaps).flat_map(move |block| self.read(store, block)).filter(is_within)
    }

    fn read(&self, store: &dyn Store, block: &Block) -> Vec<Result<Entry, StoreError>> {
        let bytes = match store.read_at(METRICS, block.offset, block.bytes) {
            Ok(bytes) => bytes.unwrap_or_default(),
            Err(error) => return vec![Err(error)],
        };
        let text = String::from_utf8_lossy(&bytes);
        let entry = |(index, line): (usize, &str)| {
            let position = block.lines + index as u64;
            let mut line = Line::open((position as usize, line.trim_end_matches('\n')));
            if self.have_checks {
                line.must_have_check();
            }
            let update = line.event.as_ref().ok().and_then(Event::update);
            Ok(Entry { line, is_current: update.is_none_or(|update| self.rewinds.keeps(position, update)) })
        };
        text.split_inclusive('\n').enumerate().map(entry).collect()
    }
}

/// The kind of a line and the update that it is about, without reading all of it: they stand first.
fn head(line: &[u8]) -> Option<(&[u8], u32)> {
    let rest = line.strip_prefix(br#"{"kind":""#)?;
    let (kind, rest) = rest.split_at(rest.iter().position(|byte| *byte == b'"')?);
    let rest = rest.strip_prefix(br#"","update":"#).or_else(|| rest.strip_prefix(br#"","to":"#))?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).take(10);
    let update = digits.fold(0_u64, |number, digit| 10 * number + u64::from(digit - b'0'));
    Some((kind, u32::try_from(update).ok()?))
}
