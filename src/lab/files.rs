//! The names of a run folder's files, and what must hold before they are read.
//!
//! The protocol by which the files are written is documented at `lab::run_folder`.

pub mod sums;

use super::store::{Store, StoreError};
use crate::run::{
    arrays::Layout,
    checkpoint::{CheckpointError, MANIFEST, PIECE_BYTES, Verification},
};

/// Name of the file with every setting of a run.
pub const EFFECTIVE_CONFIG: &str = "config.effective.toml";
/// Name of the file with the run's tokenizer, unless it is bytes.
pub const TOKENIZER: &str = "tokenizer.json";
/// Name of the log.
pub const METRICS: &str = "metrics.jsonl";
/// Name of the file with the array records, in a run of a model that has routers.
pub const SERIES: &str = "series.bin";
/// Name of the file with their layout.
pub const SERIES_LAYOUT: &str = "series.json";
/// Name of the folder with the checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// What the name of a draft has after that of the file or folder, before the tag of its process.
pub(super) const DRAFT: &str = ".tmp-";

/// Refuses a config or tokenizer of a run that was changed. Must be called before reading one of them.
pub fn check_start_files(store: &dyn Store) -> Result<(), StoreError> {
    // Without a log there is a run where a checkpoint is whole; part of one is what an import leaves that was cut short.
    let is_whole = |folder: &String| verify(store, &format!("{CHECKPOINTS}/{folder}")).is_ok_and(|found| found.is_ok());
    let has_run = store.read(METRICS)?.is_some() || candidates(store)?.iter().any(is_whole);
    if !has_run || store.read(EFFECTIVE_CONFIG)?.is_none() {
        return Err(StoreError::Unstarted { missing: if has_run { EFFECTIVE_CONFIG } else { METRICS } });
    }
    let Some(sums) = sums::read(store)? else { return Ok(()) };
    for name in [EFFECTIVE_CONFIG, TOKENIZER, SERIES_LAYOUT] {
        if !sums::fits(store, &sums, name)? {
            return Err(StoreError::Changed { path: name.to_string() });
        }
    }
    Ok(())
}

/// The layout of a run's array records; empty where it has none.
pub fn layout(store: &dyn Store) -> Result<Layout, StoreError> {
    let Some(bytes) = store.read(SERIES_LAYOUT)? else { return Ok(Layout::default()) };
    Layout::from_json(&bytes).map_err(|problem| StoreError::Unreadable(format!("{SERIES_LAYOUT}: {problem}")))
}

/// Names of all checkpoint folders, newest first, drafts after the folder proper.
pub fn candidates(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let mut folders: Vec<String> = store.list(CHECKPOINTS)?;
    folders.retain(|folder| update_of(folder).is_some());
    folders.sort_by_key(|folder| (std::cmp::Reverse(update_of(folder)), folder.clone()));
    Ok(folders)
}

/// The update in the name of a checkpoint folder or of its draft.
pub fn update_of(folder: &str) -> Option<u32> {
    let number = folder.strip_prefix("update-")?;
    number.split(DRAFT).next()?.parse().ok()
}

/// Whether the files of a checkpoint are intact, with at most one piece of them in memory.
pub fn verify(store: &dyn Store, folder: &str) -> Result<Result<(), CheckpointError>, StoreError> {
    let manifest = store.read(&format!("{folder}/{MANIFEST}"))?;
    let mut verification = match Verification::new(manifest.as_deref()) {
        Ok(verification) => verification,
        Err(problem) => return Ok(Err(problem)),
    };
    loop {
        match verify_next(store, folder, &mut verification)? {
            Ok(true) => {}
            Ok(false) => return Ok(Ok(())),
            Err(problem) => return Ok(Err(problem)),
        }
    }
}

/// Verifies the next piece; returns whether there was one.
pub(super) fn verify_next(
    store: &dyn Store,
    folder: &str,
    verification: &mut Verification,
) -> Result<Result<bool, CheckpointError>, StoreError> {
    let Some((name, offset)) = verification.next() else { return Ok(Ok(false)) };
    let piece = store.read_at(&format!("{folder}/{name}"), offset, PIECE_BYTES)?;
    Ok(verification.push(piece.as_deref()).map(|()| true))
}
