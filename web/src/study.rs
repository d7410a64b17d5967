//! A study in the tab: its host, and its files in the browser's private file system.
//!
//! `worker.js` obtains the two files of the study's log, because only that is asynchronous; everything from there on is a call of
//! their sync access handles. The names of the browser's interfaces are those of <https://fs.spec.whatwg.org>.

use moelab::lab::{
    host::Activity,
    stored_log::{Folders, Log, Medium},
    suite::{SuiteCommand, SuiteEvent, table},
    suite_host::SuiteHost,
};
use wasm_bindgen::prelude::*;

use crate::Tab;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = Date, js_name = now)]
    pub fn milliseconds_since_1970() -> f64;

    /// A file of the private file system that is open for this worker alone.
    pub type FileSystemSyncAccessHandle;
    #[wasm_bindgen(method, catch, js_name = getSize)]
    fn size(this: &FileSystemSyncAccessHandle) -> Result<f64, Exception>;
    #[wasm_bindgen(method, catch, js_name = read)]
    fn read_at(this: &FileSystemSyncAccessHandle, bytes: &mut [u8], options: &Options) -> Result<f64, Exception>;
    #[wasm_bindgen(method, catch, js_name = write)]
    fn write_at(this: &FileSystemSyncAccessHandle, bytes: &[u8], options: &Options) -> Result<f64, Exception>;
    #[wasm_bindgen(method, catch, js_name = truncate)]
    fn cut(this: &FileSystemSyncAccessHandle, length: f64) -> Result<(), Exception>;
    #[wasm_bindgen(method, catch, js_name = flush)]
    fn make_durable(this: &FileSystemSyncAccessHandle) -> Result<(), Exception>;

    #[wasm_bindgen(js_name = Object)]
    type Options;
    #[wasm_bindgen(constructor, js_class = Object)]
    fn new() -> Options;
    #[wasm_bindgen(method, setter)]
    fn set_at(this: &Options, at: f64);

    type Exception;
    #[wasm_bindgen(method, getter)]
    fn name(this: &Exception) -> String;
    #[wasm_bindgen(method, getter)]
    fn message(this: &Exception) -> String;
}

/// A file of the log, or nothing where the browser gives the page no storage.
pub struct File(pub Option<FileSystemSyncAccessHandle>);

fn at(place: u64) -> Options {
    let options = Options::new();
    options.set_at(place as f64);
    options
}

/// What to do about a full storage.
const FULL: &str = "the browser's storage is full or damaged. What was stored before is whole: free space on the disk, load the page again, remove what is not needed, and resume";

/// What the browser says, with a remedy for a full disk.
fn words(error: Exception) -> String {
    match error.name().as_str() {
        "QuotaExceededError" => FULL.into(),
        name => format!("{name}: {}", error.message()),
    }
}

fn whole(count: f64, wanted: usize) -> Result<(), String> {
    // A full storage takes a part, or says nothing that is a number of bytes.
    if count == wanted as f64 { Ok(()) } else { Err(FULL.into()) }
}

impl Medium for File {
    fn read(&self) -> Result<Vec<u8>, String> {
        let Some(handle) = &self.0 else { return Ok(Vec::new()) };
        let mut bytes = vec![0; handle.size().map_err(words)? as usize];
        whole(handle.read_at(&mut bytes, &at(0)).map_err(words)?, bytes.len())?;
        Ok(bytes)
    }

    fn write(&mut self, place: u64, bytes: &[u8]) -> Result<(), String> {
        let Some(handle) = &self.0 else { return Ok(()) };
        whole(handle.write_at(bytes, &at(place)).map_err(words)?, bytes.len())
    }

    fn truncate(&mut self, length: u64) -> Result<(), String> {
        self.0.as_ref().map_or(Ok(()), |handle| handle.cut(length as f64)).map_err(words)
    }

    fn flush(&mut self) -> Result<(), String> {
        self.0.as_ref().map_or(Ok(()), FileSystemSyncAccessHandle::make_durable).map_err(words)
    }
}

/// A host of one study for the worker: commands and events as JSON (`src/lab/suite`).
#[wasm_bindgen]
pub struct StudyHost {
    log: Log<File>,
    host: SuiteHost<Tab, Folders>,
    activity: Activity,
}

#[wasm_bindgen]
impl StudyHost {
    /// A host of the study of this name, whose log has these files, and `free` bytes beside them. Without files, the study is lost
    /// with the tab.
    ///
    /// # Errors
    /// If they cannot be read.
    #[wasm_bindgen(constructor)]
    pub fn new(
        name: &str,
        first: Option<FileSystemSyncAccessHandle>,
        second: Option<FileSystemSyncAccessHandle>,
        free: Option<f64>,
    ) -> Result<StudyHost, JsValue> {
        let log = Log::open([File(first), File(second)], free.map(|bytes| bytes as u64)).map_err(|error| unsaved(&error))?;
        let host = SuiteHost::new(Tab::of_study(log.folders(), None), log.folders(), name, || milliseconds_since_1970() / 1e3);
        Ok(StudyHost { log, host, activity: Activity::Idle })
    }

    /// Queues a command.
    ///
    /// # Errors
    /// Text that is not a command.
    pub fn send(&mut self, command: &str) -> Result<(), JsValue> {
        let command: SuiteCommand =
            serde_json::from_str(command).map_err(|error| JsValue::from_str(&format!("invalid command: {error}: {command}")))?;
        self.host.send(command);
        self.activity = Activity::Busy;
        Ok(())
    }

    /// Works for at most this many milliseconds, stores what has changed, and returns the events; those that the command line prints have
    /// its line as `words`.
    ///
    /// # Errors
    /// If the changes cannot be stored. The worker must end then.
    pub fn advance(&mut self, milliseconds: f64) -> Result<Vec<String>, JsValue> {
        let (events, activity) = self.host.advance(milliseconds / 1e3);
        self.activity = activity;
        self.log.save().map_err(|error| unsaved(&error))?;
        Ok(events.iter().map(json).collect())
    }

    /// Whether there is nothing to do until the next command.
    #[wasm_bindgen(getter)]
    pub fn is_idle(&self) -> bool {
        self.activity == Activity::Idle
    }
}

pub fn unsaved(error: &str) -> JsValue {
    JsError::new(&format!("Nothing more can be stored: {error}.")).into()
}

fn json(event: &SuiteEvent) -> String {
    let mut value = serde_json::to_value(event).expect("keys are strings and floats are written by `exact`");
    if let (Some(line), Some(fields)) = (table::event(event), value.as_object_mut()) {
        fields.insert("words".into(), line.into());
    }
    value.to_string()
}
