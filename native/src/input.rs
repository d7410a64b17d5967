//! The one way in which files that a user names are opened.
//!
//! Only regular files are: a named pipe or a terminal would block, a device such as `/dev/zero` never ends. How large a file may be
//! is checked before its bytes are read.

use std::{
    fs::{self, File, FileType, OpenOptions},
    io::{self, ErrorKind, Read},
    path::Path,
};

use crate::print;

/// Most characters of a path in a message.
const LONGEST_SHOWN: usize = 200;

/// Opens a regular file for reading.
///
/// # Errors
/// As the system says, and [`ErrorKind::InvalidInput`] if it is anything but a regular file.
pub fn open(path: &Path) -> io::Result<File> {
    // Opening some devices has effects, so what it is is looked at before, and again after in case it was replaced.
    regular(fs::metadata(path)?.file_type())?;
    let file = options().read(true).open(path)?;
    regular(file.metadata()?.file_type())?;
    Ok(file)
}

/// The bytes of a regular file of at most `most` bytes.
///
/// # Errors
/// As [`open`], and [`ErrorKind::InvalidInput`] if there are more bytes.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let too_large = |size: String| io::Error::new(ErrorKind::InvalidInput, format!("{size} bytes, wanted at most {most}"));
    let size = file.metadata()?.len();
    if size > most {
        return Err(too_large(size.to_string()));
    }
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large(format!("more than {most}"))) } else { Ok(bytes) }
}

/// A path for a message, by the rules of [`print`]; of a long one, its beginning and its end.
pub fn shown(path: &Path) -> String {
    let text = print::path(path);
    let length = text.chars().count();
    if length <= LONGEST_SHOWN {
        return text;
    }
    let (first, last) = (LONGEST_SHOWN / 4, LONGEST_SHOWN - LONGEST_SHOWN / 4);
    text.chars().take(first).chain("...".chars()).chain(text.chars().skip(length - last)).collect()
}

/// What a path that is no regular file is.
fn regular(kind: FileType) -> io::Result<()> {
    if kind.is_file() {
        return Ok(());
    }
    let found = if kind.is_dir() { "a folder" } else { special(kind) };
    Err(io::Error::new(ErrorKind::InvalidInput, format!("this is {found}, wanted a regular file")))
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

/// Options under which opening never waits, whatever the path has become since it was looked at.
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
    fn only_regular_files_of_a_stated_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("five");
        fs::write(&file, b"12345").unwrap();
        assert_eq!(read(&file, 5).unwrap(), b"12345");
        assert_eq!(read(&file, 4).unwrap_err().to_string(), "5 bytes, wanted at most 4");
        assert_eq!(read(folder.path(), 4).unwrap_err().to_string(), "this is a folder, wanted a regular file");
        assert_eq!(read(&folder.path().join("none"), 4).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn pipes_and_devices_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert_eq!(read(&pipe, 5).unwrap_err().to_string(), "this is a named pipe, wanted a regular file");
        assert_eq!(read(Path::new("/dev/zero"), 5).unwrap_err().to_string(), "this is a device, wanted a regular file");
    }

    #[test]
    fn long_paths_are_cut_in_the_middle() {
        let long = format!("data/{}.txt", "ä".repeat(5000));
        let cut = shown(Path::new(&long));
        assert!(cut.starts_with("data/ä") && cut.ends_with("ä.txt") && cut.chars().count() == LONGEST_SHOWN + 3, "{cut}");
        assert_eq!(shown(Path::new("data/a.txt")), "data/a.txt");
    }
}
