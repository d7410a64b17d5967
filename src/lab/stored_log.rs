//! The files of a study as one log, for a medium that has only a few files open and no folders: a browser's private file system.
//!
//! The files are in memory; every change is also appended to a log, from which they are read when the study is opened again. So what is
//! stored is always a *prefix of the changes*, which is what the protocol of a run folder asks of a medium (`run_folder`): a change that was cut
//! off by a crash has a wrong checksum, and the log ends before it. All files of a study must fit into memory, its checkpoints included.
//!
//! [`Folders`] and the stores that it opens only collect changes. [`Log::save`] writes them, between two calls of the host and before its events are shown;
//! it makes them durable if any of them had to be. Where the log has become much longer than its files, they are
//! written to the other medium, which counts from the moment at which its header has the higher generation.
//!
//! | bytes | |
//! |---|---|
//! | 8 | `moelab` and the version of the format, as two characters |
//! | 8 | generation, little-endian; the higher one of two media is current |
//! | 4, 8 | a change: its length, and its FNV-1a hash, both little-endian |
//! | 1, 2, ... | its kind; the length of the path, and the path; then content, length or new path |

use std::{cell::RefCell, rc::Rc};

use super::{
    memory::Memory,
    store::{Store, StoreError, check_name},
    suite::SuiteStore,
};

const MAGIC: &[u8; 8] = b"moelab01";
const HEADER: u64 = 16;
/// Length and hash before each change.
const PREFIX: usize = 12;
/// Bytes beyond twice the files before the log is written anew.
const SLACK: u64 = 8 << 20;

const WRITE: u8 = 0;
const APPEND: u8 = 1;
const TRUNCATE: u8 = 2;
const RENAME: u8 = 3;
const REMOVE: u8 = 4;

/// A file that can be written at any place.
///
/// Two implementations: a sync access handle of the browser, and that of a test.
pub trait Medium {
    /// All bytes.
    ///
    /// # Errors
    /// The medium's message, here and below.
    fn read(&self) -> Result<Vec<u8>, String>;

    /// Writes bytes at a place, and extends the file as far as needed.
    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), String>;

    /// Cuts the file.
    fn truncate(&mut self, length: u64) -> Result<(), String>;

    /// Returns once what was written would survive a power failure.
    fn flush(&mut self) -> Result<(), String>;
}

/// Changes that are not stored yet.
#[derive(Default)]
struct Changes {
    records: Vec<u8>,
    must_last: bool,
    /// Bytes that are free on the medium, if it says so.
    free: Option<u64>,
}

impl Changes {
    fn push(&mut self, kind: u8, path: &str, rest: &[u8]) {
        push(&mut self.records, kind, path, rest);
        self.free = self.free.map(|free| free.saturating_sub((PREFIX + 3 + path.len() + rest.len()) as u64));
    }
}

fn push(records: &mut Vec<u8>, kind: u8, path: &str, rest: &[u8]) {
    let start = records.len();
    records.extend([0; PREFIX]);
    records.push(kind);
    // Names have at most 100 characters, and paths a few names.
    records.extend((path.len() as u16).to_le_bytes());
    records.extend(path.as_bytes());
    records.extend(rest);
    let hash = fnv1a(&records[start + PREFIX..]);
    let length = (records.len() - start - PREFIX) as u32;
    records[start..start + 4].copy_from_slice(&length.to_le_bytes());
    records[start + 4..start + PREFIX].copy_from_slice(&hash.to_le_bytes());
}

/// FNV-1a, 64 bits, <http://www.isthe.com/chongo/tech/comp/fnv/>: it finds torn writes, not forgeries.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Carries out the changes in a log, and returns the length of those that are whole.
fn replay(log: &[u8], files: &mut Memory) -> usize {
    let mut at = 0;
    while let Some(next) = next_change(&log[at..]).and_then(|change| apply(change, files).map(|()| at + PREFIX + change.len())) {
        at = next;
    }
    at
}

/// The first change in a log, if it is whole.
fn next_change(log: &[u8]) -> Option<&[u8]> {
    let (length, rest) = log.split_first_chunk::<4>()?;
    let (hash, rest) = rest.split_first_chunk::<8>()?;
    let change = rest.get(..u32::from_le_bytes(*length) as usize)?;
    (fnv1a(change) == u64::from_le_bytes(*hash)).then_some(change)
}

fn apply(change: &[u8], files: &mut Memory) -> Option<()> {
    let (kind, rest) = change.split_first()?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (path, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
    let path = std::str::from_utf8(path).ok()?;
    match *kind {
        WRITE => files.write(path, rest),
        APPEND => files.append(path, rest),
        TRUNCATE => files.truncate(path, u64::from_le_bytes(rest.try_into().ok()?)),
        RENAME => files.rename(path, std::str::from_utf8(rest).ok()?),
        REMOVE => files.remove(path),
        _ => return None,
    }
    .ok()
}

/// A log on two media, one of which is current.
pub struct Log<M> {
    media: [M; 2],
    current: usize,
    generation: u64,
    length: u64,
    folders: Folders,
}

impl<M: Medium> Log<M> {
    /// Reads what the media have; `free` are the bytes that are free, if that is known.
    ///
    /// # Errors
    /// The message of a medium that cannot be read or written.
    pub fn open(mut media: [M; 2], free: Option<u64>) -> Result<Log<M>, String> {
        let contents = [media[0].read()?, media[1].read()?];
        let generation = |bytes: &Vec<u8>| {
            let (magic, rest) = bytes.split_first_chunk::<8>()?;
            let (generation, _) = rest.split_first_chunk::<8>()?;
            (magic == MAGIC).then(|| u64::from_le_bytes(*generation))
        };
        let generations = contents.each_ref().map(generation);
        let is_foreign = |bytes: &Vec<u8>| bytes.len() >= HEADER as usize && bytes.starts_with(&MAGIC[..6]) && !bytes.starts_with(MAGIC);
        if contents.iter().any(is_foreign) {
            return Err("another version of moelab stored this study: load the page of that version".into());
        }
        let current = usize::from(generations[1] > generations[0]);
        let mut files = Memory::default();
        let length = match generations[current] {
            Some(_) => HEADER + replay(&contents[current][HEADER as usize..], &mut files) as u64,
            None => {
                media[current].truncate(0)?;
                media[current].write(0, &header(0))?;
                HEADER
            }
        };
        media[current].truncate(length)?;
        let changes = Rc::new(RefCell::new(Changes { free, ..Changes::default() }));
        let folders = Folders { root: Folder { files, changes, prefix: String::new() } };
        Ok(Log { media, current, generation: generations[current].unwrap_or(0), length, folders })
    }

    /// The folders of the study.
    pub fn folders(&self) -> Folders {
        self.folders.clone()
    }

    /// Stores the changes since the last call.
    ///
    /// # Errors
    /// The medium's message. What is stored remains a prefix of the changes, but the study must not go on: open it again.
    pub fn save(&mut self) -> Result<(), String> {
        let Changes { records, must_last, free } = self.folders.root.changes.take();
        self.folders.root.changes.borrow_mut().free = free;
        let medium = &mut self.media[self.current];
        if !records.is_empty() {
            medium.write(self.length, &records)?;
            self.length += records.len() as u64;
        }
        if must_last {
            medium.flush()?;
        }
        if self.length > 2 * self.folders.root.files.bytes() + SLACK { self.rewrite() } else { Ok(()) }
    }

    /// Writes the files to the other medium, without the changes that led to them.
    fn rewrite(&mut self) -> Result<(), String> {
        let (old, new) = (self.current, 1 - self.current);
        let medium = &mut self.media[new];
        medium.truncate(0)?;
        let mut length = HEADER;
        for path in self.folders.root.files.paths() {
            let mut record = Vec::new();
            let bytes = self.folders.root.files.read(&path).ok().flatten().unwrap_or_default();
            push(&mut record, WRITE, &path, &bytes);
            medium.write(length, &record)?;
            length += record.len() as u64;
        }
        medium.flush()?;
        medium.write(0, &header(self.generation + 1))?;
        medium.flush()?;
        (self.current, self.generation) = (new, self.generation + 1);
        let freed = self.length.saturating_sub(length);
        self.length = length;
        let mut changes = self.folders.root.changes.borrow_mut();
        changes.free = changes.free.map(|free| free + freed);
        self.media[old].truncate(0)
    }
}

fn header(generation: u64) -> [u8; HEADER as usize] {
    let mut header = [0; HEADER as usize];
    header[..8].copy_from_slice(MAGIC);
    header[8..].copy_from_slice(&generation.to_le_bytes());
    header
}

/// The folders of a study. Clones share them.
#[derive(Clone)]
pub struct Folders {
    root: Folder,
}

impl Folders {
    /// Those within the folder of a study or of anything else, which need not exist.
    ///
    /// # Errors
    /// A name that cannot be that of a folder.
    pub fn within(&self, name: &str) -> Result<Folders, StoreError> {
        check_name(name)?;
        Ok(Folders { root: Folder { prefix: format!("{}{name}/", self.root.prefix), ..self.root.clone() } })
    }

    /// The folder itself.
    pub fn into_root(self) -> Box<dyn Store> {
        Box::new(self.root)
    }

    /// The folder of a run, which need not exist.
    ///
    /// # Errors
    /// A name that cannot be that of a run.
    pub fn folder(&self, run: &str) -> Result<Box<dyn Store>, StoreError> {
        Ok(self.within(run)?.into_root())
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
        let folder = self.folder(id)?;
        Ok(if folder.list("")?.is_empty() { None } else { Some(folder) })
    }

    fn run_mut(&mut self, id: &str) -> Result<Box<dyn Store>, StoreError> {
        self.folder(id)
    }
}

/// A folder of a study, or the study's own.
#[derive(Clone)]
struct Folder {
    files: Memory,
    changes: Rc<RefCell<Changes>>,
    /// Path of the folder with a slash; empty for the study's own.
    prefix: String,
}

impl Folder {
    fn path(&self, path: &str) -> String {
        if path.is_empty() { self.prefix.trim_end_matches('/').into() } else { format!("{}{path}", self.prefix) }
    }

    fn note(&self, kind: u8, path: &str, rest: &[u8]) {
        self.changes.borrow_mut().push(kind, path, rest);
    }
}

impl Store for Folder {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.files.read(&self.path(path))
    }

    fn read_at(&self, path: &str, offset: u64, length: usize) -> Result<Option<Vec<u8>>, StoreError> {
        self.files.read_at(&self.path(path), offset, length)
    }

    fn write(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(path);
        self.files.write(&path, bytes)?;
        self.note(WRITE, &path, bytes);
        Ok(())
    }

    fn append(&mut self, path: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(path);
        self.files.append(&path, bytes)?;
        self.note(APPEND, &path, bytes);
        Ok(())
    }

    fn truncate(&mut self, path: &str, length: u64) -> Result<(), StoreError> {
        let path = self.path(path);
        self.files.truncate(&path, length)?;
        self.note(TRUNCATE, &path, &length.to_le_bytes());
        Ok(())
    }

    fn sync(&mut self, path: &str) -> Result<(), StoreError> {
        self.changes.borrow_mut().must_last = true;
        self.files.sync(&self.path(path))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), StoreError> {
        let (from, to) = (self.path(from), self.path(to));
        self.files.rename(&from, &to)?;
        self.note(RENAME, &from, to.as_bytes());
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Result<(), StoreError> {
        let path = self.path(path);
        self.files.remove(&path)?;
        self.note(REMOVE, &path, &[]);
        Ok(())
    }

    fn list(&self, folder: &str) -> Result<Vec<String>, StoreError> {
        self.files.list(&self.path(folder))
    }

    fn free_bytes(&self) -> Option<u64> {
        self.changes.borrow().free
    }
}
