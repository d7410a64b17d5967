//! `metrics.jsonl` in bounded memory, with an index of blocks of lines to find a range of updates.

use std::ops::RangeInclusive;

use crate::{
    lab::{
        files::METRICS,
        log::Line,
        store::{Store, StoreError},
    },
    run::records::{Event, Rewinds},
};

/// Bytes per read.
const BLOCK_BYTES: usize = 64 << 10;

struct Block {
    offset: u64,
    bytes: usize,
    /// Number of lines before it.
    lines: u64,
    /// The smallest and the largest update of its lines.
    updates: RangeInclusive<u32>,
}

/// A line found by the index.
pub(in crate::lab) struct Entry {
    /// The line.
    pub line: Line,
    /// Whether it belongs to the current state of the run, not to rewound updates.
    pub is_current: bool,
}

/// The index of the lines.
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
        lines.updates = lines.first_and_last(store)?;
        Ok(lines)
    }

    /// The updates of the first and the last `update` line that is current.
    fn first_and_last(&self, store: &dyn Store) -> Result<Option<(u32, u32)>, StoreError> {
        let current = |block: &Block| -> Result<Vec<u32>, StoreError> {
            let entries = self.read(store, block, Some("update")).into_iter().collect::<Result<Vec<Entry>, StoreError>>()?;
            let update = |entry: &Entry| match &entry.line.event {
                Ok(Event::Update(record)) if entry.is_current => Some(record.update),
                _ => None,
            };
            Ok(entries.iter().filter_map(update).collect())
        };
        let (mut first, mut last) = (None, None);
        for block in &self.blocks {
            first = first.or(current(block)?.first().copied());
            if first.is_some() {
                break;
            }
        }
        for block in self.blocks.iter().rev() {
            last = last.or(current(block)?.last().copied());
            if last.is_some() {
                break;
            }
        }
        Ok(first.zip(last))
    }

    /// Adds complete lines; returns their number.
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
                b"update" => self.rewinds.note_update(position, update),
                b"rewound" => self.rewinds.note_rewound(position, update),
                _ => {}
            }
        }
        self.blocks.push(Block { offset, bytes: bytes.len(), lines, updates: least..=greatest });
        count
    }

    /// The lines about updates in `range`, rewound ones and damaged ones among them, in the order of the log. The header is of every range.
    /// `only` leaves out lines of other kinds, without reading them.
    pub fn entries<'a>(
        &'a self,
        store: &'a dyn Store,
        range: RangeInclusive<u32>,
        only: Option<&'static str>,
    ) -> impl Iterator<Item = Result<Entry, StoreError>> + 'a {
        let (from, to) = range.into_inner();
        let overlaps = move |block: &&Block| block.lines == 0 || *block.updates.start() <= to && *block.updates.end() >= from;
        let is_within = move |entry: &Result<Entry, StoreError>| {
            let event = entry.as_ref().ok().and_then(|entry| entry.line.event.as_ref().ok());
            event.and_then(Event::update).is_none_or(|update| (from..=to).contains(&update))
        };
        self.blocks.iter().filter(overlaps).flat_map(move |block| self.read(store, block, only)).filter(is_within)
    }

    fn read(&self, store: &dyn Store, block: &Block, only: Option<&str>) -> Vec<Result<Entry, StoreError>> {
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
        let is_wanted =
            |(_, line): &(usize, &str)| only.is_none_or(|only| head(line.as_bytes()).is_some_and(|(kind, _)| kind == only.as_bytes()));
        text.split_inclusive('\n').enumerate().filter(is_wanted).map(entry).collect()
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
