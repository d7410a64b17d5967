//! Array records: the series of a run with more than one value per update, as fixed-size binary records.
//!
//! A record is `check`, `update`, `kind` (little-endian u32), and then the fields of the [`Layout`] as little-endian f32, row by
//! row; NaN for values that were not measured. `check` is the start of the SHA-256 of the rest: a record that does not match
//! is damaged. `kind` 2 has no values: the run was rewound to `update`, and earlier records of later updates are obsolete.
//! numpy reads a file of records in one line, [`Layout::numpy_line`].
//!
//! The layout is fixed when a run starts and stored next to the records, so that a later release continues to use it: series that
//! the layout lacks stay in the line of the log. So do arrays that only evaluations have: there are few evaluations, and a place for
//! them in the records of updates would be empty.

use super::{
    digest::check_word,
    series::{Column, Lengths, Record, RecordKind, Series, UpdateRecord},
};
use serde::{Deserialize, Serialize};

const FORMAT: &str = "moelab-series";
const VERSION: u32 = 1;
/// `check`, `update`, `kind`.
const HEAD_BYTES: usize = 12;
const REWOUND: u32 = 2;
/// Maximum values per record: far more than any model that fits a device has.
const MOST_VALUES: usize = 1 << 20;

/// One array of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArrayField {
    /// Name of the series.
    pub name: String,
    /// The length of each axis.
    pub shape: Vec<usize>,
    /// The axes.
    pub axes: Vec<super::series::Axis>,
    /// The unit of the values.
    pub unit: String,
    /// The description.
    pub doc: String,
}

/// The layout of the array records of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    fields: Vec<ArrayField>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayoutFile {
    format: String,
    version: u32,
    record_bytes: usize,
    fields: Vec<ArrayField>,
}

/// What a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrayKind {
    /// The record of an update or an evaluation.
    Of(RecordKind),
    /// The run was rewound to the record's update.
    Rewound,
}

impl ArrayKind {
    fn number(self) -> u32 {
        match self {
            Self::Of(RecordKind::Update) => 0,
            Self::Of(RecordKind::Eval) => 1,
            Self::Rewound => REWOUND,
        }
    }

    fn from_number(number: u32) -> Option<ArrayKind> {
        [Self::Of(RecordKind::Update), Self::Of(RecordKind::Eval), Self::Rewound].into_iter().find(|kind| kind.number() == number)
    }
}

/// The head of an intact record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArrayHead {
    /// Its kind.
    pub kind: ArrayKind,
    /// Its update.
    pub update: u32,
    /// Its check, which the line of the log repeats.
    pub check: u32,
}

/// Why a layout cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// It is not the JSON of a layout.
    #[error("{0}")]
    Json(
        /// The reader's message.
        String,
    ),
    /// It is of another format or version.
    #[error("it is {format} {version}, but this build reads {FORMAT} {VERSION}")]
    Format {
        /// Its format.
        format: String,
        /// Its version.
        version: u64,
    },
    /// Its records would be too large.
    #[error("its records have more than {MOST_VALUES} values")]
    TooLarge,
    /// Its fields do not make up its records.
    #[error("its records have {record} bytes and its fields {fields}")]
    Size {
        /// Bytes of a record, as stated.
        record: usize,
        /// Bytes of a record with these fields.
        fields: usize,
    },
}

impl Layout {
    /// All series of updates that have axes; evaluations use the same fields. Empty for a model without routers.
    pub fn of(lengths: Lengths) -> Layout {
        let arrays = UpdateRecord::COLUMNS.iter().map(|column| &column.series).filter(|series| series.is_array() && lengths.layers > 0);
        let field = |series: &Series| ArrayField {
            name: series.name.to_string(),
            shape: lengths.shape(series),
            axes: series.axes.to_vec(),
            unit: series.unit.to_string(),
            doc: series.doc().to_string(),
        };
        Layout { fields: arrays.map(field).collect() }
    }

    /// Whether there are no arrays, and so no records.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The arrays, in their order.
    pub fn fields(&self) -> &[ArrayField] {
        &self.fields
    }

    /// Bytes of one record.
    pub fn record_bytes(&self) -> usize {
        HEAD_BYTES + 4 * self.fields.iter().map(ArrayField::len).sum::<usize>()
    }

    /// The layout as stored next to the records.
    pub fn to_json(&self) -> String {
        let file =
            LayoutFile { format: FORMAT.to_string(), version: VERSION, record_bytes: self.record_bytes(), fields: self.fields.clone() };
        serde_json::to_string_pretty(&file).expect("keys are strings and there are no floats") + "\n"
    }

    /// Parses a layout.
    ///
    /// # Errors
    /// A layout of another build, or one that no records can have.
    pub fn from_json(bytes: &[u8]) -> Result<Layout, LayoutError> {
        let file: LayoutFile = serde_json::from_slice(bytes).map_err(|error| LayoutError::Json(error.to_string()))?;
        if file.format != FORMAT || file.version != VERSION {
            return Err(LayoutError::Format { format: file.format, version: file.version.into() });
        }
        let values = file.fields.iter().try_fold(0_usize, |sum, field| {
            let count = field.shape.iter().try_fold(1_usize, |count, length| count.checked_mul(*length))?;
            sum.checked_add(count).filter(|sum| *sum <= MOST_VALUES)
        });
        let layout = Layout { fields: file.fields };
        match values {
            None => Err(LayoutError::TooLarge),
            Some(_) if layout.record_bytes() != file.record_bytes => {
                Err(LayoutError::Size { record: file.record_bytes, fields: layout.record_bytes() })
            }
            Some(_) => Ok(layout),
        }
    }

    /// The line of Python that reads a file of records.
    pub fn numpy_line(&self, path: &str) -> String {
        let field = |field: &ArrayField| {
            let shape = field.shape.iter().map(|length| format!("{length},")).collect::<String>();
            format!(", (\"{}\", \"<f4\", ({shape}))", field.name)
        };
        let fields: String = self.fields.iter().map(field).collect();
        format!("records = numpy.fromfile(\"{path}\", dtype=[(\"check\", \"<u4\"), (\"update\", \"<u4\"), (\"kind\", \"<u4\"){fields}])")
    }

    /// Moves the arrays out of a record: leaves the rest for the line, and returns the bytes with their check. `None` if it has no
    /// arrays of the layout; it is then unchanged.
    pub fn split<R: Record + Clone>(&self, record: &R, kind: RecordKind, update: u32) -> Option<(R, Vec<u8>, u32)> {
        let columns = self.fields.iter().map(|field| column::<R>(field).filter(|column| (column.shape)(record) == field.shape));
        let columns: Vec<Option<&Column<R>>> = columns.collect();
        if columns.iter().all(Option::is_none) {
            return None;
        }
        let (mut rest, mut values) = (record.clone(), Vec::new());
        for (column, field) in columns.into_iter().zip(&self.fields) {
            match column {
                Some(column) => {
                    values.extend((column.values)(record));
                    (column.set)(&mut rest, &[], 1);
                }
                None => values.resize(values.len() + field.len(), f64::NAN),
            }
        }
        let (bytes, check) = self.record(ArrayKind::Of(kind), update, &values);
        Some((rest, bytes, check))
    }

    /// The record of a rewind to an update.
    pub fn rewound(&self, to: u32) -> Vec<u8> {
        self.record(ArrayKind::Rewound, to, &vec![0.0; self.fields.iter().map(ArrayField::len).sum()]).0
    }

    fn record(&self, kind: ArrayKind, update: u32, values: &[f64]) -> (Vec<u8>, u32) {
        let mut bytes = vec![0; 4];
        bytes.extend(update.to_le_bytes());
        bytes.extend(kind.number().to_le_bytes());
        bytes.extend(values.iter().flat_map(|value| (*value as f32).to_le_bytes()));
        let check = check_word(&bytes[4..]);
        bytes[..4].copy_from_slice(&check.to_le_bytes());
        (bytes, check)
    }

    /// The head of a record; `None` if the record is damaged.
    pub fn head(&self, record: &[u8]) -> Option<ArrayHead> {
        let head = self.unchecked_head(record)?;
        (check_word(&record[4..]) == head.check).then_some(head)
    }

    /// The head of a record that may be damaged.
    pub fn unchecked_head(&self, record: &[u8]) -> Option<ArrayHead> {
        let word = |at: usize| Some(u32::from_le_bytes(record.get(at..at + 4)?.try_into().ok()?));
        let is_whole = record.len() == self.record_bytes();
        is_whole.then_some(ArrayHead { check: word(0)?, update: word(4)?, kind: ArrayKind::from_number(word(8)?)? })
    }

    /// The shape of a series in a record, and the byte range of its values; `None` if the layout lacks it.
    pub fn place(&self, name: &str) -> Option<(&[usize], std::ops::Range<usize>)> {
        let mut start = HEAD_BYTES;
        for field in &self.fields {
            let end = start + 4 * field.len();
            if field.name == name {
                return Some((&field.shape, start..end));
            }
            start = end;
        }
        None
    }
}

impl ArrayField {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

fn column<R: Record>(field: &ArrayField) -> Option<&'static Column<R>> {
    R::COLUMNS.iter().find(|column| column.series.name == field.name && column.series.is_array())
}
