//! `series.bin` in bounded memory, with an index of blocks of array records to find a range of updates.

use std::ops::{Range, RangeInclusive};

use crate::{
    lab::{
        files::SERIES,
        store::{Store, StoreError},
    },
    run::{
        arrays::{ArrayKind, Layout},
        records::Rewinds,
        series::RecordKind,
    },
};

/// Bytes per read.
const BLOCK_BYTES: usize = 1 << 20;

struct Block {
    /// Number of records before it.
    first: u64,
    records: usize,
    /// The smallest and the largest update of its records.
    updates: RangeInclusive<u32>,
}

/// The index of the records.
pub(super) struct Records {
    layout: Layout,
    blocks: Vec<Block>,
    rewinds: Rewinds,
}

impl Records {
    /// Scans the records once. A torn last record is ignored.
    pub fn scan(store: &dyn Store, layout: Layout) -> Result<Records, StoreError> {
        let record = layout.record_bytes();
        let capacity = (BLOCK_BYTES / record).max(1);
        let (mut blocks, mut rewinds, mut first) = (Vec::new(), Rewinds::default(), 0);
        loop {
            let bytes = store.read_at(SERIES, first * record as u64, capacity * record)?.unwrap_or_default();
            let (mut least, mut greatest) = (u32::MAX, 0);
            for (position, bytes) in (first..).zip(bytes.chunks_exact(record)) {
                let Some(head) = layout.unchecked_head(bytes) else { continue };
                (least, greatest) = (least.min(head.update), greatest.max(head.update));
                match head.kind {
                    ArrayKind::Of(RecordKind::Eval) => {}
                    // A damaged record must not make others history.
                    _ if layout.head(bytes).is_none() => {}
                    ArrayKind::Of(RecordKind::Update) => rewinds.note_update(position, head.update),
                    ArrayKind::Rewound => rewinds.note_rewound(position, head.update),
                }
            }
            let records = bytes.len() / record;
            blocks.push(Block { first, records, updates: least..=greatest });
            first += records as u64;
            if records < capacity {
                return Ok(Records { layout, blocks, rewinds: rewinds.finish() });
            }
        }
    }

    /// The shape of a series, and the range of its values in a record; `None` if the records lack it.
    pub fn place(&self, name: &str) -> Option<(&[usize], Range<usize>)> {
        self.layout.place(name)
    }

    /// Passes the update and the values of every intact record of this kind and range to `take`.
    pub fn each(
        &self,
        store: &dyn Store,
        kind: RecordKind,
        range: &RangeInclusive<u32>,
        values: Range<usize>,
        mut take: impl FnMut(u32, &[f64]),
    ) -> Result<(), StoreError> {
        let record = self.layout.record_bytes();
        let mut numbers = Vec::new();
        for block in self.blocks.iter().filter(|block| block.updates.start() <= range.end() && block.updates.end() >= range.start()) {
            let bytes = store.read_at(SERIES, block.first * record as u64, block.records * record)?.unwrap_or_default();
            for (position, bytes) in (block.first..).zip(bytes.chunks_exact(record)) {
                let Some(head) = self.layout.unchecked_head(bytes) else { continue };
                let is_wanted =
                    head.kind == ArrayKind::Of(kind) && range.contains(&head.update) && self.rewinds.keeps(position, head.update);
                if is_wanted && self.layout.head(bytes).is_some() {
                    let number = |bytes: &[u8]| f64::from(f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
                    numbers.clear();
                    numbers.extend(bytes[values.clone()].chunks_exact(4).map(number));
                    take(head.update, &numbers);
                }
            }
        }
        Ok(())
    }
}
