//! `series.bin`, the array records of a run ([`run::arrays`](crate::run::arrays)), rewound and repaired together with the log.

use super::RunFolder;
use crate::{
    lab::{
        files::SERIES,
        store::{Store, StoreError},
    },
    run::{
        arrays::{ArrayHead, ArrayKind, Layout},
        records::Rewinds,
        series::RecordKind,
    },
};

/// Bytes per read.
const BLOCK_BYTES: usize = 1 << 20;

/// The records of a file; only the heads are kept in memory.
struct Records {
    /// The head of each intact record.
    heads: Vec<Option<ArrayHead>>,
    /// Bytes of the file, a torn record among them.
    bytes: u64,
}

impl Records {
    fn read(store: &dyn Store, layout: &Layout) -> Result<Option<Records>, StoreError> {
        let record = layout.record_bytes();
        let length = record * (BLOCK_BYTES / record).max(1);
        let mut records = Records { heads: Vec::new(), bytes: 0 };
        loop {
            let Some(block) = store.read_at(SERIES, records.bytes, length)? else { return Ok(None) };
            records.bytes += block.len() as u64;
            records.heads.extend(block.chunks_exact(record).map(|record| layout.head(record)));
            if block.len() < length {
                return Ok(Some(records));
            }
        }
    }

    /// The heads of the current state of the run.
    fn current(&self) -> impl Iterator<Item = ArrayHead> {
        let mut rewinds = Rewinds::default();
        for (position, head) in (0..).zip(&self.heads) {
            match head {
                Some(ArrayHead { kind: ArrayKind::Rewound, update, .. }) => rewinds.note_rewound(position, *update),
                Some(ArrayHead { kind: ArrayKind::Of(RecordKind::Update), update, .. }) => rewinds.note_update(position, *update),
                _ => {}
            }
        }
        let rewinds = rewinds.finish();
        let is_current =
            move |(position, head): &(u64, ArrayHead)| head.kind != ArrayKind::Rewound && rewinds.keeps(*position, head.update);
        let heads = (0..).zip(&self.heads).filter_map(|(position, head)| Some((position, (*head)?)));
        heads.filter(is_current).map(|(_, head)| head)
    }
}

impl RunFolder {
    /// Rewinds the array records to `update`: a torn record is cut off, and a record marks later ones as obsolete.
    /// `named` are those that the log refers to, in its order. Returns warnings.
    pub(super) fn rewind_arrays(&mut self, update: u32, named: &[ArrayHead]) -> Result<Vec<String>, StoreError> {
        if self.layout.is_empty() {
            return Ok(Vec::new());
        }
        let record = self.layout.record_bytes() as u64;
        let mut records = match Records::read(&*self.store, &self.layout)? {
            Some(records) => records,
            None => {
                self.replace(SERIES, b"")?;
                Records { heads: Vec::new(), bytes: 0 }
            }
        };
        // A crash of the machine may leave whole records with arbitrary content.
        while matches!(records.heads.last(), Some(None)) {
            records.heads.pop();
        }
        let whole = record * records.heads.len() as u64;
        self.cut(SERIES, whole)?;
        let damaged = records.heads.iter().filter(|head| head.is_none()).count();
        let mut warnings: Vec<String> = Vec::new();
        if damaged > 0 {
            warnings.push(format!("{SERIES}: {damaged} records are damaged: they are ignored"));
        }
        let mut current = records.current().peekable();
        let mut lost = Vec::new();
        for named in named {
            let is_other = |found: &ArrayHead| (found.update, found.kind) == (named.update, named.kind) && found.check != named.check;
            while current.next_if(|found| found.update < named.update || is_other(found)).is_some() {}
            if current.next_if_eq(named).is_none() {
                lost.push(named.update);
            }
        }
        if let [first, ..] = lost[..] {
            warnings.push(format!(
                "{SERIES}: the arrays of {} lines of the log are damaged or missing, the first of update {first}",
                lost.len()
            ));
        }
        self.series_bytes = whole;
        if records.current().any(|head| head.update > update) {
            let rewound = self.layout.rewound(update);
            self.store.append(SERIES, &rewound)?;
            self.series_bytes += rewound.len() as u64;
        }
        if self.series_bytes != records.bytes {
            self.store.sync(SERIES)?;
        }
        Ok(warnings)
    }
}
