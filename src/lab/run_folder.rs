//! What a run leaves behind, and the protocol by which it survives a crash at any moment.
//!
//! ```text
//! config.effective.toml  tokenizer.json  metrics.jsonl  summary.json  report.md  loss.svg  loss.png  SHA256SUMS
//! checkpoints/update-00000400/{model.safetensors, optim.safetensors, state.json, manifest.json}
//! checkpoints/{latest, best}       names of folders, for people and scripts
//! ```
//!
//! A small file is replaced by: write a draft `NAME.tmp-TAG`, sync it, rename it, sync the folder. The old content or the new is there
//! at every moment; a draft that a crash leaves is removed when the run is next opened for writing ([`RunFolder::rewind`]).
//! "Repaired" below is by that call; who only reads (`eval`, `sample`, `export`) repairs nothing and comes to the same checkpoint.
//!
//! | operation, in order | a crash before it leaves | a crash after it leaves |
//! |---|---|---|
//! | **start**: `config.effective.toml`, `tokenizer.json`, `SHA256SUMS` | nothing, or some of these files: no run, can be started again | the same |
//! | start: the imported checkpoint of update 0 | no run, can be started again | a checkpoint; resuming writes the log's first line |
//! | start: `metrics.jsonl` with its first line | as above | a run before its first update |
//! | **log**: a line is added | a log without it | the line, or a torn one, which is dropped; the update is made again |
//! | **checkpoint**: the log is synced; four files into `update-N.tmp-TAG`, piece by piece, each synced, the manifest last | the checkpoint before, and a draft, which is removed | the same; with the manifest the draft counts as checkpoint and is renamed |
//! | checkpoint: a damaged folder of the same name is removed | both; the draft counts | the draft, which is renamed |
//! | checkpoint: the draft is renamed, the folder above synced | the draft, as above | the new checkpoint |
//! | checkpoint: it is read back and verified | the new checkpoint | the same |
//! | **pointers**: `latest`, `best` | stale pointers, repaired from the checkpoints' own `state.json` | the new ones |
//! | **prune**: an old folder is renamed to `removed-update-N`, the folder above synced, then it is removed | one checkpoint too many, removed on opening | part of a `removed-` folder, removed on opening |
//! | **rewind**: later checkpoints become `set-aside-update-N`; drafts and removed folders go; pointers; the log | part of that; the next opening does the rest | the same |
//! | **finish**: `loss.svg`, `loss.png`, `report.md`, `summary.json`, `SHA256SUMS` | the last checkpoint, and some of these files: resuming writes all again | a finished run |
//!
//! Exports and the cache are written by `moelab-native`'s `atomic`, which has a table of its own.
//!
//! **Saving.** At every moment a verified checkpoint exists once the first save has returned. A failed save is an error to
//! report, not the end of a run: the checkpoint before is untouched.
//!
//! **Loading.** The newest folder that verifies and fits the model; each newer one that does not becomes a warning that names what
//! is wrong with it. A draft whose manifest verifies is complete, whatever its name, and counts. The best is what the newest
//! `state.json` says. Where the writer pruned a folder that a reader was about to read, the reader looks again.
//!
//! **Resuming.** The trainer saves at update U after all lines of update U. [`RunFolder::rewind`] drops the lines beyond U and a line
//! torn by the crash; [`RunFolder::append`] refuses a line that is there already. So no line is ever doubled.
//!
//! **Damage**, file by file; "noticed" is a warning or a refusal that names the file and says how to go on.
//!
//! | file | a changed bit, a cut, an empty file |
//! |---|---|
//! | the four files of a checkpoint | noticed by its manifest; the checkpoint before is used, with a warning |
//! | `latest`, `best` | nothing depends on them; repaired with a warning |
//! | `metrics.jsonl` | a damaged line is replaced by an incident, with a warning; a damaged first line is written again, with a warning; a log that is cut, or another run's, is refused |
//! | `config.effective.toml`, `tokenizer.json` | refused by their sums, by every command that reads the run |
//! | `summary.json`, `report.md`, `loss.*` | no command reads them; resuming warns and writes them again |
//! | `SHA256SUMS` | refused if it cannot be read; a changed sum accuses its file |
//! | `run.lock` | means nothing: the lock is the system's, the content is for a message |
//!
//! Long because it is one protocol, and its tables stand beside it.

pub(super) mod log;
mod save;
mod sums;

pub use save::{Save, SaveStep, Saved};

use super::reader::Reader;
use super::store::{Store, StoreError};
use crate::run::digest::sha256_hex;
use crate::run::records::{self, Event, Header, Incident, IncidentRecord, Time};
use crate::run::state::TrainState;
use crate::train::checkpoint::{self, Expected, Files, LogMark, MANIFEST, STATE, Snapshot};
use log::{Line, Log, Marker};
use sums::SUMS;

/// Name of the file with every setting of a run.
pub const EFFECTIVE_CONFIG: &str = "config.effective.toml";
/// Name of the file with the run's tokenizer, where it is not bytes.
pub const TOKENIZER: &str = "tokenizer.json";
/// Name of the log.
pub(super) const METRICS: &str = "metrics.jsonl";
const CHECKPOINTS: &str = "checkpoints";
const LATEST: &str = "checkpoints/latest";
const BEST: &str = "checkpoints/best";
const DRAFT: &str = ".tmp-";
const SET_ASIDE: &str = "set-aside-";
const REMOVED: &str = "removed-";
/// How often a reader looks again while a writer prunes.
const LOOKS: usize = 20;

/// One run in its store.
pub struct RunFolder {
    store: Box<dyn Store>,
    tag: String,
    newest: Newest,
    /// Of the lines that are in the log; `None` until it is known, by [`RunFolder::create`] or [`RunFolder::rewind`].
    marker: Option<Marker>,
    /// The last append failed and may have left a part of its line.
    is_torn: bool,
    sessions: u32,
}

/// What a run's folder begins with.
#[derive(Clone, Copy, Default)]
pub struct Start<'a> {
    /// Hash of the config, for the first line of the metrics.
    pub config: &'a str,
    /// Name and content of the files that are there from the start, the effective config first.
    pub files: &'a [(&'a str, &'a [u8])],
    /// The checkpoint that the run begins with, where its weights were given.
    pub checkpoint: Option<&'a Snapshot>,
}

/// A checkpoint that was found good.
#[derive(Debug, PartialEq)]
pub struct Loaded {
    /// Its content.
    pub snapshot: Snapshot,
    /// Its folder, relative to the run's.
    pub folder: String,
    /// One line for each newer checkpoint that could not be used: folder and reason.
    pub warnings: Vec<String>,
}

/// The lines of the newest update in `metrics.jsonl`: no line may repeat or precede them.
#[derive(Default)]
struct Newest {
    update: u32,
    events: Vec<Event>,
}

impl Newest {
    /// Whether `event` may be added. It may not precede the newest update, nor be its second `update` or `eval`; a sample or
    /// an incident that is there already, but for its time, is no news (`false`): a finished run that is resumed draws the
    /// same samples again.
    fn admits(&self, event: &Event) -> Result<bool, StoreError> {
        let Some(update) = event.update().filter(|update| *update <= self.update) else { return Ok(true) };
        let is_there = |kind: fn(&Event) -> bool| self.events.iter().any(kind);
        let (kind, doubled) = match event {
            Event::Update(_) => ("update", is_there(|event| matches!(event, Event::Update(_)))),
            Event::Eval(_) => ("eval", is_there(|event| matches!(event, Event::Eval(_)))),
            Event::Sample(_) => ("sample", false),
            Event::Incident(_) | Event::Header(_) => ("incident", false),
        };
        if doubled || update < self.update {
            return Err(StoreError::Doubled { kind, update });
        }
        Ok(!self.events.contains(&event.timeless()))
    }

    fn add(&mut self, event: &Event) {
        let Some(update) = event.update() else { return };
        if update > self.update {
            *self = Self { update, events: Vec::new() };
        }
        self.events.push(event.timeless());
    }
}

/// Refuses a config or tokenizer of a run that is not as the run wrote it. Whoever reads one of them calls this.
pub fn check_start_files(store: &dyn Store) -> Result<(), StoreError> {
    // Without a log there is a run where a checkpoint is whole; part of one is what an import leaves that was cut short.
    let is_whole = |folder: &String| save::verify(store, &format!("{CHECKPOINTS}/{folder}")).is_ok_and(|found| found.is_ok());
    let has_run = store.read(METRICS)?.is_some() || candidates(store)?.iter().any(is_whole);
    if !has_run || store.read(EFFECTIVE_CONFIG)?.is_none() {
        return Err(StoreError::Unstarted { missing: if has_run { EFFECTIVE_CONFIG } else { METRICS } });
    }
    let Some(sums) = sums::read(store)? else { return Ok(()) };
    for name in [EFFECTIVE_CONFIG, TOKENIZER] {
        if !sums::fits(store, &sums, name)? {
            return Err(StoreError::Changed { path: name.to_string() });
        }
    }
    Ok(())
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
    /// Starts a run. `tag` tells processes apart (a process id) and must be fit for a file name. A folder that holds a run
    /// already is refused, and one with a file that would be replaced and is of no run. What a start left that was cut short is replaced.
    pub fn create(store: Box<dyn Store>, tag: &str, start: &Start) -> Result<Self, StoreError> {
        if !is_free(&*store)? {
            return Err(StoreError::Occupied { path: METRICS.to_string() });
        }
        let has_config = store.read(EFFECTIVE_CONFIG)?.is_some();
        for (name, _) in start.files {
            if !has_config && store.read(name)?.is_some() {
                return Err(StoreError::Foreign { path: name.to_string() });
            }
        }
        let header = Event::Header(Header { schema: records::SCHEMA, config: start.config.to_string() });
        let mut marker = Marker::default();
        marker.add(&header);
        let mut run = Self { store, tag: tag.to_string(), newest: Newest::default(), marker: Some(marker), is_torn: false, sessions: 0 };
        for leftover in [METRICS, CHECKPOINTS] {
            run.remove_if_there(leftover)?;
        }
        run.remove_drafts("")?;
        run.write_all(start.files)?;
        if let Some(snapshot) = start.checkpoint {
            run.save_checkpoint(snapshot, 1)?;
        }
        run.replace(METRICS, log::sealed(&header).as_bytes())?;
        Ok(run)
    }

    /// Opens a run that is there, to read it or, after [`RunFolder::rewind`], to go on with it. Changes nothing.
    pub fn open(store: Box<dyn Store>, tag: &str) -> Result<Self, StoreError> {
        let newest = Newest { update: u32::MAX, events: Vec::new() };
        let run = Self { store, tag: tag.to_string(), newest, marker: None, is_torn: false, sessions: 0 };
        check_start_files(&*run.store)?;
        Ok(run)
    }

    /// Adds one line to the metrics. The lines of a run go up by update, with at most one `update` and one `eval` line for each.
    /// A sample or incident that is there already, but for its time, is not added again.
    pub fn append(&mut self, event: &Event) -> Result<(), StoreError> {
        if !self.newest.admits(event)? {
            return Ok(());
        }
        if self.is_torn {
            self.mend()?;
        }
        self.is_torn = true;
        self.store.append(METRICS, log::sealed(event).as_bytes())?;
        self.is_torn = false;
        self.newest.add(event);
        self.marker.iter_mut().for_each(|marker| marker.add(event));
        Ok(())
    }

    /// Takes off what an append left that failed.
    fn mend(&mut self) -> Result<(), StoreError> {
        let text = self.metrics_text()?.unwrap_or_default();
        let lines = self.marker.as_ref().map_or(u64::MAX, Marker::lines);
        let kept: String = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).take(lines as usize).collect();
        if kept != text {
            self.replace(METRICS, kept.as_bytes())?;
        }
        self.is_torn = false;
        Ok(())
    }

    /// Opens the run's series and events for reading.
    pub fn reader(&self) -> Result<Reader<'_>, StoreError> {
        Reader::open(&*self.store)
    }

    /// How often this run has been started before, known after [`RunFolder::rewind`].
    pub fn sessions(&self) -> u32 {
        self.sessions
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
        // Sums that cannot be read are made anew, and a damaged name is dropped: opening the run has told it.
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
        for name in [EFFECTIVE_CONFIG, TOKENIZER] {
            if let Some(bytes) = self.store.read(name)?.filter(|_| !sums.contains_key(name)) {
                sums.insert(name.to_string(), sha256_hex(&bytes));
            }
        }
        if sums != taken_out { self.replace(SUMS, sums::to_text(&sums).as_bytes()) } else { Ok(()) }
    }

    /// Replaces a file by way of a draft.
    fn replace(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let draft = format!("{path}{DRAFT}{}", self.tag);
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let written = self.store.write(&draft, bytes).and_then(|()| self.store.sync(&draft)).and_then(|()| self.store.rename(&draft, path));
        if written.is_err() {
            // The error that matters is the first one; what cannot be removed now goes when the run is next opened.
            let _ = self.store.remove(&draft);
        }
        written?;
        self.store.sync(parent)
    }

    /// Where the checkpoint of an update is kept.
    pub fn checkpoint_folder(update: u32) -> String {
        format!("{CHECKPOINTS}/{}", folder_name(update))
    }

    /// The newest good checkpoint; `None` where none was ever finished, an error where none is good.
    pub fn load_newest(&self, expected: &Expected) -> Result<Option<Loaded>, StoreError> {
        self.look(|| self.load_first(self.candidates()?, expected))
    }

    /// The checkpoint with the best evaluation, or else the best one that is good, with a warning.
    pub fn load_best(&self, expected: &Expected) -> Result<Option<Loaded>, StoreError> {
        self.look(|| {
            let mut candidates = self.best()?;
            let others: Vec<String> = self.candidates()?.into_iter().filter(|folder| !candidates.contains(folder)).collect();
            candidates.extend(others);
            let mut found = self.load_first(candidates, expected)?;
            if let Some(loaded) = &mut found
                && let Some(best) = states(&*self.store)?.first().and_then(|(_, state)| state.best)
                && best.update != loaded.snapshot.state.update
            {
                let (at, used) = (best.update, loaded.snapshot.state.update);
                loaded.warnings.push(format!(
                    "the best evaluation was after update {at}, of which there is no good checkpoint: update {used} is used"
                ));
            }
            Ok(found)
        })
    }

    /// Looks again where checkpoints came or went meanwhile and something was amiss: the writer prunes.
    fn look(&self, look: impl Fn() -> Result<Option<Loaded>, StoreError>) -> Result<Option<Loaded>, StoreError> {
        let mut before = self.candidates()?;
        for _ in 1..LOOKS {
            let found = look();
            let is_sound = matches!(&found, Ok(Some(loaded)) if loaded.warnings.is_empty());
            let now = self.candidates()?;
            if is_sound || now == before {
                return found;
            }
            before = now;
        }
        look()
    }

    /// Takes the run back to where it stood after `update`, the update of the checkpoint that was loaded, or 0, and repairs the folder.
    ///
    /// Later and damaged checkpoints are moved out of the way (to `set-aside-...`, until the next save), what crashes left is removed,
    /// `latest` and `best` are made right, later and unreadable lines are dropped from the metrics. Returns a warning for each thing
    /// that was not as a crash may leave it. `config` is the hash for a first line that is missing; `keep_last` is as
    /// in [`RunFolder::save_checkpoint`].
    ///
    /// # Errors
    /// A log that was cut or is of another run; then nothing was changed.
    pub fn rewind(&mut self, update: u32, config: &str, keep_last: usize) -> Result<Vec<String>, StoreError> {
        let text = self.metrics_text()?;
        let log = Rewound::new(text.as_deref(), update, &self.marks(update)?, config)?;
        let mut warnings = log.warnings;
        if let Ok(Some(sums)) = sums::read(&*self.store) {
            for name in sums.keys() {
                // What cannot be read is replaced at the end, or that says why not.
                if !sums::fits(&*self.store, &sums, name).unwrap_or(false) {
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
            if let Err(problem) = save::verify(&*self.store, &format!("{CHECKPOINTS}/{folder}"))? {
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
                warnings.push(format!("{pointer}: it said {found:?}, by the checkpoints it is {wanted}: repaired"));
            }
            self.point(pointer, wanted.as_deref())?;
        }
        self.prune(keep_last, self.best()?.first())?;
        if text.as_deref() != Some(&log.text) {
            self.replace(METRICS, log.text.as_bytes())?;
        }
        (self.newest, self.marker, self.is_torn, self.sessions) = (log.newest, Some(log.marker), false, log.sessions);
        Ok(warnings)
    }

    /// The marks of the log that the checkpoints of this update hold; those of earlier releases hold none.
    fn marks(&self, update: u32) -> Result<Marks, StoreError> {
        let mut marks = Marks::default();
        for folder in self.candidates()?.iter().filter(|folder| update_of(folder) == Some(update)) {
            let manifest = self.store.read(&format!("{CHECKPOINTS}/{folder}/{MANIFEST}"))?.unwrap_or_default();
            marks.logs.extend(checkpoint::read_log_mark(&manifest).ok().flatten());
            let state = self.store.read(&format!("{CHECKPOINTS}/{folder}/{STATE}"))?.unwrap_or_default();
            let state: serde_json::Value = serde_json::from_slice(&state).unwrap_or_default();
            marks.config = marks.config.or(state["identity"]["config"].as_str().map(str::to_string));
        }
        Ok(marks)
    }

    /// Gives a complete draft of this update its name, where the folder proper is missing or damaged.
    fn settle_draft(&mut self, update: u32) -> Result<(), StoreError> {
        let proper = folder_name(update);
        let is_good = |folder: &String| save::verify(&*self.store, &format!("{CHECKPOINTS}/{folder}")).is_ok_and(|found| found.is_ok());
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

    /// Makes a pointer name a folder, or removes it.
    fn point(&mut self, pointer: &str, folder: Option<&str>) -> Result<(), StoreError> {
        let found = self.store.read(pointer)?;
        match folder {
            Some(folder) if found.as_deref() != Some(folder.as_bytes()) => self.replace(pointer, folder.as_bytes()),
            None if found.is_some() => self.store.remove(pointer),
            _ => Ok(()),
        }
    }

    /// Removes what crashes left in a folder: drafts, and checkpoints that were being removed.
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

    fn load_first(&self, folders: Vec<String>, expected: &Expected) -> Result<Option<Loaded>, StoreError> {
        let mut warnings = Vec::new();
        for name in folders {
            let folder = format!("{CHECKPOINTS}/{name}");
            match self.load(&name, expected) {
                Ok(snapshot) => return Ok(Some(Loaded { snapshot, folder, warnings })),
                // A draft is what a crash leaves; that it is incomplete is nobody's concern.
                Err(_) if name.contains(DRAFT) => {}
                Err(problem) => warnings.push(format!("{folder}: {problem}")),
            }
        }
        match warnings.is_empty() {
            true => Ok(None),
            false => Err(StoreError::Exhausted(warnings)),
        }
    }

    fn load(&self, name: &str, expected: &Expected) -> Result<Snapshot, String> {
        let files = self.files(&format!("{CHECKPOINTS}/{name}")).map_err(|error| error.to_string())?;
        let snapshot = checkpoint::decode(&files, expected).map_err(|error| error.to_string())?;
        match update_of(name) {
            Some(update) if update == snapshot.state.update => Ok(snapshot),
            _ => Err(format!("it holds update {}: the folder was renamed", snapshot.state.update)),
        }
    }

    fn files(&self, folder: &str) -> Result<Files, StoreError> {
        files(&*self.store, folder)
    }
}

/// What the checkpoints of an update know of the log.
#[derive(Default)]
struct Marks {
    logs: Vec<LogMark>,
    /// The hash of the config, where the release that saved the checkpoint had one for all of it.
    config: Option<String>,
}

/// A log taken back to an update.
struct Rewound {
    text: String,
    newest: Newest,
    marker: Marker,
    sessions: u32,
    warnings: Vec<String>,
}

impl Rewound {
    /// Keeps the lines of the updates up to `update`, and replaces lines that cannot be read by an incident.
    fn new(text: Option<&str>, update: u32, marks: &Marks, config: &str) -> Result<Self, StoreError> {
        let mut lines = Log::parse(text.unwrap_or_default());
        let times = lines.lines.iter().filter_map(|line| line.event.as_ref().ok()?.time());
        let sessions = times.map(|time| time.session + 1).max().unwrap_or(u32::from(text.is_some()));
        let mut log = Self { text: String::new(), newest: Newest::default(), marker: Marker::default(), sessions, warnings: Vec::new() };
        // What the log must begin with, as far as the checkpoint tells.
        let (wanted, mut is_whole) = (marks.logs.iter().map(|mark| mark.lines).max(), false);
        let mut is_known_to_lack = false;
        log.warnings.extend(lines.warning.take());
        log.first_line(text, &mut lines.lines, marks, config)?;
        is_whole |= marks.logs.contains(&log.marker.mark());
        let mut time = Time::default();
        for line in lines.lines {
            let event = match line.event {
                Ok(event) if event.update().is_some_and(|at| at > update) => continue,
                Ok(event) => log.newest.admits(&event).map(|news| news.then_some(event)).map_err(|error| error.to_string()),
                Err(problem) => Err(problem),
            };
            match event {
                Ok(Some(event)) => {
                    time = event.time().copied().unwrap_or(time);
                    is_known_to_lack |= matches!(&event, Event::Incident(record) if record.incident == Incident::LogDamaged);
                    log.push(&event, &line.body);
                }
                Ok(None) => {}
                Err(problem) => {
                    log.warnings.push(format!("{METRICS}:{}: dropped, {problem}", line.number));
                    // Lines after the checkpoint are made again; one before it is lost.
                    if wanted.is_some_and(|wanted| line.number as u64 <= wanted) || log.newest.update < update {
                        is_known_to_lack = true;
                        log.push_incident(format!("line {} could not be read: {problem}", line.number), time);
                    }
                }
            }
            is_whole |= marks.logs.contains(&log.marker.mark());
        }
        // Earlier releases logged every update and kept no mark.
        let is_whole = is_whole || wanted.is_none() && log.newest.update == update;
        if text.is_none() && !is_whole {
            is_known_to_lack = true;
            let detail = format!("{METRICS} was missing: the lines up to update {update} are lost");
            log.warnings.push(detail.clone());
            log.newest.update = update;
            log.push_incident(detail, time);
        }
        if is_whole || is_known_to_lack {
            return Ok(log);
        }
        let found = log.marker.lines();
        Err(StoreError::LogLost { update, wanted, found })
    }

    /// Takes the first line, or makes it again.
    fn first_line(&mut self, text: Option<&str>, lines: &mut Vec<Line>, marks: &Marks, config: &str) -> Result<(), StoreError> {
        let first = (!lines.is_empty()).then(|| lines.remove(0));
        if let Some(Line { event: Ok(Event::Header(header)), body, .. }) = &first {
            if header.schema > records::SCHEMA {
                let (found, known) = (header.schema, records::SCHEMA);
                return Err(StoreError::Unreadable(format!("{METRICS}:1: schema {found}, this build reads {known}")));
            }
            let is_foreign = marks.logs.is_empty() && marks.config.as_ref().is_some_and(|config| *config != header.config);
            if is_foreign {
                return Err(StoreError::LogLost { update: 0, wanted: None, found: lines.len() as u64 + 1 });
            }
            self.push(&Event::Header(header.clone()), body);
            return Ok(());
        }
        let header = Event::Header(Header { schema: records::SCHEMA, config: config.to_string() });
        let line = header.to_line();
        self.push(&header, line.trim_end().trim_end_matches('}'));
        if text.is_some() {
            let problem = first.as_ref().and_then(|line| line.event.as_ref().err()).map_or("it is missing", String::as_str);
            self.warnings.push(format!("{METRICS}:1: the first line is written again, {problem}"));
        }
        // A line that says something else is none of ours to drop.
        lines.splice(0..0, first.filter(|line| line.event.is_ok()));
        Ok(())
    }

    fn push(&mut self, event: &Event, body: &str) {
        self.newest.add(event);
        self.marker.add_body(body);
        self.text += &log::seal(body);
    }

    fn push_incident(&mut self, detail: String, time: Time) {
        let (update, incident) = (self.newest.update, Incident::LogDamaged);
        let event = Event::Incident(IncidentRecord { update, incident, detail, since: None, time });
        let line = log::sealed(&event);
        self.newest.add(&event);
        self.marker.add(&event);
        self.text += &line;
    }
}

/// Names of all checkpoint folders, newest first, drafts after the folder proper.
fn candidates(store: &dyn Store) -> Result<Vec<String>, StoreError> {
    let mut folders: Vec<String> = store.list(CHECKPOINTS)?;
    folders.retain(|folder| update_of(folder).is_some());
    folders.sort_by_key(|folder| (std::cmp::Reverse(update_of(folder)), folder.clone()));
    Ok(folders)
}

/// The files of a checkpoint that are there; what is missing is for [`checkpoint::verify`] to say.
fn files(store: &dyn Store, folder: &str) -> Result<Files, StoreError> {
    let mut files = Files::new();
    for name in checkpoint::FILES {
        if let Some(bytes) = store.read(&format!("{folder}/{name}"))? {
            files.push((name.to_string(), bytes));
        }
    }
    Ok(files)
}

/// Folder and state of each checkpoint whose state is as it was written, newest first.
fn states(store: &dyn Store) -> Result<Vec<(String, TrainState)>, StoreError> {
    let mut states = Vec::new();
    for folder in candidates(store)? {
        let file = |name: &str| store.read(&format!("{CHECKPOINTS}/{folder}/{name}"));
        if let (Some(manifest), Some(state)) = (file(MANIFEST)?, file(STATE)?)
            && let Ok(state) = checkpoint::peek_state(&manifest, &state)
        {
            states.push((folder, state));
        }
    }
    Ok(states)
}

fn folder_name(update: u32) -> String {
    format!("update-{update:08}")
}

/// The update in the name of a checkpoint folder or of its draft.
fn update_of(folder: &str) -> Option<u32> {
    let number = folder.strip_prefix("update-")?;
    number.split(DRAFT).next()?.parse().ok()
}

/// Whether a name in the folder of checkpoints is of something that a crash or [`RunFolder::rewind`] left.
fn is_leftover(name: &str) -> bool {
    name.contains(DRAFT) || name.starts_with(SET_ASIDE) || name.starts_with(REMOVED)
}
