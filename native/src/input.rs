//! Opening files that a user specifies.
//!
//! Only regular files are opened: a named pipe or a terminal would block, a device such as `/dev/zero` never ends. The size of a
//! file is checked before it is read.

use std::{
    fs::{self, File, FileType, OpenOptions},
    io::{self, ErrorKind, Read},
    path::Path,
};

use crate::print;

/// Maximum characters of a path in a message.
const LONGEST_SHOWN: usize = 200;

/// Opens a regular file for reading.
///
/// # Errors
/// Errors of the system, and [`ErrorKind::InvalidInput`] if it is not a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    // Opening some devices has side effects, so the type is checked before, and again after in case the file was replaced.
    regular(fs::metadata(path)?.file_type())?;
    let file = options().read(true).open(path)?;
    regular(file.metadata()?.file_type())?;
    Ok(file)
}

/// The bytes of a regular file of at most `most` bytes.
///
/// # Errors
/// Those of [`open`], and [`ErrorKind::InvalidInput`] if there are more bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let too_large = |size: String| io::Error::new(ErrorKind::InvalidInput, format!("{size} bytes, expected at most {most}"));
    let size = file.metadata()?.len();
    if size > most {
        return Err(too_large(size.to_string()));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large(format!("more than {most}"))) } else { Ok(bytes) }
}

/// A path for a message, by the rules of [`print`]; long paths are shortened in the middle.
pub fn shown(path: &Path) -> String {
    let text = print::path(path);
    let length = text.chars().count();
    if length <= LONGEST_SHOWN {
        return text;
    }
    let (first, last) = (LONGEST_SHOWN / 4, LONGEST_SHOWN - LONGEST_SHOWN / 4);
    text.chars().take(first).chain("...".chars()).chain(text.chars().skip(length - last)).collect()
}

/// Describes what a path is, if not a regular file.
fn regular(kind: FileType) -> io::Result<()> {
    if kind.is_file() {
        return Ok(());
    }
    let found = if kind.is_dir() { "a folder" } else { special(kind) };
    Err(io::Error::new(ErrorKind::InvalidInput, format!("this is {found}, expected a regular file")))
}

#[cfg(unix)]
fn special(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        _ if kind.is_fifo() => "a named pipe",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_char_device() || kind.is_block_device() => "a device",
        _ => "no file",
    }
}

#[cfg(not(unix))]
fn special(_: FileType) -> &'static str {
    "no file"
}

/// Options with which opening never blocks, even if the path was replaced after the check.
fn options() -> OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "the flag below is a Unix one"))]
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags((rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY).bits().cast_signed());
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_limited_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("five");
        fs::write(&file, b"12345").unwrap();
        assert_eq!(read(&file, 5).unwrap(), b"12345");
        assert_eq!(read(&file, 4).unwrap_err().to_string(), "5 bytes, expected at most 4");
        assert_eq!(read(folder.path(), 4).unwrap_err().to_string(), "this is a folder, expected a regular file");
        assert_eq!(read(&folder.path().join("none"), 4).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn pipes_and_devices_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(read(&pipe, 5).unwrap_err().to_string(), "this is a named pipe, expected a regular file");
        assert_eq!(read(Path::new("/dev/zero"), 5).unwrap_err().to_string(), "this is a device, expected a regular file");
    }

    #[test]
    fn long_paths_are_shortened_in_the_middle() {
        let long = format!("data/{}.txt", "ä".repeat(5000));
        let cut = shown(Path::new(&long));
        assert!(cut.starts_with("data/ä") && cut.ends_with("ä.txt") && cut.chars().count() == LONGEST_SHOWN + 3, "{cut}");
        assert_eq!(shown(Path::new("data/a.txt")), "data/a.txt");
    }
}
