//! The folder of a run, and the protocol by which it survives a crash at any moment.
//!
//! ```text
//! README.md  config.effective.toml  tokenizer.json  series.json  SHA256SUMS
//! metrics.jsonl  series.bin  summary.json  report.md  loss.svg  loss.png
//! checkpoints/update-00000400/{model.safetensors, optim.safetensors, state.json, manifest.json}
//! checkpoints/{latest, best}       names of folders, for people and scripts
//! ```
//!
//! A small file is replaced by writing a draft `NAME.tmp-TAG`, syncing it, renaming it, and syncing the folder. So either the old or
//! the new content exists at any moment; a draft left by a crash is removed when the run is next opened for writing ([`RunFolder::rewind`]).
//! "Repaired" below refers to that call; commands that only read (`eval`, `sample`, `export`) repair nothing and use the same checkpoint.
//!
//! | operation, in order | a crash before it leaves | a crash after it leaves |
//! |---|---|---|
//! | **start**: `config.effective.toml`, `tokenizer.json`, `README.md`, `series.json`, `SHA256SUMS` | nothing, or some of these files: no run, can be started again | the same |
//! | start: the imported checkpoint of update 0 | no run, can be started again | a checkpoint; resuming writes the log's first line |
//! | start: `series.bin`, empty | as above | as above |
//! | start: `metrics.jsonl` with its first line | as above | a run before its first update |
//! | **log**: an array record is added to `series.bin` | neither | the record, or a torn one, which is cut off; the update is made again |
//! | log: a line is added to `metrics.jsonl` | the record alone | both, or a torn line, which is dropped; the update is made again |
//! | **checkpoint**: records and log are synced; four files into `update-N.tmp-TAG`, piece by piece, each synced, the manifest last | the checkpoint before, and a draft, which is removed | the same; with the manifest the draft counts as checkpoint and is renamed |
//! | checkpoint: a damaged folder of the same name is removed | both; the draft counts | the draft, which is renamed |
//! | checkpoint: the draft is renamed, the folder above synced | the draft, as above | the new checkpoint |
//! | checkpoint: it is read back and verified | the new checkpoint | the same |
//! | **pointers**: `latest`, `best` | stale pointers, repaired from the checkpoints' own `state.json` | the new ones |
//! | **prune**: an old folder is renamed to `removed-update-N`, the folder above synced, then it is removed | one checkpoint too many, removed on opening | part of a `removed-` folder, removed on opening |
//! | **rewind**: later checkpoints become `set-aside-update-N`; drafts and removed folders go; pointers; a record and a line say that later ones are history | part of that; the next opening does the rest | the same |
//! | **finish**: `loss.svg`, `loss.png`, `report.md`, `summary.json`, `SHA256SUMS` | the last checkpoint, and some of these files: resuming writes all again | a finished run |
//!
//! `moelab-native`'s `atomic` writes exports and the cache; it has a similar table.
//!
//! **Saving.** At every moment a verified checkpoint exists once the first save has returned. A failed save is an error to
//! report, not the end of a run: the checkpoint before is untouched.
//!
//! **Loading.** The newest folder that verifies and matches the model; each newer one that does not results in a warning with the
//! problem. A draft whose manifest verifies is complete, whatever its name, and counts. The best is taken from the
//! newest `state.json`. If the writer prunes a folder that a reader is about to read, the reader tries again.
//!
//! **Resuming.** The trainer saves at update U after all lines of update U. [`RunFolder::rewind`] drops a line and cuts off a record that
//! a crash tore, and keeps the lines and records beyond U for audits. It adds a line and a record that mark
//! them as obsolete ([`Rewinds`](crate::run::records::Rewinds)); the same rule holds in both files, each of which can be read alone.
//! [`RunFolder::append`] refuses a duplicate line. So the current lines have no duplicates, and equal those of an uninterrupted run.
//! A checkpoint's mark covers only these lines.
//!
//! **Arrays.** Series with more than one value per update are in `series.bin` ([`run::arrays`](crate::run::arrays)). A line repeats the
//! check of its record, so that whatever protects the line protects the record. Runs of earlier releases have their arrays in the lines and
//! continue to do so.
//!
//! **Damage**, file by file; "noticed" means a warning or a refusal with the file and how to proceed.
//!
//! | file | a changed bit, a cut, an empty file |
//! |---|---|
//! | the four files of a checkpoint | noticed by its manifest; the checkpoint before is used, with a warning |
//! | `latest`, `best` | nothing depends on them; repaired with a warning |
//! | `metrics.jsonl` | a damaged line is replaced by an incident, with a warning; a damaged first line is written again, with a warning; a log that is cut, or another run's, is refused |
//! | `series.bin` | noticed by a warning: a record is damaged, or lacks to a line; what a crash left at the end is cut off |
//! | `config.effective.toml`, `tokenizer.json`, `series.json` | refused by their sums, by every command that reads the run |
//! | `README.md` | written again with a warning |
//! | `summary.json`, `report.md`, `loss.*` | no command reads them; resuming warns and writes them again |
//! | `SHA256SUMS` | refused if it cannot be read; a changed sum accuses its file |
//! | `run.lock` | means nothing: the lock is the system's, the content is for a message |
//!
//! Long because it is one protocol, documented by its tables.
//!
//! Long because it has every way to change a run folder, whose order makes it safe.
//!
//! Long because every file of a run folder is written and read in one place.

mod arrays;
mod load;
mod readme;
mod rewind;
mod save;

pub use load::{Found, Loaded};
pub use save::{Save, SaveStep, Saved};

use super::files::{
    CHECKPOINTS, DRAFT, EFFECTIVE_CONFIG, METRICS, SERIES, SERIES_LAYOUT, TOKENIZER, candidates, check_start_files, layout,
    sums::{self, SUMS},
    update_of, verify,
};
use super::log::{self, Log, Marker};
use super::reader::Reader;
use super::store::{Store, StoreError};
use crate::run::arrays::Layout;
use crate::run::checkpoint::{MANIFEST, Manifest, STATE, Snapshot};
use crate::run::digest::sha256_hex;
use crate::run::records::{self, Event, Header, RewoundRecord};
use crate::run::series::{Lengths, RecordKind};
use crate::run::state::TrainState;
use readme::README;
use rewind::{LogRewind, Marks, Newest};

const LATEST: &str = "checkpoints/latest";
const BEST: &str = "checkpoints/best";
const SET_ASIDE: &str = "set-aside-";
const REMOVED: &str = "removed-";
/// How often a reader tries again while a writer prunes.
const LOOKS: usize = 20;

/// One run in its store.
pub struct RunFolder {
    store: Box<dyn Store>,
    tag: String,
    newest: Newest,
    /// Of the lines that are in the log; `None` until it is known, by [`RunFolder::create`] or [`RunFolder::rewind`].
    marker: Option<Marker>,
    /// The layout of the array records; empty if the arrays are in the lines, as in runs of earlier releases, or there are none.
    layout: Layout,
    /// Bytes of the log and of the array records, without the remains of a failed append.
    log_bytes: u64,
    series_bytes: u64,
    /// The last append failed and may have left a part of what it was to write.
    is_torn: bool,
    sessions: u32,
    rewound: Option<RewoundRecord>,
}

/// The initial content of a run folder.
#[derive(Clone, Copy, Default)]
pub struct Start<'a> {
    /// Hash of the config, for the first line of the metrics.
    pub config: &'a str,
    /// Name and content of the files that are there from the start, the effective config first.
    pub files: &'a [(&'a str, &'a [u8])],
    /// The initial checkpoint, if the weights were imported.
    pub checkpoint: Option<&'a Snapshot>,
    /// The lengths of the axes of its series.
    pub lengths: Lengths,
}

/// Whether a run can be started here: nothing but what a start leaves that was cut short.
fn is_free(store: &dyn Store) -> Result<bool, StoreError> {
    let checkpoints = store.list(CHECKPOINTS)?;
    let can_go = |name: &String| is_leftover(name) || update_of(name) == Some(0) || ["latest", "best"].contains(&name.as_str());
    let log = store.read(METRICS)?.map(|bytes| Log::parse(&String::from_utf8_lossy(&bytes)));
    // Earlier releases wrote the log's first line before the config: with no config there was no run.
    let has_begun = log.is_some_and(|log| log.lines.len() > 1 || store.read(EFFECTIVE_CONFIG).is_ok_and(|config| config.is_some()));
    Ok(!has_begun && checkpoints.iter().all(can_go))
}

impl RunFolder {
    /// Starts a run. `tag` distinguishes processes (a process id) and must be valid in a file name. A folder that already has
    /// a run, or another file that would be replaced, is refused. Remains of an interrupted start are replaced.
    pub fn create(store: Box<dyn Store>, tag: &str, start: &Start) -> Result<Self, StoreError> {
        if !is_free(&*store)? {
            return Err(StoreError::Occupied { path: METRICS.to_string() });
        }
        let layout = Layout::of(start.lengths);
        let (readme, layout_text) = (readme::text(&layout), layout.to_json());
        let mut files = start.files.to_vec();
        files.push((README, readme.as_bytes()));
        files.extend((!layout.is_empty()).then_some((SERIES_LAYOUT, layout_text.as_bytes())));
        let has_config = store.read(EFFECTIVE_CONFIG)?.is_some();
        for (name, _) in &files {
            if !has_config && store.read(name)?.is_some() {
                return Err(StoreError::Foreign { path: name.to_string() });
            }
        }
        let header = log::body_of(&Event::Header(Header { schema: records::SCHEMA, config: start.config.to_string() }), None);
        let mut marker = Marker::default();
        marker.add(&header);
        let mut run = Self { marker: Some(marker), layout, ..Self::of(store, tag) };
        for leftover in [METRICS, SERIES, CHECKPOINTS] {
            run.remove_if_there(leftover)?;
        }
        run.remove_drafts("")?;
        run.write_all(&files)?;
        if let Some(snapshot) = start.checkpoint {
            run.save_checkpoint(snapshot, 1)?;
        }
        if !run.layout.is_empty() {
            run.replace(SERIES, b"")?;
        }
        let line = log::seal(&header);
        run.replace(METRICS, line.as_bytes())?;
        run.log_bytes = line.len() as u64;
        Ok(run)
    }

    fn of(store: Box<dyn Store>, tag: &str) -> Self {
        let (layout, tag) = (Layout::default(), tag.to_string());
        Self {
            store,
            tag,
            newest: Newest::default(),
            marker: None,
            layout,
            log_bytes: 0,
            series_bytes: 0,
            is_torn: false,
            sessions: 0,
            rewound: None,
        }
    }

    /// Opens an existing run, to read it or, after [`RunFolder::rewind`], to continue it. Changes nothing.
    pub fn open(store: Box<dyn Store>, tag: &str) -> Result<Self, StoreError> {
        check_start_files(&*store)?;
        let newest = Newest { update: u32::MAX, events: Vec::new() };
        let layout = layout(&*store)?;
        Ok(Self { newest, layout, ..Self::of(store, tag) })
    }

    /// Adds one line to the metrics, and before it the record of its arrays. The lines of a run go up by update, with at most one `update`
    /// and one `eval` line for each. A sample or incident that exists, apart from its time, is not added again.
    pub fn append(&mut self, event: &Event) -> Result<(), StoreError> {
        if !self.newest.accepts(event)? {
            return Ok(());
        }
        if self.is_torn {
            self.cut(SERIES, self.series_bytes)?;
            self.cut(METRICS, self.log_bytes)?;
        }
        self.is_torn = true;
        let arrays = match event {
            Event::Update(record) => {
                let split = self.layout.split(record, RecordKind::Update, record.update);
                split.map(|(record, bytes, check)| (Event::Update(record), bytes, check))
            }
            Event::Eval(record) => {
                let split = self.layout.split(record, RecordKind::Eval, record.update);
                split.map(|(record, bytes, check)| (Event::Eval(record), bytes, check))
            }
            _ => None,
        };
        let body = match &arrays {
            Some((event, bytes, check)) => {
                self.store.append(SERIES, bytes)?;
                log::body_of(event, Some(*check))
            }
            None => log::body_of(event, None),
        };
        let line = log::seal(&body);
        self.store.append(METRICS, line.as_bytes())?;
        self.is_torn = false;
        self.log_bytes += line.len() as u64;
        self.series_bytes += arrays.map_or(0, |(_, bytes, _)| bytes.len() as u64);
        self.newest.add(event);
        self.marker.iter_mut().for_each(|marker| marker.add(&body));
        Ok(())
    }

    /// Cuts off what is beyond `length` bytes of a file, as an append leaves it that failed.
    fn cut(&mut self, path: &str, length: u64) -> Result<(), StoreError> {
        match self.store.read_at(path, length, 1)?.is_some_and(|rest| !rest.is_empty()) {
            true => self.store.truncate(path, length),
            false => Ok(()),
        }
    }

    /// Opens the run's series and events for reading.
    pub fn reader(&self) -> Result<Reader<'_>, StoreError> {
        Reader::open(&*self.store)
    }

    /// The files of the run.
    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// How often this run has been started before, available after [`RunFolder::rewind`].
    pub fn sessions(&self) -> u32 {
        self.sessions
    }

    /// What the newest [`RunFolder::rewind`] went back on, if it did.
    pub fn rewound(&self) -> Option<RewoundRecord> {
        self.rewound
    }

    /// Reads a file of the run, for example `config.effective.toml`.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.read(name)
    }

    /// Writes a file of the run so that a crash leaves either the old content or the new.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_all(&[(name, bytes)])
    }

    /// Writes files of the run, each so that a crash leaves either its old content or the new, and their sums. What is there
    /// already is not written again.
    pub fn write_all(&mut self, files: &[(&str, &[u8])]) -> Result<(), StoreError> {
        // Unreadable sums are rewritten, and a damaged name is dropped: opening the run has reported it.
        let found = sums::read(&*self.store).unwrap_or_default().unwrap_or_default();
        let mut sums = found.clone();
        let mut changed = Vec::new();
        for (name, bytes) in files {
            // What cannot be read is replaced, or writing says why not.
            let is_there = matches!(self.store.read(name), Ok(Some(found)) if found == *bytes);
            if !is_there || sums.get(*name) != Some(&sha256_hex(bytes)) {
                changed.push((*name, *bytes));
            }
        }
        for name in found.keys() {
            if changed.iter().any(|(changed, _)| changed == name) || !matches!(self.store.read(name), Ok(Some(_))) {
                sums.remove(name);
            }
        }
        if sums != found {
            match sums.is_empty() {
                true => self.store.remove(SUMS)?,
                false => self.replace(SUMS, sums::to_text(&sums).as_bytes())?,
            }
        }
        let taken_out = sums.clone();
        for (name, bytes) in changed {
            self.replace(name, bytes)?;
            sums.insert(name.to_string(), sha256_hex(bytes));
        }
        for name in [EFFECTIVE_CONFIG, TOKENIZER, SERIES_LAYOUT, README] {
            // In a run of an earlier release, `README.md` is a file of the user.
            let is_ours = |bytes: &Vec<u8>| name != README || *bytes == readme::text(&self.layout).as_bytes();
            if let Some(bytes) = self.store.read(name)?.filter(|bytes| !sums.contains_key(name) && is_ours(bytes)) {
                sums.insert(name.to_string(), sha256_hex(&bytes));
            }
        }
        if sums != taken_out { self.replace(SUMS, sums::to_text(&sums).as_bytes()) } else { Ok(()) }
    }

    /// Replaces a file by renaming a draft.
    fn replace(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let draft = format!("{path}{DRAFT}{}", self.tag);
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let written = self.store.write(&draft, bytes).and_then(|()| self.store.sync(&draft)).and_then(|()| self.store.rename(&draft, path));
        if written.is_err() {
            // The first error is the relevant one; what cannot be removed now is removed when the run is next opened.
            let _ = self.store.remove(&draft);
        }
        written?;
        self.store.sync(parent)
    }

    /// The folder of the checkpoint of an update.
    pub fn checkpoint_folder(update: u32) -> String {
        format!("{CHECKPOINTS}/{}", folder_name(update))
    }

    /// Takes the run back to where it stood after `update`, the update of the checkpoint that was loaded, or 0, and repairs the folder.
    ///
    /// Later and damaged checkpoints are moved out of the way (to `set-aside-...`, until the next save), what crashes left is removed,
    /// `latest` and `best` are made right, later lines and array records are said to be history, unreadable lines are dropped. Returns a warning for each thing
    /// that was not as a crash may leave it. `config` is the hash for a first line that is missing; `keep_last` is as
    /// in [`RunFolder::save_checkpoint`].
    ///
    /// # Errors
    /// A log that was cut or is of another run; then nothing was changed.
    pub fn rewind(&mut self, update: u32, config: &str, keep_last: usize) -> Result<Vec<String>, StoreError> {
        let text = self.metrics_text()?;
        let log = LogRewind::new(text.as_deref(), update, &self.marks(update)?, config)?;
        let mut warnings = log.warnings.clone();
        if let Ok(Some(sums)) = sums::read(&*self.store) {
            for name in sums.keys() {
                // What cannot be read is replaced at the end, or that says why not.
                if !sums::fits(&*self.store, &sums, name).unwrap_or(false) && name == README {
                    warnings.push(format!("{README}: it is not as the run wrote it ({SUMS}): written again"));
                    self.write(README, readme::text(&self.layout).as_bytes())?;
                } else if !sums::fits(&*self.store, &sums, name).unwrap_or(false) {
                    warnings.push(format!("{name}: it is not as the run wrote it ({SUMS}); it is written again at the end of the run"));
                }
            }
        }
        self.settle_draft(update)?;
        let before = [self.saved()?.into_iter().next(), self.best()?.into_iter().next()];
        let saved = self.saved()?;
        let (later, kept): (Vec<String>, Vec<String>) = saved.into_iter().partition(|folder| update_of(folder) > Some(update));
        self.set_aside(&later)?;
        for folder in kept.into_iter().filter(|folder| update_of(folder) != Some(update)) {
            if let Err(problem) = verify(&*self.store, &format!("{CHECKPOINTS}/{folder}"))? {
                warnings.push(format!("{CHECKPOINTS}/{folder}: {problem}: set aside"));
                self.set_aside(&[folder])?;
            }
        }
        self.remove_drafts("")?;
        self.remove_drafts(CHECKPOINTS)?;
        let now = [self.saved()?.into_iter().next(), self.best()?.into_iter().next()];
        for ((pointer, before), wanted) in [LATEST, BEST].into_iter().zip(before).zip(now) {
            let found = self.store.read(pointer)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            if found.is_some() && found != before && found != wanted {
                let (found, wanted) = (found.unwrap_or_default(), wanted.as_deref().unwrap_or("none"));
                warnings.push(format!("{pointer}: it was {found:?}, according to the checkpoints it is {wanted}: repaired"));
            }
            self.point(pointer, wanted.as_deref())?;
        }
        self.prune(keep_last, self.best()?.first())?;
        warnings.extend(self.rewind_arrays(update, &log.arrays)?);
        self.write_log(text.as_deref(), &log.text)?;
        self.rewound = log.rewound(update);
        (self.newest, self.marker, self.is_torn, self.sessions) = (log.newest, Some(log.marker), false, log.sessions);
        Ok(warnings)
    }

    /// Makes the log what it is to be: by adding to it where it holds the beginning, but for a torn line.
    fn write_log(&mut self, found: Option<&str>, wanted: &str) -> Result<(), StoreError> {
        let whole = found.map_or(0, |text| text.rfind('\n').map_or(0, |end| end + 1));
        match found.filter(|text| whole > 0 && wanted.starts_with(&text[..whole])) {
            Some(text) if text != wanted => {
                self.cut(METRICS, whole as u64)?;
                if wanted.len() > whole {
                    self.store.append(METRICS, &wanted.as_bytes()[whole..])?;
                }
                self.store.sync(METRICS)?;
            }
            Some(_) => {}
            None => self.replace(METRICS, wanted.as_bytes())?,
        }
        self.log_bytes = wanted.len() as u64;
        Ok(())
    }

    /// The marks of the log that the checkpoints of this update hold; those of earlier releases hold none.
    fn marks(&self, update: u32) -> Result<Marks, StoreError> {
        let mut marks = Marks::default();
        for folder in self.candidates()?.iter().filter(|folder| update_of(folder) == Some(update)) {
            let manifest = self.store.read(&format!("{CHECKPOINTS}/{folder}/{MANIFEST}"))?.unwrap_or_default();
            marks.logs.extend(Manifest::from_bytes(&manifest).ok().and_then(|manifest| manifest.log));
            let state = self.store.read(&format!("{CHECKPOINTS}/{folder}/{STATE}"))?.unwrap_or_default();
            let state: serde_json::Value = serde_json::from_slice(&state).unwrap_or_default();
            marks.config = marks.config.or(state["identity"]["config"].as_str().map(str::to_string));
        }
        Ok(marks)
    }

    /// Gives a complete draft of this update its name, where the folder proper is missing or damaged.
    fn settle_draft(&mut self, update: u32) -> Result<(), StoreError> {
        let proper = folder_name(update);
        let is_good = |folder: &String| verify(&*self.store, &format!("{CHECKPOINTS}/{folder}")).is_ok_and(|found| found.is_ok());
        let (drafts, saved): (Vec<String>, Vec<String>) =
            self.candidates()?.into_iter().filter(|folder| update_of(folder) == Some(update)).partition(|folder| folder.contains(DRAFT));
        if drafts.is_empty() || saved.iter().any(is_good) {
            return Ok(());
        }
        if let Some(draft) = drafts.into_iter().find(is_good) {
            self.store.remove(&format!("{CHECKPOINTS}/{proper}"))?;
            self.store.rename(&format!("{CHECKPOINTS}/{draft}"), &format!("{CHECKPOINTS}/{proper}"))?;
            self.store.sync(CHECKPOINTS)?;
        }
        Ok(())
    }

    fn set_aside(&mut self, folders: &[String]) -> Result<(), StoreError> {
        for folder in folders {
            let aside = format!("{CHECKPOINTS}/{SET_ASIDE}{folder}");
            self.store.remove(&aside)?;
            self.store.rename(&format!("{CHECKPOINTS}/{folder}"), &aside)?;
        }
        if folders.is_empty() { Ok(()) } else { self.store.sync(CHECKPOINTS) }
    }

    /// Sets a pointer to a folder, or removes it.
    fn point(&mut self, pointer: &str, folder: Option<&str>) -> Result<(), StoreError> {
        let found = self.store.read(pointer)?;
        match folder {
            Some(folder) if found.as_deref() != Some(folder.as_bytes()) => self.replace(pointer, folder.as_bytes()),
            None if found.is_some() => self.store.remove(pointer),
            _ => Ok(()),
        }
    }

    /// Removes the remains of crashes in a folder: drafts, and checkpoints that were being removed.
    fn remove_drafts(&mut self, folder: &str) -> Result<(), StoreError> {
        for name in self.store.list(folder)?.into_iter().filter(|name| name.contains(DRAFT) || name.starts_with(REMOVED)) {
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            self.store.remove(&path)?;
        }
        Ok(())
    }

    fn remove_if_there(&mut self, path: &str) -> Result<(), StoreError> {
        match self.store.read(path).ok().flatten().is_some() || !self.store.list(path).unwrap_or_default().is_empty() {
            true => self.store.remove(path),
            false => Ok(()),
        }
    }

    fn metrics_text(&self) -> Result<Option<String>, StoreError> {
        Ok(self.store.read(METRICS)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Deletes all checkpoints but the newest `keep_last` and the best.
    fn prune(&mut self, keep_last: usize, best: Option<&String>) -> Result<(), StoreError> {
        for folder in self.saved()?.into_iter().skip(keep_last.max(1)).filter(|folder| best != Some(folder)) {
            // Out of sight at once, so that no reader finds half of it.
            let removed = format!("{CHECKPOINTS}/{REMOVED}{folder}");
            self.store.remove(&removed)?;
            self.store.rename(&format!("{CHECKPOINTS}/{folder}"), &removed)?;
            self.store.sync(CHECKPOINTS)?;
            self.store.remove(&removed)?;
        }
        Ok(())
    }

    fn candidates(&self) -> Result<Vec<String>, StoreError> {
        candidates(&*self.store)
    }

    /// The same without drafts.
    fn saved(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.candidates()?.into_iter().filter(|folder| !folder.contains(DRAFT)).collect())
    }

    /// The checkpoints that were the best when they were saved, the best first: what the newest state says, then from new to old.
    fn best(&self) -> Result<Vec<String>, StoreError> {
        let states = states(&*self.store)?;
        let now = states.first().and_then(|(_, state)| state.best).map(|best| best.update);
        let was_best = |(folder, state): (String, TrainState)| state.best.filter(|best| best.update == state.update).map(|_| folder);
        let mut best: Vec<String> = states.into_iter().filter_map(was_best).collect();
        best.sort_by_key(|folder| update_of(folder) != now);
        Ok(best)
    }
}

/// Folder and state of each checkpoint whose state is as it was written, newest first.
fn states(store: &dyn Store) -> Result<Vec<(String, TrainState)>, StoreError> {
    let mut states = Vec::new();
    for folder in candidates(store)? {
        let file = |name: &str| store.read(&format!("{CHECKPOINTS}/{folder}/{name}"));
        if let (Some(manifest), Some(state)) = (file(MANIFEST)?, file(STATE)?)
            && let Ok(state) = Manifest::from_bytes(&manifest).and_then(|manifest| manifest.state(&state))
        {
            states.push((folder, state));
        }
    }
    Ok(states)
}

fn folder_name(update: u32) -> String {
    format!("update-{update:08}")
}

/// Whether a name in the folder of checkpoints is of something that a crash or [`RunFolder::rewind`] left.
fn is_leftover(name: &str) -> bool {
    name.contains(DRAFT) || name.starts_with(SET_ASIDE) || name.starts_with(REMOVED)
}
