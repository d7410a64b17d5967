//! Documents from text files, folders, glob patterns, JSON lines and, with the feature `parquet`, Parquet; one at a time.
//!
//! The extension of a file, in any case, determines its format ([`KINDS`]). A file with another extension is refused, or read as
//! `data.unknown_files` states; in a folder it is skipped. [`Documents::notes`] lists what was read and skipped. Only regular files
//! are read, each once, even if several paths and links lead to it.
//!
//! Files are read line by line, so memory holds at most one document: a line has at most [`MAX_LINE`] bytes, a document at most
//! [`MAX_DOCUMENT`]. `\r\n` becomes `\n` and a byte-order mark is dropped. Invalid UTF-8, unpaired surrogates in JSON, and NULs (with
//! which the byte tokenizer ends documents) are refused with file, line and field, or replaced by U+FFFD. Documents without a
//! visible character are skipped.
//!
//! Long because it includes the tests of every file format.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::{
    input::{self, shown},
    json_rows,
    paths::{Found, Left, find},
};
use anyhow::{Context, Result, bail, ensure};
use moelab::{
    data::documents::{Limits, Separator, Splitter},
    run::config::{Data, Invalid, UnknownFiles},
};

/// Maximum bytes of a line: 16 MB.
pub const MAX_LINE: usize = 16_000_000;
/// Maximum bytes of a document: 256 MB.
pub const MAX_DOCUMENT: usize = 256_000_000;

const BOM: &[u8] = b"\xef\xbb\xbf";
const UTF_16: [&[u8]; 2] = [b"\xff\xfe", b"\xfe\xff"];

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileKind {
    /// Text, split into documents by `data.separator`.
    Text,
    /// One document per line, in the field `text` of an object.
    JsonLines,
    /// One document per row, in the column `text`.
    Parquet,
}

/// Lower-case extensions and their formats.
const KINDS: [(&str, FileKind); 7] = [
    ("txt", FileKind::Text),
    ("text", FileKind::Text),
    ("md", FileKind::Text),
    ("markdown", FileKind::Text),
    ("jsonl", FileKind::JsonLines),
    ("ndjson", FileKind::JsonLines),
    ("parquet", FileKind::Parquet),
];

impl FileKind {
    /// The format according to a file's name.
    fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        KINDS.iter().find(|(known, _)| *known == ending).map(|(_, kind)| *kind)
    }

    fn name(self) -> &'static str {
        match self {
            FileKind::Text => "text",
            FileKind::JsonLines => "JSON lines",
            FileKind::Parquet => "Parquet",
        }
    }

    /// All extensions, for messages.
    fn endings() -> String {
        let of = |kind| KINDS.iter().filter(|(_, other)| *other == kind).map(|(ending, _)| format!(".{ending}")).collect::<Vec<_>>();
        let kinds = [FileKind::Text, FileKind::JsonLines, FileKind::Parquet];
        kinds.map(|kind| format!("{} ({})", of(kind).join(" "), kind.name())).join(", ")
    }
}

/// The documents of some files, read from disk each time.
pub struct Documents {
    files: Vec<(PathBuf, FileKind)>,
    separator: Separator,
    invalid: Invalid,
    data: Data,
    notes: Vec<String>,
    replaced: Cell<u64>,
}

impl Documents {
    /// The files, in order.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// Finds the files of `data.paths` relative to the working directory. Fails if a path matches no file, or a file of an unknown kind.
    pub fn find(data: &Data) -> Result<Self> {
        let (mut files, mut unknown, mut notes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut seen, mut repeated) = (HashSet::new(), 0);
        for path in &data.paths {
            let named = || format!("data.paths: {}", shown(Path::new(path)));
            let Found { files: found, from_folder, mut left } = find(path).with_context(named)?;
            let mut matched = 0;
            for file in found {
                matched += 1;
                let kind = FileKind::of(&file).or(match data.unknown_files {
                    UnknownFiles::Text if !from_folder => Some(FileKind::Text),
                    UnknownFiles::JsonLines if !from_folder => Some(FileKind::JsonLines),
                    _ => None,
                });
                let reason = match kind {
                    None => Some(Left::UnknownKind),
                    Some(FileKind::Parquet) if cfg!(not(feature = "parquet")) => Some(Left::Parquet),
                    Some(_) => None,
                };
                let real = fs::canonicalize(&file).with_context(|| shown(&file))?;
                match (kind, reason) {
                    (_, Some(reason)) if from_folder => {
                        matched -= 1;
                        left.push((file, reason));
                    }
                    _ if !seen.insert(real) => repeated += 1,
                    (Some(kind), _) => files.push((file, kind)),
                    (None, _) => unknown.push(file),
                }
            }
            if matched == 0 {
                let brackets = "; [...] matches one of the characters between the brackets, write [[] for [ itself";
                bail!(
                    "{}: no file to read{}; expected {}{}{}",
                    named(),
                    below(Path::new(path)),
                    FileKind::endings(),
                    if left.is_empty() { String::new() } else { format!("; skipped: {}", listed(&left)) },
                    if path.contains('[') { brackets } else { "" },
                );
            }
            if !left.is_empty() {
                notes.push(format!("{}: skipped {}", named(), listed(&left)));
            }
        }
        ensure!(unknown.is_empty(), "{}", refusal(&unknown));
        if repeated > 0 {
            notes.push(format!("data.paths: {repeated} paths lead to files that were listed before: each file is read once"));
        }
        let separator = Separator::of(data, files.len());
        notes.insert(0, taken(&files, &separator));
        if !data.separator.is_empty() && files.iter().all(|(_, kind)| *kind != FileKind::Text) {
            notes.push("data.separator has no effect: no file is text".into());
        }
        Ok(Self { files, separator, invalid: data.invalid, data: data.clone(), notes, replaced: Cell::new(0) })
    }

    /// What was read, skipped, and replaced when the documents were last read.
    pub fn notes(&self) -> impl Iterator<Item = Cow<'_, str>> {
        let replaced = self.replaced.get();
        let replaced = (replaced > 0).then(|| format!("data.invalid: U+FFFD replaces invalid text in {replaced} lines or rows"));
        self.notes.iter().map(|note| Cow::Borrowed(note.as_str())).chain(replaced.map(Cow::Owned))
    }

    /// Passes each document to `take`, in the order of the paths and, within one path, of the file names, until it returns `false`.
    pub fn each(&self, mut take: impl FnMut(&str) -> Result<bool>) -> Result<()> {
        self.replaced.set(0);
        let mut limits = Limits::of(&self.data);
        let mut take_one = |text: &str| limits.pass(text, &mut take);
        for (file, kind) in &self.files {
            let more = match kind {
                FileKind::Parquet => self.each_parquet_row(file, &mut take_one)?,
                FileKind::JsonLines => self.each_row(file, &mut take_one)?,
                FileKind::Text => self.each_part(file, &mut take_one)?,
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn each_part(&self, file: &Path, take: &mut dyn FnMut(&str) -> Result<bool>) -> Result<bool> {
        let mut lines = Lines::open(file)?;
        let mut splitter = Splitter::new(&self.separator);
        while let Some(line) = lines.next()? {
            let line = self.valid(line, &|| lines.place())?;
            if let Some(document) = splitter.line(&line)
                && !take(&document)?
            {
                return Ok(false);
            }
            if splitter.bytes() > MAX_DOCUMENT {
                bail!("{}: the document has more than {MAX_DOCUMENT} bytes: split it (data.separator)", lines.place());
            }
        }
        take(&splitter.rest())
    }

    fn each_row(&self, file: &Path, take: &mut dyn FnMut(&str) -> Result<bool>) -> Result<bool> {
        let mut lines = Lines::open(file)?;
        while let Some(line) = lines.next()? {
            let line = self.valid(line, &|| lines.place())?;
            if line.trim().is_empty() {
                continue;
            }
            let row = json_rows::text(&line, self.invalid, &lines.place())?;
            self.replaced.set(self.replaced.get() + u64::from(row.replaced));
            let text = self.without_nul(row.text.replace("\r\n", "\n"), &|| format!("{}: field `text`", lines.place()))?;
            if !take(&text)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    #[cfg(feature = "parquet")]
    fn each_parquet_row(&self, file: &Path, take: &mut dyn FnMut(&str) -> Result<bool>) -> Result<bool> {
        crate::parquet_rows::each(file, &mut |text, place| take(&self.without_nul(text.replace("\r\n", "\n"), place)?))
    }

    #[cfg(not(feature = "parquet"))]
    fn each_parquet_row(&self, file: &Path, _: &mut dyn FnMut(&str) -> Result<bool>) -> Result<bool> {
        bail!("{}: this build cannot read Parquet: build it with `--features parquet`, or convert the file to JSON lines", shown(file));
    }

    /// A line as text.
    fn valid(&self, line: Vec<u8>, place: &dyn Fn() -> String) -> Result<String> {
        let text = match (String::from_utf8(line), self.invalid) {
            (Ok(text), _) => text,
            (Err(error), Invalid::Replace) => {
                self.replaced.set(self.replaced.get() + 1);
                String::from_utf8_lossy(error.as_bytes()).into_owned()
            }
            (Err(error), Invalid::Refuse) => {
                let at = error.utf8_error().valid_up_to();
                bail!("{}: byte {at} of the line is not UTF-8: convert the file, or set data.invalid = \"replace\"", place());
            }
        };
        self.without_nul(text, place)
    }

    fn without_nul(&self, text: String, place: &dyn Fn() -> String) -> Result<String> {
        match (text.find('\0'), self.invalid) {
            (None, _) => Ok(text),
            (Some(_), Invalid::Replace) => {
                self.replaced.set(self.replaced.get() + 1);
                Ok(text.replace('\0', "\u{fffd}"))
            }
            (Some(at), Invalid::Refuse) => {
                bail!("{}: byte {at} is a NUL: is this text? If so, set data.invalid = \"replace\"", place());
            }
        }
    }
}

/// What is read, and in which format.
fn taken(files: &[(PathBuf, FileKind)], separator: &Separator) -> String {
    let parted = match separator {
        Separator::Nothing => "one document per file".to_string(),
        Separator::BlankLines => "documents separated by blank lines".into(),
        Separator::Line(line) => format!("documents separated by lines {line:?}"),
    };
    let how = |kind| match kind {
        FileKind::Text => format!("as text, {parted}"),
        FileKind::JsonLines => "as JSON lines, one document per line".into(),
        FileKind::Parquet => "as Parquet, one document per row".into(),
    };
    if let [(file, kind)] = files {
        return format!("data: {} is read {}", shown(file), how(*kind));
    }
    let mut count_of = BTreeMap::new();
    files.iter().for_each(|(_, kind)| *count_of.entry(*kind).or_insert(0) += 1);
    let parts: Vec<_> = count_of.into_iter().map(|(kind, count)| format!("{count} {}", how(kind))).collect();
    format!("data: {} files are read: {}", files.len(), parts.join("; "))
}

/// Skipped files, by reason.
fn listed(left: &[(PathBuf, Left)]) -> String {
    let mut by_reason: BTreeMap<Left, Vec<&Path>> = BTreeMap::new();
    left.iter().for_each(|(path, reason)| by_reason.entry(*reason).or_default().push(path));
    let parts = by_reason.into_iter().map(|(reason, paths)| format!("{} {} ({})", paths.len(), reason.name(), first(&paths)));
    parts.collect::<Vec<_>>().join(", ")
}

/// The first of some paths.
fn first(paths: &[impl AsRef<Path>]) -> String {
    const SHOWN: usize = 3;
    let names: Vec<_> = paths.iter().take(SHOWN).map(|path| shown(path.as_ref())).collect();
    let rest = paths.len() - names.len();
    if rest == 0 { names.join(", ") } else { format!("{}, and {rest} more", names.join(", ")) }
}

/// Why files of an unknown kind are not read, and what to do about them.
fn refusal(unknown: &[PathBuf]) -> String {
    let has = |endings: &[&str]| {
        let ending = |path: &PathBuf| path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
        unknown.iter().filter_map(ending).any(|ending| endings.contains(&ending.as_str()))
    };
    let mut advice = vec!["rename them, or state their format with data.unknown_files = \"text\" or \"jsonl\""];
    if has(&["gz", "zst", "xz", "bz2", "zip"]) {
        advice.push("compressed files are not read, decompress them first");
    }
    if has(&["json"]) {
        advice.push("a .json that holds one list is not read, write an object a line");
    }
    let (count, plural) = (unknown.len(), if unknown.len() == 1 { "file" } else { "files" });
    format!("data.paths: {count} {plural} of an unknown kind ({}); expected {}: {}", first(unknown), FileKind::endings(), advice.join("; "))
}

/// The folder in which a relative path was searched.
fn below(path: &Path) -> String {
    match std::env::current_dir() {
        Ok(folder) if path.is_relative() => format!(" below {}", shown(&folder)),
        _ => String::new(),
    }
}

/// The lines of one file.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    number: usize,
}

impl Lines {
    fn open(path: &Path) -> Result<Self> {
        let file = input::open(path).with_context(|| shown(path))?;
        Ok(Self { path: path.into(), reader: BufReader::with_capacity(1 << 16, file), number: 0 })
    }

    /// File and line, for messages.
    fn place(&self) -> String {
        format!("{}:{}", shown(&self.path), self.number)
    }

    /// The next line without its line ending.
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        self.number += 1;
        let limit = MAX_LINE as u64 + 2;
        self.reader.by_ref().take(limit).read_until(b'\n', &mut bytes).with_context(|| self.place())?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.ends_with(b"\n") {
            bytes.pop();
        }
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
        ensure!(bytes.len() <= MAX_LINE, "{}: the line has more than {MAX_LINE} bytes", self.place());
        if self.number == 1 {
            // Every other byte of its text may be a NUL, so nothing can be replaced.
            ensure!(!UTF_16.iter().any(|mark| bytes.starts_with(mark)), "{}: this is UTF-16, convert it to UTF-8", self.place());
            if bytes.starts_with(BOM) {
                bytes.drain(..BOM.len());
            }
        }
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn with(files: &[(&str, &[u8])]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (name, bytes) in files {
                let path = folder.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            Self(folder)
        }

        fn data(&self, path: &str) -> Data {
            Data { paths: vec![self.0.path().join(path).display().to_string()], ..Data::default() }
        }
    }

    fn read(data: &Data) -> Result<Vec<String>> {
        let mut documents = Vec::new();
        Documents::find(data)?.each(|text| {
            documents.push(text.to_owned());
            Ok(true)
        })?;
        Ok(documents)
    }

    fn message(data: &Data, folder: &Folder) -> String {
        let message = format!("{:#}", read(data).unwrap_err());
        message.replace(&format!("{}/", folder.0.path().display()), "")
    }

    fn notes(data: &Data, folder: &Folder) -> String {
        let notes: Vec<_> = Documents::find(data).unwrap().notes().map(String::from).collect();
        notes.join("\n").replace(&format!("{}/", folder.0.path().display()), "")
    }

    #[test]
    fn a_folder_is_read_by_file_name_and_skipped_files_are_reported() {
        let folder =
            Folder::with(&[("b.txt", b"two\n\nmore"), ("a.MD", b"one\n"), ("c/d.txt", b"three"), ("e.bin", b"no"), (".f.txt", b"no")]);
        assert_eq!(read(&folder.data("")).unwrap(), ["one", "two\n\nmore", "three"]);
        assert_eq!(
            notes(&folder.data(""), &folder),
            "data: 3 files are read: 3 as text, one document per file\n\
             data.paths: : skipped 1 of an unknown kind (e.bin), 1 hidden (.f.txt)"
        );
        assert_eq!(read(&folder.data("*.txt")).unwrap(), ["two", "more"]);
        let message = message(&folder.data("*.csv"), &folder);
        assert!(message.starts_with("data.paths: *.csv: no file to read; expected .txt .text .md .markdown (text), .jsonl"), "{message}");
    }

    /// The same rows with every spelling of the extension have the same documents.
    #[test]
    fn the_extension_in_any_case_determines_the_format() {
        let rows = b"{\"text\": \"one\"}\n{\"text\": \"two\"}\n";
        let folder = Folder::with(&["a.jsonl", "b.JSONL", "c.ndjson", "d.NdJson"].map(|name| (name, &rows[..])));
        for name in ["a.jsonl", "b.JSONL", "c.ndjson", "d.NdJson", "[d-z].*"] {
            assert_eq!(read(&folder.data(name)).unwrap(), ["one", "two"], "{name}");
        }
        assert_eq!(read(&folder.data("")).unwrap().len(), 8);
        assert_eq!(notes(&folder.data("c.ndjson"), &folder), "data: c.ndjson is read as JSON lines, one document per line");
        let separated = Data { separator: "file".into(), ..folder.data("c.ndjson") };
        assert!(notes(&separated, &folder).ends_with("data.separator has no effect: no file is text"));
    }

    #[test]
    fn unknown_files_are_refused_unless_their_format_is_set() {
        let folder = Folder::with(&[("e.bin", b"{\"text\": \"yes\"}"), ("none", b"yes"), ("f.txt.gz", b""), ("g.json", b"[]")]);
        assert_eq!(
            message(&folder.data("e.bin"), &folder),
            "data.paths: 1 file of an unknown kind (e.bin); expected .txt .text .md .markdown (text), .jsonl .ndjson (JSON lines), \
             .parquet (Parquet): rename them, or state their format with data.unknown_files = \"text\" or \"jsonl\""
        );
        let all = message(&folder.data("*"), &folder);
        assert!(all.contains("4 files") && all.contains("decompress") && all.contains("one list is not read"), "{all}");
        let as_said = |unknown_files, name| read(&Data { unknown_files, ..folder.data(name) }).unwrap();
        assert_eq!(as_said(UnknownFiles::Text, "none"), ["yes"]);
        assert_eq!(as_said(UnknownFiles::JsonLines, "e.bin"), ["yes"]);
        assert!(message(&folder.data(""), &folder).contains("skipped: 4 of an unknown kind"), "nothing in the folder can be read");
    }

    #[test]
    fn each_file_is_read_once() {
        let folder = Folder::with(&[("a.txt", b"one"), ("b.txt", b"two")]);
        let paths = ["a.txt", "*.txt", ""].map(|path| folder.data(path).paths.remove(0)).to_vec();
        let data = Data { paths, ..Data::default() };
        assert_eq!(read(&data).unwrap(), ["one", "two"]);
        assert!(notes(&data, &folder).ends_with("3 paths lead to files that were listed before: each file is read once"));
    }

    #[test]
    fn brackets_that_match_nothing_are_explained() {
        let folder = Folder::with(&[("set[1]/a.txt", b"one")]);
        assert!(message(&folder.data("set[1]/*.txt"), &folder).ends_with("write [[] for [ itself"));
        assert_eq!(read(&folder.data("set[[]1[]]/*.txt")).unwrap(), ["one"]);
    }

    #[cfg(unix)]
    #[test]
    fn pipes_are_refused_or_skipped() {
        let folder = Folder::with(&[("a.txt", b"one")]);
        assert!(std::process::Command::new("mkfifo").arg(folder.0.path().join("p.txt")).status().unwrap().success());
        assert!(message(&folder.data("p.txt"), &folder).contains("this is a named pipe, expected a regular file"));
        for path in ["", "*"] {
            assert_eq!(read(&folder.data(path)).unwrap(), ["one"]);
            assert!(
                notes(&folder.data(path), &folder).contains("skipped 1 not regular files (p.txt)"),
                "{}",
                notes(&folder.data(path), &folder)
            );
        }
    }

    #[test]
    fn one_file_is_split() {
        let folder = Folder::with(&[("a.txt", b"\xef\xbb\xbfone\r\nline\r\n \r\n\r\ntwo\n<|endoftext|>\nthree"), ("none.txt", b"\n \n")]);
        let with = |separator: &str| read(&Data { separator: separator.into(), ..folder.data("a.txt") }).unwrap();
        assert_eq!(with(""), ["one\nline", "two\n<|endoftext|>\nthree"]);
        assert_eq!(with("blank lines"), with(""));
        assert_eq!(with("<|endoftext|>"), ["one\nline\n \n\ntwo", "three"]);
        assert_eq!(with("file"), ["one\nline\n \n\ntwo\n<|endoftext|>\nthree"]);
        assert_eq!(read(&folder.data("none.txt")).unwrap(), [""; 0]);
    }

    #[test]
    fn rows_of_json_are_documents() {
        let folder = Folder::with(&[
            ("a.jsonl", b"{\"text\": \"one\\r\\ntwo\", \"id\": 3}\n\n{\"text\": \"three\"}"),
            ("bad.jsonl", b"{\"text\": \"one\"}\n{\"body\": \"two\"}\n"),
            ("nul.jsonl", b"{\"text\": \"a\\u0000b\"}\n"),
        ]);
        assert_eq!(read(&folder.data("a.jsonl")).unwrap(), ["one\ntwo", "three"]);
        assert_eq!(
            message(&folder.data("bad.jsonl"), &folder),
            "bad.jsonl:2:15: missing field `text`; expected one object per line with a field `text`"
        );
        assert!(message(&folder.data("nul.jsonl"), &folder).starts_with("nul.jsonl:1: field `text`: byte 1 is a NUL"));
    }

    #[cfg(feature = "parquet")]
    #[test]
    fn rows_of_parquet_are_documents() {
        use parquet::{data_type::ByteArrayType, file::writer::SerializedFileWriter, schema::parser::parse_message_type};
        let folder = Folder::with(&[("no.parquet", b"PAR1 and nothing else PAR1")]);
        let write = |name: &str, column: &str, rows: &[&str]| {
            let schema = format!("message rows {{ required int64 id; required binary {column} (UTF8); }}");
            let file = File::create(folder.0.path().join(name)).unwrap();
            let mut file = SerializedFileWriter::new(file, parse_message_type(&schema).unwrap().into(), Default::default()).unwrap();
            let mut group = file.next_row_group().unwrap();
            let ids: Vec<i64> = (0..rows.len() as i64).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<parquet::data_type::Int64Type>().write_batch(&ids, None, None).unwrap();
            column.close().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            let texts: Vec<_> = rows.iter().map(|row| (*row).into()).collect();
            column.typed::<ByteArrayType>().write_batch(&texts, None, None).unwrap();
            column.close().unwrap();
            group.close().unwrap();
            file.close().unwrap();
        };
        write("a.parquet", "text", &["one\r\ntwo", " \n", "three"]);
        write("b.parquet", "body", &["one"]);
        write("nul.parquet", "text", &["fine", "a\0b"]);
        assert_eq!(read(&folder.data("a.parquet")).unwrap(), ["one\ntwo", "three"]);
        assert_eq!(
            message(&folder.data("b.parquet"), &folder),
            "b.parquet: expected a column `text` of strings, found the columns id, body"
        );
        assert!(message(&folder.data("nul.parquet"), &folder).starts_with("nul.parquet: row 2: byte 1 is a NUL"));
        assert!(message(&folder.data("no.parquet"), &folder).starts_with("no.parquet: "));
    }

    #[cfg(not(feature = "parquet"))]
    #[test]
    fn parquet_needs_its_feature() {
        let folder = Folder::with(&[("a.parquet", b"PAR1")]);
        assert!(message(&folder.data("a.parquet"), &folder).contains("--features parquet"));
    }

    #[test]
    fn limits_cut() {
        let folder = Folder::with(&[("a.txt", "äbc\n\ndef\n\nghi".as_bytes())]);
        let cut = Data { max_documents: 2, max_document_characters: 2, ..folder.data("a.txt") };
        assert_eq!(read(&cut).unwrap(), ["äb", "de"]);
    }

    #[test]
    fn invalid_text_is_refused_or_replaced() {
        let folder = Folder::with(&[("a.txt", b"fine\nb\xffd"), ("nul.txt", b"a\0b")]);
        assert_eq!(
            message(&folder.data("a.txt"), &folder),
            "a.txt:2: byte 1 of the line is not UTF-8: convert the file, or set data.invalid = \"replace\""
        );
        assert!(message(&folder.data("nul.txt"), &folder).starts_with("nul.txt:1: byte 1 is a NUL"));
        let replacing = |name| Data { invalid: Invalid::Replace, ..folder.data(name) };
        let replaced = |name| read(&replacing(name)).unwrap();
        assert_eq!(replaced("a.txt"), ["fine\nb\u{fffd}d"]);
        assert_eq!(replaced("nul.txt"), ["a\u{fffd}b"]);
        let documents = Documents::find(&replacing("a.txt")).unwrap();
        documents.each(|_| Ok(true)).unwrap();
        assert_eq!(documents.notes().last().unwrap(), "data.invalid: U+FFFD replaces invalid text in 1 lines or rows");
        let wide = Folder::with(&[("a.txt", b"\xff\xfea\0b\0")]);
        assert_eq!(
            message(&Data { invalid: Invalid::Replace, ..wide.data("a.txt") }, &wide),
            "a.txt:1: this is UTF-16, convert it to UTF-8"
        );
    }

    #[test]
    fn long_lines_are_refused() {
        let folder = Folder::with(&[
            ("a.txt", &[&b"ok\n"[..], &vec![b'x'; MAX_LINE + 1]].concat()),
            ("b.txt", &[&vec![b'x'; MAX_LINE][..], b"\r\n"].concat()),
        ]);
        assert_eq!(message(&folder.data("a.txt"), &folder), "a.txt:2: the line has more than 16000000 bytes");
        assert_eq!(read(&folder.data("b.txt")).unwrap()[0].len(), MAX_LINE);
    }
}
