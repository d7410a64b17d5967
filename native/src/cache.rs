//! A cache of data derived from text: trained tokenizers and tokens.
//!
//! An entry is a file named by the hash of its inputs, so a changed file or option results in a new entry and entries are never
//! stale. Each contains a SHA-256 of its content: if it does not match, a warning is printed and the entry is created again. Entries
//! are written atomically ([`atomic`]); drafts left by killed processes are removed. The cache only saves time: if it cannot be
//! written, a warning is printed once and the run continues. It may be deleted at any time.

use std::cell::Cell;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::{
    atomic, err,
    input::{self, shown},
};
use moelab::data::shards::{Shard, digest};
use moelab::data::tokenizer::{MAX_BYTES, Tokenizer};
use moelab::run::digest::{hex, sha256_hex};

/// Maximum bytes of a file of packed tokens: 16 GB.
pub const MAX_SHARD: u64 = 16_000_000_000;
/// The start of a tokenizer entry, followed by the hexadecimal SHA-256 of everything after the first line.
const TOKENIZER: &str = "moelab trained tokenizer, sha256 ";

/// A folder of cache entries.
pub struct Cache {
    folder: PathBuf,
    warned: Cell<bool>,
}

impl Cache {
    /// The cache in this folder, which need not exist. Removes drafts that killed processes left behind.
    pub fn at(folder: &Path) -> Self {
        let names = fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        for name in names {
            // Drafts that cannot be removed do no harm. Earlier versions named them `.tmp`.
            if let Some((entry, _)) = name.split_once(atomic::DRAFT) {
                let _ = atomic::remove_drafts(&folder.join(entry));
            } else if name.ends_with(".tmp") {
                let _ = fs::remove_file(folder.join(name));
            }
        }
        Self { folder: folder.into(), warned: Cell::new(false) }
    }

    /// The trained tokenizer for the key `made_from`.
    pub fn tokenizer(&self, made_from: &[&[u8]]) -> Option<Tokenizer> {
        self.entry(made_from, "tokenizer", MAX_BYTES as u64 + 1000, decode_tokenizer)
    }

    /// Stores a trained tokenizer.
    pub fn keep_tokenizer(&self, made_from: &[&[u8]], tokenizer: &Tokenizer) {
        self.keep(made_from, "tokenizer", &encode_tokenizer(tokenizer));
    }

    /// The tokens of `tokenizer` for the key `made_from`.
    pub fn tokens(&self, made_from: &[&[u8]], tokenizer: &Tokenizer) -> Option<Shard> {
        self.entry(made_from, "tokens", MAX_SHARD, |bytes| decode_tokens(bytes, tokenizer))
    }

    /// Stores tokens.
    pub fn keep_tokens(&self, made_from: &[&[u8]], shard: &Shard) {
        self.keep(made_from, "tokens", &shard.encode());
    }

    fn place(&self, made_from: &[&[u8]], ending: &str) -> PathBuf {
        let key = hex(&digest(&made_from.concat())[..16]);
        self.folder.join(key).with_extension(ending)
    }

    /// An entry, if it exists and is intact.
    fn entry<T>(&self, made_from: &[&[u8]], ending: &str, most: u64, decode: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let place = self.place(made_from, ending);
        let found = match input::read(&place, most) {
            Ok(bytes) => decode(&bytes).ok_or_else(|| "it has changed since it was written".to_string()),
            Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => return None,
            Err(error) => Err(error.to_string()),
        };
        found.map_err(|problem| err!("warning: {} cannot be used: {problem}; it is created again", shown(&place))).ok()
    }

    fn keep(&self, made_from: &[&[u8]], ending: &str, bytes: &[u8]) {
        let place = self.place(made_from, ending);
        let written = fs::create_dir_all(&self.folder).and_then(|()| atomic::write(&place, bytes));
        let Err(error) = written else { return };
        if !self.warned.replace(true) {
            err!(
                "warning: the cache {} cannot be written ({error}): each run derives data from the text again; \
                 --cache DIR puts it elsewhere",
                shown(&self.folder)
            );
        }
    }
}

fn encode_tokenizer(tokenizer: &Tokenizer) -> Vec<u8> {
    let json = tokenizer.to_json();
    (first_line(json.as_bytes()) + &json).into_bytes()
}

fn decode_tokenizer(bytes: &[u8]) -> Option<Tokenizer> {
    let (line, json) = bytes.split_at_checked(bytes.iter().position(|byte| *byte == b'\n')? + 1)?;
    (line == first_line(json).as_bytes()).then(|| Tokenizer::from_json(json).ok())?
}

fn decode_tokens(bytes: &[u8], tokenizer: &Tokenizer) -> Option<Shard> {
    Shard::decode(bytes).ok().filter(|shard| shard.tokenizer() == tokenizer.digest())
}

/// The first line of a tokenizer entry.
fn first_line(json: &[u8]) -> String {
    let hash = sha256_hex(json);
    format!("{TOKENIZER}{hash}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    fn only_file(folder: &Path) -> PathBuf {
        let files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    /// 1,400 flipped bits and 400 truncations, including the headers: never a different tokenizer or different tokens.
    #[test]
    fn a_damaged_entry_is_never_used() {
        let tokenizer = Tokenizer::train(["one two one two", "three one three"].iter(), 270).unwrap().tokenizer;
        let mut shard = Shard::new(tokenizer.vocabulary(), tokenizer.digest());
        (0..20).for_each(|number| shard.push(&tokenizer.encode(&format!("one two {number}")).unwrap()).unwrap());
        let damage = |whole: &[u8], is_used: &dyn Fn(&[u8]) -> bool| {
            assert!(is_used(whole));
            let bits = whole.len() * 8;
            for bit in (0..400).chain((0..300).map(|step| 400 + (step * 7919) % (bits - 400))) {
                let mut bytes = whole.to_vec();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(!is_used(&bytes), "bit {bit} of {bits}");
            }
            for length in (0..100).chain((0..100).map(|step| 100 + step * (whole.len() - 100) / 100)) {
                assert!(!is_used(&whole[..length]), "cut to {length} of {}", whole.len());
            }
        };
        damage(&encode_tokenizer(&tokenizer), &|bytes| decode_tokenizer(bytes).is_some());
        damage(&shard.encode(), &|bytes| decode_tokens(bytes, &tokenizer).is_some());
        let other = Tokenizer::train(["other text other text"].iter(), 270).unwrap().tokenizer;
        assert!(decode_tokens(&shard.encode(), &other).is_none());
    }

    #[test]
    fn drafts_of_killed_processes_are_removed_and_others_kept() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["a.tokens.tmp-1-0", "a.tokens.tmp-2-0", "a.1.tmp"];
        let [dead, alive, old] = names.map(|name| folder.path().join(name));
        [&dead, &old].into_iter().for_each(|path| fs::write(path, b"half").unwrap());
        let writer = File::create(&alive).unwrap();
        writer.lock().unwrap();
        Cache::at(folder.path());
        assert_eq!(only_file(folder.path()), alive);
        drop(writer);
        Cache::at(folder.path());
        assert!(!alive.exists());
    }
}
