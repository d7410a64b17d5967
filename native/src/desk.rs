//! The trainer of the app, on a thread with a device of its own.

use std::{
    collections::VecDeque,
    fs, io,
    path::{Path, PathBuf},
};

use eframe::egui;
use moelab::{
    config_file::MAX_BYTES,
    lab::{
        archive,
        store::check_name,
        workspace::{Reply, Request},
        workspace_host::Workspace,
    },
    ui::Link,
};

use crate::{atomic, input, machine::Resources, places::Runs, print, runner::Runner};

/// A workspace on another thread.
pub struct Desk {
    runner: Runner<Request, Reply>,
    runs: PathBuf,
    /// Name and content of files that were dropped onto the window.
    opened: VecDeque<(String, Result<Vec<u8>, String>)>,
}

impl Desk {
    /// The workspace of a folder; `wake` is called on each reply.
    ///
    /// # Errors
    /// If the system cannot create a thread.
    pub fn open(runs: &Path, resources: Resources, wake: impl Fn() + Send + 'static) -> io::Result<Desk> {
        let places = Runs::new(runs, resources);
        let runner = Runner::spawn(move || Workspace::new(places.clone()), wake)?;
        Ok(Desk { runner, runs: runs.to_path_buf(), opened: VecDeque::new() })
    }
}

impl Link for Desk {
    fn send(&mut self, request: Request) {
        self.runner.send(request);
    }

    fn poll(&mut self) -> Option<Reply> {
        self.runner.poll()
    }

    fn place(&self) -> String {
        print::path(&self.runs)
    }

    fn open(&mut self, file: egui::DroppedFileHandle) {
        // The trainer reads texts itself.
        if moelab::ui::is_text(&file.path().to_string_lossy()) {
            self.opened.push_back((print::path(file.path()), Ok(Vec::new())));
            return;
        }
        let is_archive = file.path().extension().is_some_and(|extension| extension == "tar");
        let most = if is_archive { archive::MOST_BYTES } else { MAX_BYTES as u64 };
        let content = input::read(file.path(), most).map_err(|error| error.to_string());
        self.opened.push_back((print::path(file.path()), content));
    }

    fn opened(&mut self) -> Option<(String, Result<Vec<u8>, String>)> {
        self.opened.pop_front()
    }

    fn save(&mut self, folder: &str, files: &[(String, String)]) -> Result<String, String> {
        check_name(folder).map_err(|error| error.to_string())?;
        let folder = self.runs.join(folder);
        for (name, text) in files {
            check_name(name).map_err(|error| error.to_string())?;
            let path = folder.join(name);
            let written = fs::create_dir_all(&folder).and_then(|()| atomic::write(&path, text.as_bytes()));
            written.map_err(|error| format!("{}: {error}", print::path(&path)))?;
        }
        Ok(print::path(&folder))
    }

    fn has_files(&self) -> bool {
        true
    }
}
