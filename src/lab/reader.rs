//! Reading a run: its series by (series, range of updates, number of points), and its events in order.
//!
//! A log is never loaded as a whole. Opening reads the log once for an index of its blocks; a query then reads the blocks of its
//! range, and collects their values in buckets whose width doubles whenever there are more than requested, so that the memory of a
//! query is proportional to its result, not to the length of the run. A bucket has the minimum, the maximum and the mean of its
//! updates, so that spikes are visible.
//!
//! These are the levels of a min/max pyramid whose base is the file. For each series that is read over the whole run, one level is
//! cached, fine enough for a screen (`BASE_VALUES`), and coarser ones are merged from it; a narrower range is read from the file, at a
//! cost proportional to its length. No pyramid is stored: it would be a second copy of the log to keep consistent through crashes and
//! rewinds, and reading the log of a long run takes less than a second.
//!
//! Damaged lines are skipped; `RunFolder::rewind` reports them. Rewound updates are not part
//! of a series; [`Reader::audit`] shows them.

mod buckets;
mod lines;
mod records;

use std::{
    cell::{OnceCell, RefCell},
    collections::HashMap,
    ops::RangeInclusive,
};

use super::{
    files,
    store::{Store, StoreError},
};
use crate::run::{
    records::{Event, Header, IncidentRecord, LineError},
    series::{Record, RecordKind, Series},
};
pub use buckets::Bucket;
pub(super) use buckets::Buckets;
use lines::{Entry, Lines};
use records::Records;

/// Values of the cached level of a series: enough for 4096 buckets of a scalar, and for 512 of 12 layers with 40 experts.
const BASE_VALUES: usize = 1 << 18;
pub(super) const BASE_BUCKETS: usize = 4096;

/// The result of a query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    /// The length of each axis of the series; empty for a scalar.
    pub shape: Vec<usize>,
    /// In the order of updates. Updates without a value are in no bucket.
    pub buckets: Vec<Bucket>,
}

/// A line of the log, for an audit.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditLine {
    /// Its number, from 1.
    pub number: usize,
    /// Its content, or why it cannot be read.
    pub event: Result<Event, LineError>,
    /// Whether the run was rewound beyond it.
    pub is_rewound: bool,
}

/// A reader of a run. It shows the log as of when it was opened.
pub struct Reader<'a> {
    store: &'a dyn Store,
    lines: Lines,
    /// The array records, once one of their series was asked for; none in runs of earlier releases.
    records: OnceCell<Option<Records>>,
    /// Whole series, by their place in the table, with their shapes.
    bases: RefCell<HashMap<String, (Vec<usize>, Buckets)>>,
}

/// What a reader has found in a run, without the store: a long run is read in several steps that do not borrow the store in between.
pub(super) struct Index {
    lines: Lines,
    records: OnceCell<Option<Records>>,
    bases: RefCell<HashMap<String, (Vec<usize>, Buckets)>>,
}

impl<'a> Reader<'a> {
    /// The reader again, of the same store.
    pub(super) fn with_index(store: &'a dyn Store, Index { lines, records, bases }: Index) -> Reader<'a> {
        Reader { store, lines, records, bases }
    }

    /// What it has found so far.
    pub(super) fn into_index(self) -> Index {
        Index { lines: self.lines, records: self.records, bases: self.bases }
    }

    /// Opens the run in a store; a run without a log has no events.
    pub fn open(store: &'a dyn Store) -> Result<Reader<'a>, StoreError> {
        Ok(Reader { store, lines: Lines::scan(store)?, records: OnceCell::new(), bases: RefCell::default() })
    }

    /// The first line, if it can be read.
    pub fn header(&self) -> Result<Option<Header>, StoreError> {
        let first = self.lines.entries(self.store, 0..=0, None).next().transpose()?;
        let event = first.and_then(|entry| entry.line.event.ok());
        Ok(event.and_then(|event| if let Event::Header(header) = event { Some(header) } else { None }))
    }

    /// The first and the last update that have a line.
    pub fn updates(&self) -> Option<(u32, u32)> {
        self.lines.updates
    }

    /// The events of the run as it stands, in the order of the log. Their arrays are empty where they stand in array records: [`Reader::read`]
    /// those.
    pub fn events(&self) -> impl Iterator<Item = Result<Event, StoreError>> {
        self.events_within(0..=u32::MAX)
    }

    /// Those that are about updates in a range.
    pub fn events_within(&self, range: RangeInclusive<u32>) -> impl Iterator<Item = Result<Event, StoreError>> {
        self.select(range, None)
    }

    fn select(&self, range: RangeInclusive<u32>, only: Option<&'static str>) -> impl Iterator<Item = Result<Event, StoreError>> {
        let event = |entry: Result<Entry, StoreError>| match entry {
            Ok(Entry { line, is_current: true }) => line.event.ok().filter(|event| !matches!(event, Event::Rewound(_))).map(Ok),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        };
        self.lines.entries(self.store, range, only).filter_map(event)
    }

    /// The incidents among them.
    pub fn incidents(&self) -> impl Iterator<Item = Result<IncidentRecord, StoreError>> {
        let incident = |event: Result<Event, StoreError>| match event {
            Ok(Event::Incident(record)) => Some(Ok(record)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        };
        self.select(0..=u32::MAX, Some("incident")).filter_map(incident)
    }

    /// All lines, including rewound and unreadable ones.
    pub fn audit(&self) -> impl Iterator<Item = Result<AuditLine, StoreError>> {
        let line = |entry: Result<Entry, StoreError>| {
            entry.map(|Entry { line, is_current }| AuditLine { number: line.number, event: line.event, is_rewound: !is_current })
        };
        self.lines.entries(self.store, 0..=u32::MAX, None).map(line)
    }

    /// A series over the updates of `range`, in at most `points` buckets (at least 1) of equal width, with one update each if these are few enough.
    ///
    /// # Errors
    /// If the medium cannot be read.
    pub fn read(&self, series: &Series, range: RangeInclusive<u32>, points: usize) -> Result<Block, StoreError> {
        let is_whole = self.lines.updates.is_none_or(|(first, last)| *range.start() <= first && *range.end() >= last);
        let mut bases = self.bases.borrow_mut();
        if is_whole && !bases.contains_key(&series.key()) {
            let base = self.gather(series, &(0..=u32::MAX), BASE_BUCKETS)?;
            bases.insert(series.key(), base);
        }
        let (shape, buckets) = match bases.get(&series.key()) {
            Some((shape, base)) if base.is_exact() || is_whole && base.finish().len() >= points => {
                let within = if is_whole { base.clone() } else { base.within(&range) };
                (shape.clone(), within.at_most(points))
            }
            _ => self.gather(series, &range, points)?,
        };
        Ok(Block { shape, buckets: buckets.finish() })
    }

    fn records(&self) -> Result<Option<&Records>, StoreError> {
        if self.records.get().is_none() {
            let layout = files::layout(self.store)?;
            let records = if layout.is_empty() { None } else { Some(Records::scan(self.store, layout)?) };
            return Ok(self.records.get_or_init(|| records).as_ref());
        }
        Ok(self.records.get().and_then(Option::as_ref))
    }

    /// Reads a series from the file.
    fn gather(&self, series: &Series, range: &RangeInclusive<u32>, limit: usize) -> Result<(Vec<usize>, Buckets), StoreError> {
        if series.is_array()
            && let Some(records) = self.records()?
            && let Some((shape, place)) = records.place(series.read_from())
        {
            let empty = series.derive(shape, &vec![f64::NAN; place.len() / 4]);
            let mut buckets = Buckets::new(limit.min(BASE_VALUES / empty.1.len().max(1)));
            records.each(self.store, series.record, range, place, |update, values| {
                // All are NaN if the series was not measured.
                if !values.iter().all(|value| value.is_nan()) {
                    buckets.add(update, &series.derive(shape, values).1);
                }
            })?;
            return Ok((empty.0, buckets));
        }
        let mut gathered: Option<(Vec<usize>, Buckets)> = None;
        let only = match series.record {
            RecordKind::Update => "update",
            RecordKind::Eval => "eval",
        };
        for event in self.select(range.clone(), Some(only)) {
            let event = event?;
            let measured = match (&event, series.record) {
                (Event::Update(record), RecordKind::Update) => measured(record, series),
                (Event::Eval(record), RecordKind::Eval) => measured(record, series),
                _ => None,
            };
            let (Some(update), Some((shape, values))) = (event.update(), measured) else { continue };
            let (_, buckets) = gathered.get_or_insert_with(|| (shape, Buckets::new(limit.min(BASE_VALUES / values.len()))));
            buckets.add(update, &values);
        }
        Ok(gathered.unwrap_or_else(|| (Vec::new(), Buckets::new(limit))))
    }
}

/// Shape and values of a series in a record; `None` if it was not measured.
fn measured<R: Record>(record: &R, series: &Series) -> Option<(Vec<usize>, Vec<f64>)> {
    let column = R::COLUMNS.iter().find(|column| column.series.name == series.read_from())?;
    let values = (column.values)(record);
    (!values.is_empty()).then(|| series.derive(&(column.shape)(record), &values))
}
