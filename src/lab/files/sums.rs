//! `SHA256SUMS`: checksums of the small files of a run folder, in the format of `sha256sum --check`.
//!
//! A crash never leaves a wrong sum: a file's line is removed before the file is replaced, and the new one is added after that.
//! A folder of an earlier release has no such file. To change a file on purpose, remove `SHA256SUMS`.

use crate::lab::store::{Store, StoreError, check_name};
use crate::run::digest::sha256_hex;
use std::collections::BTreeMap;

/// Name of the file.
pub const SUMS: &str = "SHA256SUMS";

/// Name and SHA-256 of each file.
pub type Sums = BTreeMap<String, String>;

/// Reads the file; empty if it does not exist.
pub fn read(store: &dyn Store) -> Result<Option<Sums>, StoreError> {
    let Some(bytes) = store.read(SUMS)? else { return Ok(None) };
    parse(&bytes).map(Some).ok_or_else(|| StoreError::Changed { path: SUMS.to_string() })
}

fn parse(bytes: &[u8]) -> Option<Sums> {
    let text = std::str::from_utf8(bytes).ok()?;
    let sum_of = |line: &str| {
        let (sum, name) = line.split_once("  ").filter(|(sum, name)| is_sum(sum) && check_name(name).is_ok())?;
        Some((name.to_string(), sum.to_string()))
    };
    let sums: Sums = text.lines().filter(|line| !line.starts_with('#')).map(sum_of).collect::<Option<_>>()?;
    // Must equal the written form exactly, so that no line can be missing.
    (to_text(&sums) == text).then_some(sums)
}

fn is_sum(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The content of the file. It ends with a comment with the number of lines, to detect truncation.
pub fn to_text(sums: &Sums) -> String {
    let lines: String = sums.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
    format!("{lines}# {} files\n", sums.len())
}

/// Whether a file is unchanged: also `true` if it has no sum.
pub fn fits(store: &dyn Store, sums: &Sums, name: &str) -> Result<bool, StoreError> {
    let Some(wanted) = sums.get(name) else { return Ok(true) };
    Ok(store.read(name)?.is_some_and(|bytes| sha256_hex(&bytes) == *wanted))
}
