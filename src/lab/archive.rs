//! A run folder as one file: an uncompressed `tar`, as `tar xf` unpacks it and `tar cf RUN.tar RUN` makes it.
//!
//! For front ends without folders. What was trained in a browser is downloaded as such a file, unpacked, and continued with `moelab resume`; and a folder of the
//! command line, packed, is continued in the browser.
//!
//! The format is that of POSIX.1-1988, `ustar`, <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html>, without what a
//! run folder has no need of: links, owners, times. An archive may come from anywhere, so [`unpack`] trusts nothing in it: names are those that
//! [`check_path`] accepts, below one folder, which is left out; there are few of them, none twice; sizes are within the file.

use std::collections::BTreeSet;

use super::{
    files::EFFECTIVE_CONFIG,
    store::{Store, StoreError, check_path},
};
use crate::run::protocol::Problem;

/// Bytes of a header, and the unit of contents.
const BLOCK: usize = 512;
/// Most files of an archive; a run folder has some ten, and four for each checkpoint.
const MOST_FILES: usize = 10_000;
/// Most folders in a path.
const DEEPEST: usize = 4;
/// Largest archive that is read, bytes.
pub const MOST_BYTES: u64 = 2 << 30;

/// Places of the fields in a header, and their lengths.
const NAME: (usize, usize) = (0, 100);
const MODE: (usize, usize) = (100, 8);
const SIZE: (usize, usize) = (124, 12);
const TIME: (usize, usize) = (136, 12);
const SUM: (usize, usize) = (148, 8);
const KIND: usize = 156;
const MAGIC: (usize, usize) = (257, 8);
const PREFIX: (usize, usize) = (345, 155);

/// Why a file is not the archive of a run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// It is no such file.
    #[error("it is not an archive of a run: {0}. Wanted: what `tar cf RUN.tar RUN` makes of a run folder")]
    Foreign(String),
    /// The folder, or a name in the archive.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ArchiveError> for Problem {
    fn from(error: ArchiveError) -> Problem {
        match error {
            ArchiveError::Store(error) => error.into(),
            error => Problem::new(error.to_string()),
        }
    }
}

fn foreign(problem: impl Into<String>) -> ArchiveError {
    ArchiveError::Foreign(problem.into())
}

/// All files of a run folder, below a folder of this name.
///
/// # Errors
/// A folder that cannot be read.
pub fn pack(store: &dyn Store, name: &str) -> Result<Vec<u8>, StoreError> {
    let (mut archive, mut paths) = (Vec::new(), Vec::new());
    collect(store, "", 0, &mut paths)?;
    for path in paths {
        let Some(bytes) = store.read(&path)? else { continue };
        archive.extend(header(&format!("{name}/{path}"), bytes.len() as u64)?);
        archive.extend(&bytes);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    Ok(archive)
}

/// The paths of all files below a folder; drafts of a save that was cut short are left out.
fn collect(store: &dyn Store, folder: &str, depth: usize, paths: &mut Vec<String>) -> Result<(), StoreError> {
    for name in store.list(folder)? {
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        let is_draft = path.contains(super::files::DRAFT);
        // A medium may not tell what a name is; only folders have something in them.
        let is_folder = depth < DEEPEST && store.list(&path).is_ok_and(|names| !names.is_empty());
        match is_folder {
            _ if is_draft => {}
            true => collect(store, &path, depth + 1, paths)?,
            false => paths.push(path),
        }
    }
    Ok(())
}

fn header(path: &str, size: u64) -> Result<[u8; BLOCK], StoreError> {
    let mut header = [0; BLOCK];
    // A path that is too long for its field is cut at a slash.
    let cut = if path.len() <= NAME.1 { None } else { path.char_indices().find(|(at, c)| *c == '/' && path.len() - at - 1 <= NAME.1) };
    let (prefix, name) = cut.map_or(("", path), |(at, _)| (&path[..at], &path[at + 1..]));
    if name.len() > NAME.1 || prefix.len() > PREFIX.1 {
        return Err(StoreError::Name { name: path.into(), problem: "it is too long for an archive" });
    }
    put(&mut header, NAME, name.as_bytes());
    put(&mut header, PREFIX, prefix.as_bytes());
    put(&mut header, MODE, b"0000644\0");
    put(&mut header, (108, 8), b"0000000\0");
    put(&mut header, (116, 8), b"0000000\0");
    put(&mut header, SIZE, format!("{size:011o}").as_bytes());
    put(&mut header, TIME, b"00000000000\0");
    header[KIND] = b'0';
    put(&mut header, MAGIC, b"ustar\x0000");
    let sum = sum(&header);
    put(&mut header, SUM, format!("{sum:06o}\0 ").as_bytes());
    Ok(header)
}

fn put(header: &mut [u8; BLOCK], (at, length): (usize, usize), bytes: &[u8]) {
    header[at..][..bytes.len().min(length)].copy_from_slice(&bytes[..bytes.len().min(length)]);
}

/// The sum of all bytes, with blanks in the place of the sum.
fn sum(header: &[u8; BLOCK]) -> u32 {
    let blank = |at: usize| (SUM.0..SUM.0 + SUM.1).contains(&at);
    header.iter().enumerate().map(|(at, byte)| u32::from(if blank(at) { b' ' } else { *byte })).sum()
}

/// Path within its folder, and content, of each file of an archive.
pub struct Files<'a>(Vec<(String, &'a [u8])>);

impl Files<'_> {
    /// Writes them to an empty folder.
    ///
    /// # Errors
    /// A folder that cannot be written.
    pub fn write(&self, store: &mut dyn Store) -> Result<(), StoreError> {
        let wanted: u64 = self.0.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        if let Some(free) = store.free_bytes().filter(|free| *free < wanted) {
            let problem = format!("it needs {wanted} bytes, {free} are free");
            return Err(StoreError::NoSpace { action: "unpack", path: "the run".into(), problem });
        }
        for (path, bytes) in &self.0 {
            store.write(path, bytes)?;
            store.sync(path)?;
        }
        store.sync("")
    }
}

/// The files of an archive, the config last: it is what makes a folder that of a run.
///
/// # Errors
/// A file that is not the archive of a run.
pub fn unpack(archive: &[u8]) -> Result<Files<'_>, ArchiveError> {
    let mut files = read(archive)?;
    let place = files.iter().position(|(path, _)| path == EFFECTIVE_CONFIG);
    let config = files.remove(place.ok_or_else(|| foreign(format!("it has no `{EFFECTIVE_CONFIG}`")))?);
    files.push(config);
    Ok(Files(files))
}

fn read(archive: &[u8]) -> Result<Vec<(String, &[u8])>, ArchiveError> {
    if archive.len() as u64 > MOST_BYTES {
        return Err(foreign(format!("it has {} bytes, at most {MOST_BYTES} are read", archive.len())));
    }
    let (mut rest, mut files, mut seen, mut folder) = (archive, Vec::new(), BTreeSet::new(), None);
    while let Some((header, after)) = rest.split_first_chunk::<BLOCK>() {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        if octal(field(header, SUM)) != Some(u64::from(sum(header))) || !field(header, MAGIC).starts_with(b"ustar") {
            return Err(foreign("a header is damaged, or of another format"));
        }
        let size = octal(field(header, SIZE)).and_then(|size| usize::try_from(size).ok()).filter(|size| *size <= after.len());
        let size = size.ok_or_else(|| foreign("it is cut off"))?;
        let content = &after[..size];
        rest = after.get(size.next_multiple_of(BLOCK)..).unwrap_or_default();
        match header[KIND] {
            b'0' | 0 => {}
            // Folders, and attributes of files that follow.
            b'5' | b'g' | b'x' => continue,
            kind => return Err(foreign(format!("it has an entry of kind `{}`", char::from(kind).escape_default()))),
        }
        let (top, path) = path(header)?;
        if folder.get_or_insert_with(|| top.clone()) != &top {
            return Err(foreign("it has more than one folder"));
        }
        if !seen.insert(path.clone()) || files.len() >= MOST_FILES {
            return Err(foreign(format!("it has `{path}` twice, or more than {MOST_FILES} files")));
        }
        files.push((path, content));
    }
    Ok(files)
}

/// The folder of an entry, and its path within it.
fn path(header: &[u8; BLOCK]) -> Result<(String, String), ArchiveError> {
    let text = |place| {
        let bytes = field(header, place);
        let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..length]).map_err(|_| foreign("a name is not text"))
    };
    // Other writers of the magic use the field for times.
    let prefix = if field(header, MAGIC) == b"ustar\x0000" { text(PREFIX)? } else { "" };
    let name = text(NAME)?;
    let path = if prefix.is_empty() { name.to_string() } else { format!("{prefix}/{name}") };
    let path = path.strip_prefix("./").unwrap_or(&path);
    let (top, below) = path.split_once('/').ok_or_else(|| foreign(format!("`{path}` is not in a folder")))?;
    check_path(path)?;
    if below.is_empty() || below.split('/').count() > DEEPEST {
        return Err(foreign(format!("`{path}` is too deep")));
    }
    Ok((top.into(), below.into()))
}

fn field(header: &[u8; BLOCK], (at, length): (usize, usize)) -> &[u8] {
    &header[at..][..length]
}

/// A number in octal digits, as fields have it, with blanks or zeros around it.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    u64::from_str_radix(text, 8).ok().filter(|_| !text.starts_with('+'))
}
