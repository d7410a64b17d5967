//! What a run leaves behind, and the protocol by which it survives a crash at any moment.
//!
//! ```text
//! config.effective.toml  metrics.jsonl  summary.json  report.md  loss.svg  loss.png
//! checkpoints/update-00000400/{model.safetensors, optim.safetensors, state.json, manifest.json}
//! checkpoints/{latest, best}       names of folders, for people and scripts
//! ```
//!
//! **Saving.** `metrics.jsonl` is synced; the files are written into `update-N.tmp-TAG`, each synced before the next, the
//! manifest last; the folder is renamed and its parent synced; the result is read back and verified; only then are
//! `latest` and `best` moved and older checkpoints deleted (all but the last K and the best). So at
//! every moment a verified checkpoint exists once the first save has returned. A failed save is an error to
//! report, not the end of a run: the checkpoint before is untouched.
//!
//! **Loading.** The newest folder that verifies and fits the model; each newer one that does not becomes a warning that names what
//! is wrong with it. A draft whose manifest verifies is complete, whatever its name, and counts.
//!
//! **Resuming.** The trainer saves at update U after all lines of update U. [`RunFolder::rewind`] drops the lines beyond U and a line
//! torn by the crash; [`RunFolder::append`] refuses a line that is there already. So no line is ever doubled.

use super::store::{Store, StoreError};
use crate::train::checkpoint::{self, Expected, Files, MANIFEST, Snapshot};
use crate::train::metrics::{self, Event, Header};

const METRICS: &str = "metrics.jsonl";
const CHECKPOINTS: &str = "checkpoints";
const LATEST: &str = "checkpoints/latest";
const BEST: &str = "checkpoints/best";
const DRAFT: &str = ".tmp-";

/// One run in its store.
pub struct RunFolder {
    store: Box<dyn Store>,
    tag: String,
    newest: Newest,
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

impl RunFolder {
    /// Starts a run. `tag` tells processes apart (a process id) and must be fit for a file name. `config_hash` goes into the
    /// first line of the metrics. A folder that holds a run already is refused.
    pub fn create(store: Box<dyn Store>, tag: &str, config_hash: &str) -> Result<Self, StoreError> {
        if store.read(METRICS)?.is_some() || !store.list(CHECKPOINTS)?.is_empty() {
            return Err(StoreError::Occupied { path: METRICS.to_string() });
        }
        let mut run = Self { store, tag: tag.to_string(), newest: Newest::default() };
        let header = Event::Header(Header { schema: metrics::SCHEMA, config: config_hash.to_string() });
        run.write(METRICS, header.to_line().as_bytes())?;
        Ok(run)
    }

    /// Opens a run that is there, to read it or, after [`RunFolder::rewind`], to go on with it.
    pub fn open(store: Box<dyn Store>, tag: &str) -> Result<Self, StoreError> {
        if store.read(METRICS)?.is_none() {
            return Err(StoreError::Unreadable(format!("`{METRICS}` is missing: this is not the folder of a run")));
        }
        Ok(Self { store, tag: tag.to_string(), newest: Newest { update: u32::MAX, events: Vec::new() } })
    }

    /// Adds one line to the metrics. The lines of a run go up by update, with at most one `update` and one `eval` line for each.
    /// A sample or incident that is there already, but for its time, is not added again.
    pub fn append(&mut self, event: &Event) -> Result<(), StoreError> {
        if self.newest.admits(event)? {
            self.store.append(METRICS, event.to_line().as_bytes())?;
            self.newest.add(event);
        }
        Ok(())
    }

    /// All lines of the metrics.
    pub fn events(&self) -> Result<Vec<Event>, StoreError> {
        metrics::read(&self.metrics_text()?).map_err(StoreError::Unreadable)
    }

    /// Reads a file of the run, for example `config.effective.toml`.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.read(name)
    }

    /// Writes a file of the run so that a crash leaves either the old content or the new.
    pub fn write(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let draft = format!("{path}{DRAFT}{}", self.tag);
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        self.store.write(&draft, bytes)?;
        self.store.sync(&draft)?;
        self.store.rename(&draft, path)?;
        self.store.sync(parent)
    }

    /// Saves a checkpoint by the protocol above and then deletes all but the newest `keep_last` (at least 1) and the best.
    ///
    /// It is the best if `snapshot.state.best` is of the same update. Call it after the last line of this update. Returns the
    /// folder; after an error the checkpoints before are still there.
    pub fn save_checkpoint(&mut self, snapshot: &Snapshot, keep_last: usize) -> Result<String, StoreError> {
        let files = checkpoint::encode(snapshot)?;
        let state = &snapshot.state;
        let folder = format!("{CHECKPOINTS}/{}", folder_name(state.update));
        if !self.holds(&folder, &files) {
            self.store_files(&folder, &files)?;
        }
        checkpoint::verify(&self.files(&folder)?)?;
        self.write(LATEST, folder_name(state.update).as_bytes())?;
        if state.best.is_some_and(|best| best.update == state.update) {
            self.write(BEST, folder_name(state.update).as_bytes())?;
        }
        self.prune(keep_last)?;
        Ok(folder)
    }

    /// The newest good checkpoint; `None` where none was ever finished, an error where none is good.
    pub fn load_newest(&self, expected: &Expected) -> Result<Option<Loaded>, StoreError> {
        self.load_first(self.candidates()?, expected)
    }

    /// The checkpoint with the best evaluation, or else the newest good one, with a warning.
    pub fn load_best(&self, expected: &Expected) -> Result<Option<Loaded>, StoreError> {
        let mut candidates = self.candidates()?;
        if let Some(best) = self.best()? {
            candidates.retain(|folder| *folder != best);
            candidates.insert(0, best);
        }
        self.load_first(candidates, expected)
    }

    /// Takes the run back to where it stood after `update`: moves later checkpoints out of the way (to `set-aside-...`), then
    /// drops later and unreadable metrics lines. Returns a warning for each line that could not be read.
    pub fn rewind(&mut self, update: u32) -> Result<Vec<String>, StoreError> {
        self.set_aside_after(update)?;
        let text = self.metrics_text()?;
        let (mut kept, mut newest, mut warnings) = (String::new(), Newest::default(), Vec::new());
        for (number, line) in metrics::complete_lines(&text).enumerate() {
            let event = Event::from_line(line);
            if event.as_ref().is_ok_and(|event| event.update().is_some_and(|at| at > update)) {
                continue;
            }
            match event.and_then(|event| newest.admits(&event).map(|news| (event, news)).map_err(|error| error.to_string())) {
                Ok((event, news)) => {
                    newest.add(&event);
                    kept.extend(news.then_some([line, "\n"]).into_iter().flatten());
                }
                Err(problem) => warnings.push(format!("{METRICS}:{}: dropped, {problem}", number + 1)),
            }
        }
        if kept != text {
            self.write(METRICS, kept.as_bytes())?;
        }
        self.newest = newest;
        Ok(warnings)
    }

    fn set_aside_after(&mut self, update: u32) -> Result<(), StoreError> {
        let (later, kept): (Vec<String>, Vec<String>) =
            self.candidates()?.into_iter().partition(|folder| update_of(folder).is_some_and(|at| at > update));
        for folder in &later {
            let aside = format!("{CHECKPOINTS}/set-aside-{folder}");
            self.store.remove(&aside)?;
            self.store.rename(&format!("{CHECKPOINTS}/{folder}"), &aside)?;
        }
        if later.is_empty() {
            return Ok(());
        }
        if self.best()?.is_some_and(|best| later.contains(&best)) {
            self.store.remove(BEST)?;
        }
        match kept.first() {
            Some(newest) => self.write(LATEST, newest.as_bytes()),
            None => self.store.remove(LATEST),
        }
    }

    fn metrics_text(&self) -> Result<String, StoreError> {
        let bytes = self.store.read(METRICS)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Writes a checkpoint into a draft and renames it. A failed draft is removed, so that it does not fill the disk.
    fn store_files(&mut self, folder: &str, files: &Files) -> Result<(), StoreError> {
        let wanted = 2 * files.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
        if let Some(free) = self.store.free_bytes().filter(|&free| free < wanted) {
            return Err(StoreError::Full { wanted, free });
        }
        self.store.sync(METRICS)?;
        let draft = format!("{folder}{DRAFT}{}", self.tag);
        let drafted = self.store_draft(&draft, files);
        if drafted.is_err() {
            // The error that matters is the first one; what cannot be removed now goes with the next save that succeeds.
            let _ = self.store.remove(&draft);
            return drafted;
        }
        if !self.store.list(folder)?.is_empty() {
            // A damaged or outdated checkpoint of the same update: the draft counts in its place as soon as its name is safe.
            self.store.sync(CHECKPOINTS)?;
            self.store.remove(folder)?;
        }
        self.store.rename(&draft, folder)?;
        self.store.sync(CHECKPOINTS)?;
        self.store.sync("")
    }

    fn store_draft(&mut self, draft: &str, files: &Files) -> Result<(), StoreError> {
        self.store.remove(draft)?;
        for (file, bytes) in files {
            let path = format!("{draft}/{file}");
            self.store.write(&path, bytes)?;
            self.store.sync(&path)?;
        }
        self.store.sync(draft)
    }

    /// Deletes drafts and all checkpoints but the newest `keep_last` and the best.
    fn prune(&mut self, keep_last: usize) -> Result<(), StoreError> {
        let best = self.best()?;
        let (drafts, saved): (Vec<String>, Vec<String>) = self.candidates()?.into_iter().partition(|folder| folder.contains(DRAFT));
        let old = saved.into_iter().skip(keep_last.max(1)).filter(|folder| best.as_ref() != Some(folder));
        for folder in old.chain(drafts) {
            self.store.remove(&format!("{CHECKPOINTS}/{folder}"))?;
        }
        Ok(())
    }

    /// Names of all checkpoint folders, newest first, drafts after the folder proper.
    fn candidates(&self) -> Result<Vec<String>, StoreError> {
        let mut folders: Vec<String> = self.store.list(CHECKPOINTS)?;
        folders.retain(|folder| update_of(folder).is_some());
        folders.sort_by_key(|folder| (std::cmp::Reverse(update_of(folder)), folder.clone()));
        Ok(folders)
    }

    /// The folder that the `best` pointer names.
    fn best(&self) -> Result<Option<String>, StoreError> {
        let bytes = self.store.read(BEST)?;
        let name = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        Ok(name.map(|name| name.trim().to_string()).filter(|name| update_of(name).is_some()))
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

    /// The files of a checkpoint that are there; what is missing is for [`checkpoint::verify`] to say.
    fn files(&self, folder: &str) -> Result<Files, StoreError> {
        let mut files = Files::new();
        for name in checkpoint::FILES {
            if let Some(bytes) = self.store.read(&format!("{folder}/{name}"))? {
                files.push((name.to_string(), bytes));
            }
        }
        Ok(files)
    }

    /// Whether the folder already holds exactly these files.
    fn holds(&self, folder: &str, files: &Files) -> bool {
        let manifest = files.iter().find(|(name, _)| name == MANIFEST).map(|(_, bytes)| bytes.clone());
        let stored = self.store.read(&format!("{folder}/{MANIFEST}")).ok().flatten();
        stored == manifest && self.files(folder).is_ok_and(|stored| stored == *files)
    }
}

fn folder_name(update: u32) -> String {
    format!("update-{update:08}")
}

/// The update in the name of a checkpoint folder or of its draft.
fn update_of(folder: &str) -> Option<u32> {
    let number = folder.strip_prefix("update-")?;
    number.split(DRAFT).next()?.parse().ok()
}
