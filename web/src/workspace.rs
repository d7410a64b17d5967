//! The runs and studies of a tab: the host of the app's worker, and their files in the browser's private file system.

use std::collections::VecDeque;

use moelab::{
    lab::{
        host::Activity,
        store::{Store, StoreError, check_name, check_path},
        stored_log::{Folders, Log},
        suite::SuiteStore,
        workspace::{Reply, Request},
        workspace_host::{Places, Workspace},
    },
    run::protocol::SessionEvent,
};
use wasm_bindgen::prelude::*;

use crate::{
    Tab,
    study::{File, FileSystemSyncAccessHandle, milliseconds_since_1970, unsaved},
};

/// The folders of a tab.
struct TabFolders(Folders);

/// The folder of texts that runs learn; no run can have its name.
pub const TEXTS: &str = "texts";
/// Most bytes of a text.
const MOST_TEXT: usize = 64_000_000;

impl Places for TabFolders {
    type Environment = Tab;
    type Folders = Folders;

    fn environment(&self, study: Option<&str>, sharing: Option<&Tab>) -> Tab {
        let folders = study.and_then(|study| self.0.within(study).ok()).unwrap_or_else(|| self.0.clone());
        match sharing {
            Some(other) => other.sharing(folders),
            None => Tab::of_study(folders, self.0.within(TEXTS).ok()),
        }
    }

    fn study(&self, name: &str, _: bool) -> Result<Folders, StoreError> {
        self.0.within(name)
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.0.root().list("")?.into_iter().filter(|name| name != TEXTS).collect())
    }

    fn folder(&self, path: &str) -> Result<Option<Box<dyn Store>>, StoreError> {
        check_path(path)?;
        let mut folders = self.0.clone();
        for name in path.split('/') {
            folders = folders.within(name)?;
        }
        let store: Box<dyn Store> = folders.into_root();
        Ok(if store.list("")?.is_empty() { None } else { Some(store) })
    }

    fn keep(&mut self, name: &str, text: &str) -> Result<(), StoreError> {
        check_name(name)?;
        if text.len() > MOST_TEXT {
            let problem = format!("it has {} bytes, wanted at most {MOST_TEXT}", text.len());
            return Err(StoreError::Medium { action: "keep", path: name.into(), problem });
        }
        self.0.within(TEXTS)?.root_mut().write(name, text.as_bytes())
    }

    fn remove(&mut self, name: &str) -> Result<(), StoreError> {
        self.0.root_mut().remove(name)
    }

    fn seconds_since_1970() -> f64 {
        milliseconds_since_1970() / 1e3
    }
}

/// A host of the app for the worker: requests and replies as JSON (`src/lab/workspace`).
#[wasm_bindgen]
pub struct WorkspaceHost {
    log: Log<File>,
    workspace: Workspace<TabFolders>,
    activity: Activity,
    /// The name of the adapter: browsers tell it to JavaScript only.
    adapter: String,
    /// What to do where there is none.
    advice: Option<String>,
    /// Files that go beside replies.
    archives: VecDeque<Vec<u8>>,
}

#[wasm_bindgen]
impl WorkspaceHost {
    /// A host on the adapter of this name, with advice if there is none, whose log has these files, and `free` bytes beside them. Without files,
    /// everything is lost with the tab.
    ///
    /// # Errors
    /// If they cannot be read.
    #[wasm_bindgen(constructor)]
    pub fn new(
        adapter: String,
        advice: Option<String>,
        first: Option<FileSystemSyncAccessHandle>,
        second: Option<FileSystemSyncAccessHandle>,
        free: Option<f64>,
    ) -> Result<WorkspaceHost, JsValue> {
        let log = Log::open([File(first), File(second)], free.map(|bytes| bytes as u64)).map_err(|error| unsaved(&error))?;
        let workspace = Workspace::new(TabFolders(log.folders()));
        Ok(WorkspaceHost { log, workspace, activity: Activity::Idle, adapter, advice, archives: VecDeque::new() })
    }

    /// Queues a request.
    ///
    /// # Errors
    /// Text that is not a request.
    pub fn send(&mut self, request: &str) -> Result<(), JsValue> {
        self.send_file(request, Vec::new())
    }

    /// Queues a request with the file that goes beside it.
    ///
    /// # Errors
    /// Text that is not a request.
    pub fn send_file(&mut self, request: &str, file: Vec<u8>) -> Result<(), JsValue> {
        let mut request =
            serde_json::from_str(request).map_err(|error| JsValue::from_str(&format!("invalid request: {error}: {request}")))?;
        if let Request::Import { archive, .. } = &mut request {
            *archive = file;
        }
        self.workspace.send(request);
        self.activity = Activity::Busy;
        Ok(())
    }

    /// The file that goes beside the next `exported` of the replies.
    pub fn archive(&mut self) -> Option<Vec<u8>> {
        self.archives.pop_front()
    }

    /// Works for at most this many milliseconds, stores what has changed, and returns the replies.
    ///
    /// # Errors
    /// If the changes cannot be stored. The worker must end then.
    pub fn advance(&mut self, milliseconds: f64) -> Result<Vec<String>, JsValue> {
        let (mut replies, activity) = self.workspace.advance(milliseconds / 1e3);
        self.activity = activity;
        self.log.save().map_err(|error| unsaved(&error))?;
        for reply in &mut replies {
            if let Reply::Exported { archive, .. } = reply {
                self.archives.push_back(std::mem::take(archive));
            }
            if let Reply::Probed(probed) = reply {
                probed.adapter.name.clone_from(&self.adapter);
            }
            if let Reply::Session { event, .. } = reply {
                match (event, &self.advice) {
                    (SessionEvent::Opened(opened), _) => opened.adapter.clone_from(&self.adapter),
                    (SessionEvent::Inspected(inspected), _) => inspected.adapter.clone_from(&self.adapter),
                    (SessionEvent::Failed(problem), Some(advice)) => problem.what.clone_from(advice),
                    _ => {}
                }
            }
        }
        Ok(replies.iter().map(|reply| serde_json::to_string(reply).expect("replies are plain data")).collect())
    }

    /// Whether there is nothing to do until the next request.
    #[wasm_bindgen(getter)]
    pub fn is_idle(&self) -> bool {
        self.activity == Activity::Idle
    }
}
