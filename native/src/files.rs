//! Documents from text files, folders, glob patterns, JSONL and, with the feature `parquet`, Parquet; one at a time.
//!
//! Every file is read line by line, so no more than one document is held: a line has at most [`MAX_LINE`] bytes, a document at
//! most [`MAX_DOCUMENT`]. `\r\n` becomes `\n` and a byte-order mark is dropped. Bytes that are no UTF-8, and NULs (the byte
//! tokenizer ends documents with them), are refused with file and line, or replaced by U+FFFD. Documents without a visible
//! character are skipped.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use moelab::train::config::{Data, Invalid};
use moelab_native::print;
use serde::Deserialize;

/// Most bytes of a line: 16 MB.
pub const MAX_LINE: usize = 16_000_000;
/// Most bytes of a document: 256 MB.
pub const MAX_DOCUMENT: usize = 256_000_000;

/// Files that are taken from a folder; one that is named is always taken.
#[cfg(not(feature = "parquet"))]
const TEXT: &[&str] = &["txt", "text", "md", "jsonl"];
#[cfg(feature = "parquet")]
const TEXT: &[&str] = &["txt", "text", "md", "jsonl", "parquet"];
const BOM: &[u8] = b"\xef\xbb\xbf";

/// What parts the documents of a text file.
#[derive(Clone, Debug, PartialEq)]
enum Separator {
    Nothing,
    BlankLines,
    Line(String),
}

/// The documents of some files, read anew each time.
pub struct Documents {
    files: Vec<PathBuf>,
    separator: Separator,
    invalid: Invalid,
    most: usize,
    most_characters: usize,
}

/// One line of a JSONL file; other fields are ignored.
#[derive(Deserialize)]
struct Row {
    text: String,
}

impl Documents {
    /// Finds the files of `data.paths` below the current folder. An error if a path matches none.
    pub fn find(data: &Data) -> Result<Self> {
        let mut files = Vec::new();
        for path in &data.paths {
            let before = files.len();
            expand(path, &mut files).with_context(|| format!("data.paths: {path}"))?;
            ensure!(files.len() > before, "data.paths: {path} matches no text file (a folder gives its .{})", TEXT.join(", ."));
        }
        let separator = match data.separator.as_str() {
            "" if files.len() > 1 => Separator::Nothing,
            "file" => Separator::Nothing,
            "" | "blank lines" => Separator::BlankLines,
            line => Separator::Line(line.into()),
        };
        let unlimited = |limit: u32| if limit == 0 { usize::MAX } else { limit as usize };
        let (most, most_characters) = (unlimited(data.max_documents), unlimited(data.max_document_characters));
        Ok(Self { files, separator, invalid: data.invalid, most, most_characters })
    }

    /// Gives each document to `take`, in the order of the paths and, within one path, of the file names, until it returns `false`.
    pub fn each(&self, mut take: impl FnMut(&str) -> Result<bool>) -> Result<()> {
        let mut left = self.most;
        let mut take_one = |text: &str| -> Result<bool> {
            let text = text.trim_matches('\n');
            if text.trim().is_empty() {
                return Ok(true);
            }
            let end = text.char_indices().nth(self.most_characters).map_or(text.len(), |(end, _)| end);
            left -= 1;
            Ok(take(&text[..end])? && left > 0)
        };
        for file in &self.files {
            let extension = file.extension().and_then(|extension| extension.to_str());
            let more = match extension {
                Some("parquet") => each_parquet_row(file, self.invalid, &mut take_one)?,
                Some("jsonl") => each_row(Lines::open(file, self.invalid)?, &mut take_one)?,
                _ => self.each_part(Lines::open(file, self.invalid)?, &mut take_one)?,
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn each_part(&self, mut lines: Lines, take: &mut dyn FnMut(&str) -> Result<bool>) -> Result<bool> {
        let mut document = String::new();
        while let Some(line) = lines.next()? {
            let separates = match &self.separator {
                Separator::Nothing => false,
                Separator::BlankLines => line.trim().is_empty(),
                Separator::Line(separator) => line.trim() == separator,
            };
            if separates {
                if !take(&document)? {
                    return Ok(false);
                }
                document.clear();
            } else {
                document += &line;
                document.push('\n');
            }
            if document.len() > MAX_DOCUMENT {
                bail!("{}: the document has more than {MAX_DOCUMENT} bytes: part it (data.separator)", lines.place());
            }
        }
        take(&document)
    }
}

#[cfg(feature = "parquet")]
fn each_parquet_row(file: &Path, invalid: Invalid, take: &mut dyn FnMut(&str) -> Result<bool>) -> Result<bool> {
    crate::parquet_rows::each(file, &mut |text, place| take(&without_nul(text.replace("\r\n", "\n"), invalid, place)?))
}

#[cfg(not(feature = "parquet"))]
fn each_parquet_row(file: &Path, _: Invalid, _: &mut dyn FnMut(&str) -> Result<bool>) -> Result<bool> {
    bail!("{}: this moelab reads no Parquet: build it with `--features parquet`, or convert the file to JSONL", print::path(file));
}

fn each_row(mut lines: Lines, take: &mut dyn FnMut(&str) -> Result<bool>) -> Result<bool> {
    while let Some(line) = lines.next()? {
        if line.trim().is_empty() {
            continue;
        }
        let row: Row = serde_json::from_str(&line)
            .map_err(|error| anyhow!("{}: {error}; wanted one object a line with a field `text`", lines.place()))?;
        let text = lines.without_nul(row.text.replace("\r\n", "\n"))?;
        if !take(&text)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Appends the files that `path` names: one file, those of a folder and of the folders in it, or the matches of a pattern.
fn expand(path: &str, files: &mut Vec<PathBuf>) -> Result<()> {
    if Path::new(path).is_file() {
        files.push(path.into());
    } else if Path::new(path).is_dir() {
        walk(Path::new(path), files)?;
    } else {
        // As a shell does: `*` leaves hidden files out.
        let options = glob::MatchOptions { require_literal_leading_dot: true, ..Default::default() };
        let mut matches = glob::glob_with(path, options)?.collect::<Result<Vec<_>, _>>()?;
        matches.sort();
        files.extend(matches.into_iter().filter(|path| path.is_file()));
    }
    Ok(())
}

/// Text files below a folder by name; links to folders and what starts with a dot are left out.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        if name.to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type()?.is_dir() {
            walk(&path, files)?;
        } else if path.is_file() && path.extension().is_some_and(|extension| TEXT.iter().any(|text| extension == *text)) {
            files.push(path);
        }
    }
    Ok(())
}

/// The lines of one file.
struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    number: usize,
    invalid: Invalid,
}

impl Lines {
    fn open(path: &Path, invalid: Invalid) -> Result<Self> {
        let file = File::open(path).with_context(|| print::path(path))?;
        Ok(Self { path: path.into(), reader: BufReader::with_capacity(1 << 16, file), number: 0, invalid })
    }

    /// File and line, for messages.
    fn place(&self) -> String {
        format!("{}:{}", print::path(&self.path), self.number)
    }

    /// The next line without its end.
    fn next(&mut self) -> Result<Option<String>> {
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
        if self.number == 1 && bytes.starts_with(BOM) {
            bytes.drain(..BOM.len());
        }
        let text = match (String::from_utf8(bytes), self.invalid) {
            (Ok(text), _) => text,
            (Err(error), Invalid::Replace) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
            (Err(error), Invalid::Refuse) => {
                let at = error.utf8_error().valid_up_to();
                bail!("{}: byte {at} of the line is no UTF-8: convert the file, or set data.invalid = \"replace\"", self.place());
            }
        };
        self.without_nul(text).map(Some)
    }

    fn without_nul(&self, text: String) -> Result<String> {
        without_nul(text, self.invalid, &|| self.place())
    }
}

fn without_nul(text: String, invalid: Invalid, place: &dyn Fn() -> String) -> Result<String> {
    match (text.find('\0'), invalid) {
        (None, _) => Ok(text),
        (Some(_), Invalid::Replace) => Ok(text.replace('\0', "\u{fffd}")),
        (Some(at), Invalid::Refuse) => {
            bail!("{}: byte {at} is a NUL: is this text? If so, set data.invalid = \"replace\"", place());
        }
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

    fn told(data: &Data, folder: &Folder) -> String {
        let told = format!("{:#}", read(data).unwrap_err());
        told.replace(&format!("{}/", folder.0.path().display()), "")
    }

    #[test]
    fn a_folder_gives_a_document_a_file_by_name() {
        let folder =
            Folder::with(&[("b.txt", b"two\n\nmore"), ("a.md", b"one\n"), ("c/d.txt", b"three"), ("e.bin", b"no"), (".f.txt", b"no")]);
        assert_eq!(read(&folder.data("")).unwrap(), ["one", "two\n\nmore", "three"]);
        assert_eq!(read(&folder.data("*.txt")).unwrap(), ["two", "more"]);
        assert_eq!(read(&folder.data("e.bin")).unwrap(), ["no"]);
        assert_eq!(
            told(&folder.data("*.csv"), &folder),
            format!("data.paths: *.csv matches no text file (a folder gives its .{})", TEXT.join(", ."))
        );
    }

    #[test]
    fn one_file_is_parted() {
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
            told(&folder.data("bad.jsonl"), &folder),
            "bad.jsonl:2: missing field `text` at line 1 column 15; wanted one object a line with a field `text`"
        );
        assert!(told(&folder.data("nul.jsonl"), &folder).starts_with("nul.jsonl:1: byte 1 is a NUL"));
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
        assert_eq!(told(&folder.data("b.parquet"), &folder), "b.parquet: wanted a column `text` of strings, found the columns id, body");
        assert!(told(&folder.data("nul.parquet"), &folder).starts_with("nul.parquet: row 2: byte 1 is a NUL"));
        assert!(told(&folder.data("no.parquet"), &folder).starts_with("no.parquet: "));
    }

    #[cfg(not(feature = "parquet"))]
    #[test]
    fn parquet_wants_its_feature() {
        let folder = Folder::with(&[("a.parquet", b"PAR1")]);
        assert!(told(&folder.data("a.parquet"), &folder).contains("--features parquet"));
    }

    #[test]
    fn limits_cut() {
        let folder = Folder::with(&[("a.txt", "äbc\n\ndef\n\nghi".as_bytes())]);
        let cut = Data { max_documents: 2, max_document_characters: 2, ..folder.data("a.txt") };
        assert_eq!(read(&cut).unwrap(), ["äb", "de"]);
    }

    #[test]
    fn what_is_no_text_is_told_or_replaced() {
        let folder = Folder::with(&[("a.txt", b"fine\nb\xffd"), ("nul.txt", b"a\0b")]);
        assert_eq!(
            told(&folder.data("a.txt"), &folder),
            "a.txt:2: byte 1 of the line is no UTF-8: convert the file, or set data.invalid = \"replace\""
        );
        assert!(told(&folder.data("nul.txt"), &folder).starts_with("nul.txt:1: byte 1 is a NUL"));
        let replaced = |name| read(&Data { invalid: Invalid::Replace, ..folder.data(name) }).unwrap();
        assert_eq!(replaced("a.txt"), ["fine\nb\u{fffd}d"]);
        assert_eq!(replaced("nul.txt"), ["a\u{fffd}b"]);
    }

    #[test]
    fn long_lines_are_refused() {
        let folder = Folder::with(&[
            ("a.txt", &[&b"ok\n"[..], &vec![b'x'; MAX_LINE + 1]].concat()),
            ("b.txt", &[&vec![b'x'; MAX_LINE][..], b"\r\n"].concat()),
        ]);
        assert_eq!(told(&folder.data("a.txt"), &folder), "a.txt:2: the line has more than 16000000 bytes");
        assert_eq!(read(&folder.data("b.txt")).unwrap()[0].len(), MAX_LINE);
    }
}
