//! Documents from Parquet files: the rows of a column `text`, read one at a time.

use std::{path::Path, sync::Arc};

use crate::input::{self, shown};
use anyhow::{Context, Result, anyhow};
use parquet::{
    basic::Type as Physical,
    file::reader::{FileReader, SerializedFileReader},
    record::RowAccessor,
    schema::types::Type,
};

/// Receives a text and a function for its place; returns whether to continue.
pub type Take<'a> = &'a mut dyn FnMut(&str, &dyn Fn() -> String) -> Result<bool>;

/// Passes the text of each row to `take` until it returns `false`, and then returns `false`. A row without text is an error, as in JSONL.
///
/// # Errors
/// The file is not a Parquet file, is damaged, or has no column `text` of strings; the error has file and row.
pub fn each(path: &Path, take: Take) -> Result<bool> {
    let shown = || shown(path);
    let reader = SerializedFileReader::new(input::open(path).with_context(shown)?).with_context(shown)?;
    let schema = reader.metadata().file_metadata().schema();
    let column = schema.get_fields().iter().find(|field| field.name() == "text" && field.is_primitive());
    let column = column.filter(|field| field.get_physical_type() == Physical::BYTE_ARRAY);
    let names: Vec<_> = schema.get_fields().iter().map(|field| field.name()).collect();
    let column =
        column.ok_or_else(|| anyhow!("{}: expected a column `text` of strings, found the columns {}", shown(), names.join(", ")))?;
    let projection = Type::group_type_builder(schema.name()).with_fields(vec![Arc::clone(column)]).build()?;
    for (index, row) in reader.get_row_iter(Some(projection)).with_context(shown)?.enumerate() {
        let place = || format!("{}: row {}", shown(), index + 1);
        let row = row.with_context(place)?;
        let text = row.get_string(0).map_err(|error| anyhow!("{}: {error}; expected text", place()))?;
        if !take(text, &place)? {
            return Ok(false);
        }
    }
    Ok(true)
}
