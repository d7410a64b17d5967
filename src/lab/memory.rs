//! A folder in memory: for tests, for single runs in a browser, and beneath [`stored_log`](super::stored_log).
//!
//! Clones share the content, so that a test can inspect it, or open it again, after the run that wrote it was dropped.

use super::store::{Store, StoreError, check_path};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The files by path.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    files: Rc<RefCell<BTreeMap<String, Vec<u8>>>>,
}

impl Memory {
    /// The paths of all files, sorted.
    pub fn paths(&self) -> Vec<String> {
        self.files.borrow().keys().cloned().collect()
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.borrow().values().map(|bytes| bytes.len() as u64).sum()
    }

    fn inside(path: &str, folder: &str) -> bool {
        folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl Store for Memory {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        check_path(path)?;
        Ok(self.files.borrow().get(path).cloned())
    }

    fn read_at(&self, path: &str, offset: u64, length: usize) -> Result<Option<Vec<u8>>, StoreError> {
        check_path(path)?;
        let files = self.files.borrow();
        let part = |bytes: &Vec<u8>| {
            let start = usize::try_from(offset).map_or(bytes.len(), |offset| offset.min(bytes.len()));
            bytes[start..][..length.min(bytes.len() - start)].to_vec()
        };
        Ok(files.get(path).map(part))
    }

    fn write(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_path(path)?;
        self.files.borrow_mut().insert(path.to_string(), bytes.to_vec());
        Ok(())
    }

    fn append(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        check_path(path)?;
        let absent = || StoreError::Medium { action: "append to", path: path.into(), problem: "it does not exist".into() };
        self.files.borrow_mut().get_mut(path).ok_or_else(absent)?.extend_from_slice(bytes);
        Ok(())
    }

    fn truncate(&mut self, path: &str, length: u64) -> Result<(), StoreError> {
        check_path(path)?;
        if let Some(bytes) = self.files.borrow_mut().get_mut(path) {
            bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        }
        Ok(())
    }

    fn sync(&mut self, path: &str) -> Result<(), StoreError> {
        check_path(path)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), StoreError> {
        check_path(from)?;
        check_path(to)?;
        let failed = |problem: &str| StoreError::Medium { action: "rename", path: from.into(), problem: problem.into() };
        let mut files = self.files.borrow_mut();
        if let Some(bytes) = files.remove(from) {
            files.insert(to.to_string(), bytes);
            return Ok(());
        }
        if files.keys().any(|path| Self::inside(path, to)) {
            return Err(failed("the target exists"));
        }
        let moved: Vec<String> = files.keys().filter(|path| Self::inside(path, from)).cloned().collect();
        if moved.is_empty() {
            return Err(failed("it does not exist"));
        }
        for path in moved {
            let target = format!("{to}{}", &path[from.len()..]);
            let bytes = files.remove(&path).unwrap_or_default();
            files.insert(target, bytes);
        }
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Result<(), StoreError> {
        check_path(path)?;
        self.files.borrow_mut().retain(|file, _| file != path && !Self::inside(file, path));
        Ok(())
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        check_path(folder)?;
        let skipped = if folder.is_empty() { 0 } else { folder.len() + 1 };
        let files = self.files.borrow();
        let inside = files.keys().filter(|path| Self::inside(path, folder));
        let names: BTreeSet<&str> = inside.filter_map(|path| path[skipped..].split('/').next()).collect();
        Ok(names.into_iter().map(str::to_string).collect())
    }

    fn free_bytes(&self) -> Option<u64> {
        None
    }
}
