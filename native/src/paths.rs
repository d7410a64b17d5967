//! Resolves a path, folder or glob pattern to files.
//!
//! Patterns are those of a shell: `*`, `?` and `[...]` within a name, `**` for any number of folders; names that start with a
//! dot only match an explicit dot. `**` follows links to folders, but enters each folder once, so that cyclic links terminate.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::input::{self, shown};
use anyhow::{Context, Result, bail};
use glob::{MatchOptions, Pattern};

/// Why something is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Left {
    /// A file with an unknown extension.
    UnknownKind,
    /// A Parquet file, which this build cannot read.
    Parquet,
    /// A link to a folder, in a folder.
    Link,
    /// Its name starts with a dot, in a folder.
    Hidden,
    /// A named pipe, a device, a socket, or a link to nothing.
    Special,
}

impl Left {
    /// As text, to follow a number.
    pub fn name(self) -> &'static str {
        match self {
            Left::UnknownKind => "of an unknown kind",
            Left::Parquet => "Parquet, which needs a moelab built with `--features parquet`",
            Left::Link => "links to folders",
            Left::Hidden => "hidden",
            Left::Special => "not regular files",
        }
    }
}

/// The files that a path resolves to.
#[derive(Debug, Default)]
pub struct Found {
    /// Files of any kind, in order.
    pub files: Vec<PathBuf>,
    /// Whether they come from a folder, where unreadable files are skipped.
    pub from_folder: bool,
    /// Skipped files.
    pub left: Vec<(PathBuf, Left)>,
}

/// The files that `path` names: one file, those of a folder and of the folders in it, or the matches of a pattern.
///
/// # Errors
/// A folder that cannot be read, an invalid pattern, a named pipe or device.
pub fn find(path: &str) -> Result<Found> {
    let (mut found, named) = (Found::default(), Path::new(path));
    match fs::metadata(named) {
        Ok(data) if data.is_dir() => {
            found.from_folder = true;
            walk(named, &mut found)?;
        }
        // Opened to refuse anything but a regular file.
        Ok(_) => {
            input::open(named)?;
            found.files.push(named.into());
        }
        Err(_) => {
            let names: Vec<Component> = named.components().collect();
            matches(PathBuf::new(), &names, &mut HashSet::new(), &mut found)?;
            found.files.sort();
            found.files.dedup();
        }
    }
    Ok(found)
}

/// The files below a folder by name; links to folders and names that start with a dot are skipped.
fn walk(folder: &Path, found: &mut Found) -> Result<()> {
    for name in names(folder)? {
        let path = folder.join(&name);
        let kind = fs::symlink_metadata(&path).with_context(|| shown(&path))?.file_type();
        if is_hidden(&name) {
            found.left.push((path, Left::Hidden));
        } else if kind.is_dir() {
            walk(&path, found)?;
        } else if path.is_dir() {
            found.left.push((path, Left::Link));
        } else {
            found.take(path);
        }
    }
    Ok(())
}

/// The files below `folder` whose path from there matches `names`. `entered` contains the folders that a `**` has visited.
fn matches(folder: PathBuf, names_left: &[Component], entered: &mut HashSet<(usize, PathBuf)>, found: &mut Found) -> Result<()> {
    let Some((name, rest)) = names_left.split_first() else {
        if !folder.is_dir() && !folder.as_os_str().is_empty() {
            found.take(folder);
        }
        return Ok(());
    };
    let text = match name {
        Component::Normal(text) => text.to_string_lossy(),
        other => return matches(folder.join(other), rest, entered, found),
    };
    if !text.contains(['*', '?', '[']) {
        let next = folder.join(name);
        return if fs::symlink_metadata(&next).is_ok() { matches(next, rest, entered, found) } else { Ok(()) };
    }
    let place = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
    if !place.is_dir() {
        return Ok(());
    }
    if text == "**" {
        let real = fs::canonicalize(place).with_context(|| shown(place))?;
        if !entered.insert((names_left.len(), real)) {
            return Ok(());
        }
        matches(folder.clone(), rest, entered, found)?;
    } else if text.contains("**") {
        bail!("`**` matches whole folders and must be alone between `/`");
    }
    // As in a shell, `*` excludes hidden files.
    let options = MatchOptions { require_literal_leading_dot: true, ..Default::default() };
    let pattern = Pattern::new(&text)?;
    for name in names(place)? {
        let next = folder.join(&name);
        if text == "**" {
            if !is_hidden(&name) && next.is_dir() {
                matches(next, names_left, entered, found)?;
            }
        } else if pattern.matches_with(&name.to_string_lossy(), options) {
            matches(next, rest, entered, found)?;
        }
    }
    Ok(())
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Result<Vec<OsString>> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>).with_context(|| shown(folder))?;
    let mut names: Vec<_> = entries.into_iter().map(|entry| entry.file_name()).collect();
    names.sort();
    Ok(names)
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

impl Found {
    fn take(&mut self, path: PathBuf) {
        if path.is_file() { self.files.push(path) } else { self.left.push((path, Left::Special)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"text").unwrap();
        }
        folder
    }

    fn found(folder: &tempfile::TempDir, pattern: &str) -> Vec<String> {
        let files = find(&folder.path().join(pattern).display().to_string()).unwrap().files;
        files.iter().map(|file| file.strip_prefix(folder.path()).unwrap().display().to_string()).collect()
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        let folder = folder(&["b.txt", "a.txt", ".c.txt", "d/e.txt", "d/f/g.txt", ".h/i.txt", "x[1].txt"]);
        assert_eq!(found(&folder, "*.txt"), ["a.txt", "b.txt", "x[1].txt"]);
        assert_eq!(found(&folder, "[ab].txt"), ["a.txt", "b.txt"]);
        assert_eq!(found(&folder, "?.txt"), ["a.txt", "b.txt"]);
        assert_eq!(found(&folder, ".*.txt"), [".c.txt"]);
        assert_eq!(found(&folder, "*/e.txt"), ["d/e.txt"]);
        assert_eq!(found(&folder, "**/*.txt"), ["a.txt", "b.txt", "d/e.txt", "d/f/g.txt", "x[1].txt"]);
        assert_eq!(found(&folder, "d/../*/**/g.txt"), ["d/../d/f/g.txt"]);
        assert_eq!(found(&folder, "x[1].txt"), ["x[1].txt"], "a file of that name is not a pattern");
        assert_eq!(found(&folder, "x[[]1].txt"), ["x[1].txt"]);
        assert_eq!(found(&folder, "a.txt/*"), [""; 0]);
        let message = find(&folder.path().join("d/**g.txt").display().to_string()).unwrap_err().to_string();
        assert!(message.contains("`**` matches whole folders"), "{message}");
        assert!(find("").unwrap().files.is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn cyclic_links_terminate() {
        use std::os::unix::fs::symlink;
        let folder = folder(&["d/a.txt"]);
        for link in ["d/one", "d/two", "three"] {
            symlink(folder.path(), folder.path().join(link)).unwrap();
        }
        symlink("nowhere", folder.path().join("d/gone.txt")).unwrap();
        assert_eq!(found(&folder, "**/a.txt"), ["d/a.txt"]);
        assert_eq!(found(&folder, "three/d/*.txt"), ["three/d/a.txt"], "an explicit link is followed");
        let Found { files, from_folder, left } = find(&folder.path().display().to_string()).unwrap();
        assert_eq!((files.len(), from_folder), (1, true));
        let reasons: Vec<_> = left.iter().map(|(_, reason)| *reason).collect();
        assert_eq!(reasons, [Left::Special, Left::Link, Left::Link, Left::Link]);
    }
}
