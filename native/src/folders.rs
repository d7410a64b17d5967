//! The folders of a study as directories.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use moelab::{
    lab::{
        audit::Finding,
        store::{Store, StoreError, check_name},
        suite::{SuiteStore, audit::BEFORE, failure_file, planned},
    },
    run::suite::PlannedRun,
};

use crate::{atomic, print, store::Directory};

/// A study's folder and those of its runs below it. Clones share the lock.
#[derive(Clone)]
pub struct Folders {
    path: PathBuf,
    root: Directory,
}

impl Folders {
    /// Opens a study's folder for writing, and creates it if it does not exist. One process at a time may do so.
    ///
    /// # Errors
    /// If it cannot be created, or another process has it open.
    pub fn open(path: &Path) -> Result<Folders, StoreError> {
        Ok(Folders { path: path.to_path_buf(), root: Directory::open(path)? })
    }

    /// Opens a study's folder for reading.
    ///
    /// # Errors
    /// If it does not exist.
    pub fn read_only(path: &Path) -> Result<Folders, StoreError> {
        Ok(Folders { path: path.to_path_buf(), root: Directory::read_only(path)? })
    }

    /// Records why a run failed, or that it is tried again. Each run has a file of its own, so this needs no lock.
    pub fn set_failure(&self, run: &str, problem: Option<&str>) -> Result<()> {
        let path = self.path.join(failure_file(run));
        match problem {
            Some(problem) => atomic::write(&path, format!("{problem}\n").as_bytes()).with_context(|| print::path(&path)),
            None if path.exists() => fs::remove_file(&path).with_context(|| print::path(&path)),
            None => Ok(()),
        }
    }

    /// Keeps what the audit found before the first run.
    pub fn set_audit(&self, findings: &[Finding]) -> Result<()> {
        let path = self.path.join(BEFORE);
        let lines: Vec<String> = findings.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
        let text: String = lines.into_iter().map(|line| line + "\n").collect();
        atomic::write(&path, text.as_bytes()).with_context(|| print::path(&path))
    }

    /// The runs in `plan.jsonl`.
    pub fn plan(&self) -> Result<Vec<PlannedRun>> {
        Ok(planned(&self.root)?)
    }
}

impl SuiteStore for Folders {
    fn root(&self) -> &dyn Store {
        &self.root
    }

    fn root_mut(&mut self) -> &mut dyn Store {
        &mut self.root
    }

    fn run(&self, id: &str) -> Result<Option<Box<dyn Store>>, StoreError> {
        check_name(id)?;
        let path = self.path.join(id);
        if !path.is_dir() {
            return Ok(None);
        }
        Ok(Some(Box::new(Directory::read_only(&path)?)))
    }

    fn run_mut(&mut self, id: &str) -> Result<Box<dyn Store>, StoreError> {
        check_name(id)?;
        Ok(Box::new(Directory::open(&self.path.join(id))?))
    }
}
