//! Texts in memory as a source of data: `data.paths` has their names.

use sha2::{Digest, Sha256};

use super::{
    DataError,
    documents::{Limits, Separator, Splitter},
    prepare::{PrepareError, Source},
    shards::Shard,
    tokenizer::Tokenizer,
};
use crate::run::config::{Data, DataKind};

/// Texts by name.
pub struct Texts<'a> {
    /// The text of a name, if there is one.
    pub read: &'a dyn Fn(&str) -> Option<Vec<u8>>,
}

fn refused<T>(text: String) -> Result<T, PrepareError> {
    Err(DataError::Options(text).into())
}

impl Texts<'_> {
    /// The text of a name, with `\n` as the ending of lines.
    fn text(&self, name: &str) -> Result<String, PrepareError> {
        let Some(bytes) = (self.read)(name) else {
            return refused(format!("data.paths: no text `{name}` is kept here: add it again"));
        };
        let text = match String::from_utf8(bytes) {
            Ok(text) => text.trim_start_matches('\u{feff}').replace("\r\n", "\n"),
            Err(error) => {
                let at = error.utf8_error().valid_up_to();
                return refused(format!("{name}: byte {at} is not UTF-8: convert the file"));
            }
        };
        // The byte tokenizer ends documents with a NUL.
        match text.find('\0') {
            Some(at) => refused(format!("{name}: byte {at} is a NUL: is this text?")),
            None => Ok(text),
        }
    }
}

impl Source for Texts<'_> {
    fn documents(&self, data: &Data, take: &mut dyn FnMut(&str) -> Result<bool, PrepareError>) -> Result<(), PrepareError> {
        let (separator, mut limits) = (Separator::of(data, data.paths.len()), Limits::of(data));
        for name in &data.paths {
            let text = self.text(name)?;
            let mut splitter = Splitter::new(&separator);
            for line in text.lines() {
                if let Some(document) = splitter.line(line)
                    && !limits.pass(&document, &mut *take)?
                {
                    return Ok(());
                }
            }
            if !limits.pass(&splitter.rest(), &mut *take)? {
                return Ok(());
            }
        }
        Ok(())
    }

    fn stamp(&self, data: &Data) -> Result<Vec<u8>, PrepareError> {
        let mut stamp = Vec::new();
        if data.kind == DataKind::Text {
            for name in &data.paths {
                stamp.extend(Sha256::digest((self.read)(name).unwrap_or_default()).as_slice());
            }
        }
        Ok(stamp)
    }

    fn shard(&self, _: &Data) -> Result<Shard, PrepareError> {
        refused("data.kind: expected \"language\" or \"text\": packed tokens are only read from files".into())
    }

    fn tokenizer(&self, _: &str) -> Result<Tokenizer, PrepareError> {
        refused("data.tokenizer.kind: expected \"bytes\" or \"bpe\": tokenizers are only read from files".into())
    }

    fn warn(&self, text: String) {
        log::warn!("{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(data: &Data, texts: &[(&str, &[u8])]) -> Result<Vec<String>, String> {
        let read = |name: &str| texts.iter().find(|(known, _)| *known == name).map(|(_, bytes)| bytes.to_vec());
        let mut found = Vec::new();
        let mut take = |text: &str| {
            found.push(text.to_string());
            Ok(true)
        };
        Texts { read: &read }.documents(data, &mut take).map_err(|error| error.to_string())?;
        Ok(found)
    }

    #[test]
    fn a_text_is_split_as_files_are_and_bad_ones_are_refused() {
        let mut data = Data { kind: DataKind::Text, paths: vec!["a.txt".into()], ..Data::default() };
        let text: &[u8] = b"\xef\xbb\xbfone\r\ntwo\r\n\r\n\r\nthree";
        assert_eq!(documents(&data, &[("a.txt", text)]).unwrap(), ["one\ntwo", "three"]);
        data.max_documents = 1;
        assert_eq!(documents(&data, &[("a.txt", text)]).unwrap(), ["one\ntwo"]);
        data.max_documents = 0;
        data.separator = "two".into();
        assert_eq!(documents(&data, &[("a.txt", text)]).unwrap(), ["one", "three"]);
        assert!(documents(&data, &[]).unwrap_err().contains("no text `a.txt` is kept here"));
        assert!(documents(&data, &[("a.txt", b"a\xff")]).unwrap_err().contains("byte 1 is not UTF-8"));
        assert!(documents(&data, &[("a.txt", b"a\0")]).unwrap_err().contains("byte 1 is a NUL"));
    }
}
