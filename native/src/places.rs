//! A directory with runs and studies, as the workspace of a front end with windows.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use moelab::lab::{
    store::{Store, StoreError, check_name, check_path},
    workspace_host::Places,
};

use crate::{
    door,
    folders::Folders,
    machine::{Machine, Resources},
    print,
    store::Directory,
};

/// Most updates that are made again after a lost device.
const MOST_REPEATED: u32 = 50;

/// A directory whose folders are runs and studies.
#[derive(Clone, Debug)]
pub struct Runs {
    root: PathBuf,
    resources: Resources,
}

impl Runs {
    /// The runs below a directory, which is created once there is a run.
    pub fn new(root: &Path, resources: Resources) -> Runs {
        Runs { root: root.to_path_buf(), resources }
    }

    fn failed(&self, action: &'static str, error: &std::io::Error) -> StoreError {
        StoreError::Medium { action, path: print::path(&self.root), problem: error.to_string() }
    }
}

impl Places for Runs {
    type Environment = Machine;
    type Folders = Folders;

    fn environment(&self, study: Option<&str>, sharing: Option<&Machine>) -> Machine {
        let folder = study.map_or(self.root.clone(), |study| self.root.join(study));
        match sharing {
            Some(other) => other.sharing(folder),
            None => Machine::of_study(self.resources.clone(), folder).recovering(MOST_REPEATED),
        }
    }

    fn study(&self, name: &str, for_writing: bool) -> Result<Folders, StoreError> {
        check_name(name)?;
        let path = self.root.join(name);
        if for_writing { Folders::open(&path) } else { Folders::read_only(&path) }
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| self.failed("list", &error))?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| self.failed("list", &error))?;
            let name = entry.file_name().into_string().ok().filter(|name| check_name(name).is_ok());
            names.extend(name.filter(|_| entry.path().is_dir()));
        }
        names.sort();
        Ok(names)
    }

    fn folder(&self, path: &str) -> Result<Option<Box<dyn Store>>, StoreError> {
        check_path(path)?;
        let folder = self.root.join(path);
        Ok(if folder.is_dir() { Some(Box::new(Directory::read_only(&folder)?)) } else { None })
    }

    fn remove(&mut self, name: &str) -> Result<(), StoreError> {
        check_name(name)?;
        // Fails if another process is writing it.
        let lock = Directory::open(&self.root.join(name))?;
        fs::remove_dir_all(self.root.join(name)).map_err(|error| self.failed("remove", &error))?;
        drop(lock);
        Ok(())
    }

    fn is_written(&self, path: &str) -> Result<bool, StoreError> {
        check_path(path)?;
        Directory::is_locked(&self.root.join(path))
    }

    fn tell(&mut self, path: &str, line: &str) -> Result<(), StoreError> {
        check_path(path)?;
        let folder = self.root.join(path);
        // Refuses links.
        Directory::read_only(&folder)?;
        door::append(&folder, line).map_err(|error| self.failed("control a process in", &error))
    }

    fn seconds_since_1970() -> f64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
    }
}
