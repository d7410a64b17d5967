//! TensorBoard event files: the scalars of a run, as `tensorboard --logdir FOLDER` reads them.
//!
//! A file is a sequence of records, and a record is
//!
//! ```text
//! u64 length | u32 masked CRC-32C of the length | the message | u32 masked CRC-32C of the message      (little-endian)
//! ```
//!
//! The messages are `tensorflow.Event` in protobuf's wire format; only the fields that a scalar needs are written: `wall_time` (1, double),
//! `step` (2, varint), `file_version` (3, string, in the first record), and `summary` (5) with `value` (1) of `tag` (1, string), `simple_value`
//! (2, float). Wall times are seconds since the run started, because a log has no date.
//!
//! Series with one value per expert are written as one scalar each for the first [`EXPERTS`] experts of the first [`LAYERS`] layers:
//! `expert_load/layer 0/expert 3`.

use std::collections::BTreeMap;

use crate::{
    lab::{reader::Reader, store::StoreError},
    run::{
        records::Event,
        series::{Record, RecordKind, Series},
    },
};

/// Layers with scalars of their own.
pub const LAYERS: usize = 32;
/// Experts with scalars of their own.
pub const EXPERTS: usize = 64;
/// Buckets of an array series.
const POINTS: usize = 500;

/// A value of a scalar.
#[derive(Clone, Debug, PartialEq)]
pub struct Scalar {
    /// The name of the scalar; `/` makes a group.
    pub tag: String,
    /// The update.
    pub step: u32,
    /// Seconds since the start of the run.
    pub seconds: f64,
    /// The value. TensorBoard keeps 32 bits of it.
    pub value: f32,
}

/// The scalars of a run: every measured series of updates and evaluations.
///
/// # Errors
/// If the log cannot be read.
pub fn scalars(reader: &Reader) -> Result<Vec<Scalar>, StoreError> {
    let (mut scalars, mut times) = (Vec::new(), BTreeMap::new());
    let (mut session, mut earlier, mut latest) = (0, 0.0, 0.0);
    for event in reader.events() {
        let event = event?;
        let (Some(update), Some(time)) = (event.update(), event.time()) else { continue };
        // The clock of a run starts again whenever it is resumed.
        if time.session != session {
            (session, earlier, latest) = (time.session, earlier + latest, 0.0);
        }
        latest = time.seconds.max(latest);
        let seconds = earlier + time.seconds;
        times.entry(update).or_insert(seconds);
        let mut add = |tag: String, value: f64| scalars.push(Scalar { tag, step: update, seconds, value: value as f32 });
        match &event {
            Event::Update(record) => each_scalar(record, &mut add),
            Event::Eval(record) => each_scalar(record, &mut add),
            _ => {}
        }
    }
    for series in Series::all().filter(|series| series.is_array()) {
        let block = reader.read(series, 0..=u32::MAX, POINTS)?;
        for bucket in &block.buckets {
            let step = *bucket.updates.end();
            let seconds = times.range(..=step).next_back().map_or(0.0, |(_, seconds)| *seconds);
            for (place, value) in bucket.mean.iter().enumerate() {
                let tag = element_tag(series, &block.shape, place);
                scalars.extend(tag.map(|tag| Scalar { tag, step, seconds, value: *value as f32 }));
            }
        }
    }
    Ok(scalars)
}

fn each_scalar<R: Record>(record: &R, add: &mut dyn FnMut(String, f64)) {
    for column in R::COLUMNS.iter().filter(|column| !column.series.is_array()) {
        if let [value] = (column.values)(record)[..] {
            add(tag(&column.series), value);
        }
    }
}

/// Updates are in the group `train`, evaluations in `eval`.
fn tag(series: &Series) -> String {
    let group = match series.record {
        RecordKind::Update => "train",
        RecordKind::Eval => "eval",
    };
    format!("{group}/{}", series.name)
}

fn element_tag(series: &Series, shape: &[usize], place: usize) -> Option<String> {
    let name = tag(series);
    match *shape {
        [layers] if layers <= LAYERS => Some(format!("{name}/layer {place}")),
        [_, experts] if place / experts < LAYERS && place % experts < EXPERTS => {
            Some(format!("{name}/layer {}/expert {}", place / experts, place % experts))
        }
        _ => None,
    }
}

/// The name of the event file of a run: TensorBoard looks for `tfevents` in it.
pub const FILE: &str = "events.out.tfevents.0000000000.moelab";

/// An event file.
pub fn event_file(scalars: &[Scalar]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut version = Vec::new();
    bytes_field(&mut version, 3, b"brain.Event:2");
    add_record(&mut file, &version);
    for Scalar { tag, step, seconds, value } in scalars {
        let mut entry = Vec::new();
        bytes_field(&mut entry, 1, tag.as_bytes());
        entry.push(2 << 3 | 5);
        entry.extend(value.to_le_bytes());
        let mut summary = Vec::new();
        bytes_field(&mut summary, 1, &entry);
        let mut event = vec![1 << 3 | 1];
        event.extend(seconds.to_le_bytes());
        event.push(2 << 3);
        varint(&mut event, u64::from(*step));
        bytes_field(&mut event, 5, &summary);
        add_record(&mut file, &event);
    }
    file
}

fn add_record(file: &mut Vec<u8>, message: &[u8]) {
    let length = (message.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked(crc32c(&length)).to_le_bytes());
    file.extend(message);
    file.extend(masked(crc32c(message)).to_le_bytes());
}

/// A field of bytes: its key (wire type 2), the length and the content.
fn bytes_field(message: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    message.push(field << 3 | 2);
    varint(message, bytes.len() as u64);
    message.extend(bytes);
}

/// Seven bits a byte, the lowest first; the high bit says that more follow.
fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

/// CRC-32C (Castagnoli; RFC 3720, appendix B.4), by the byte.
pub fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let (mut crc, mut bit) = (byte as u32, 0);
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ TABLE[(crc as u8 ^ byte) as usize])
}

/// The mask of record files, for a CRC that may itself be part of data with a CRC.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}
