//! What is derived from text and kept between runs: tokenizers trained on it, and its tokens.
//!
//! An entry is a file named by what it was made from, so a changed file or option makes a new entry and an old one is never wrong.
//! Each holds a SHA-256 of its content: one that does not verify is told and made again. Entries are there whole or not at all
//! ([`atomic`]); what killed processes left of them is removed. The cache only saves time: where it cannot be written, that is told
//! once and the run goes on. It may be removed at any time.

use std::cell::Cell;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use moelab::data::shards::{Shard, digest};
use moelab::data::tokenizer::{MAX_BYTES, Tokenizer};
use moelab::run::digest::{hex, sha256_hex};
use moelab_native::{
    atomic, err,
    input::{self, shown},
};

/// Most bytes of a file of packed tokens: 16 GB.
pub const MAX_SHARD: u64 = 16_000_000_000;
/// Opens a tokenizer's entry, before the hexadecimal SHA-256 of all that follows its line.
const TOKENIZER: &str = "moelab trained tokenizer, sha256 ";

/// A folder of entries.
pub struct Cache {
    folder: PathBuf,
    told: Cell<bool>,
}

impl Cache {
    /// The cache in this folder, which need not exist. Removes what killed processes left behind.
    pub fn at(folder: &Path) -> Self {
        let names = fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        for name in names {
            // What cannot be removed is in nobody's way. Versions before this one called their drafts `.tmp`.
            if let Some((entry, _)) = name.split_once(atomic::DRAFT) {
                let _ = atomic::remove_drafts(&folder.join(entry));
            } else if name.ends_with(".tmp") {
                let _ = fs::remove_file(folder.join(name));
            }
        }
        Self { folder: folder.into(), told: Cell::new(false) }
    }

    /// The tokenizer trained on what `made_from` stands for.
    pub fn tokenizer(&self, made_from: &[&[u8]]) -> Option<Tokenizer> {
        self.entry(made_from, "tokenizer", MAX_BYTES as u64 + 1000, decode_tokenizer)
    }

    /// Keeps a trained tokenizer.
    pub fn keep_tokenizer(&self, made_from: &[&[u8]], tokenizer: &Tokenizer) {
        self.keep(made_from, "tokenizer", &encode_tokenizer(tokenizer));
    }

    /// The tokens that `tokenizer` made of what `made_from` stands for.
    pub fn tokens(&self, made_from: &[&[u8]], tokenizer: &Tokenizer) -> Option<Shard> {
        self.entry(made_from, "tokens", MAX_SHARD, |bytes| decode_tokens(bytes, tokenizer))
    }

    /// Keeps tokens.
    pub fn keep_tokens(&self, made_from: &[&[u8]], shard: &Shard) {
        self.keep(made_from, "tokens", &shard.encode());
    }

    fn place(&self, made_from: &[&[u8]], ending: &str) -> PathBuf {
        let key = hex(&digest(&made_from.concat())[..16]);
        self.folder.join(key).with_extension(ending)
    }

    /// An entry, if it is there and whole.
    fn entry<T>(&self, made_from: &[&[u8]], ending: &str, most: u64, decode: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
        let place = self.place(made_from, ending);
        let found = match input::read(&place, most) {
            Ok(bytes) => decode(&bytes).ok_or_else(|| "it has changed since it was written".to_string()),
            Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => return None,
            Err(error) => Err(error.to_string()),
        };
        found.map_err(|problem| err!("warning: {} cannot be used: {problem}; it is made again", shown(&place))).ok()
    }

    fn keep(&self, made_from: &[&[u8]], ending: &str, bytes: &[u8]) {
        let place = self.place(made_from, ending);
        let written = fs::create_dir_all(&self.folder).and_then(|()| atomic::write(&place, bytes));
        let Err(error) = written else { return };
        if !self.told.replace(true) {
            err!(
                "warning: the cache {} cannot be written ({error}): what is derived from the text is made again in each run; \
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

/// The line before the content of a tokenizer's entry.
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

    /// 1,400 flipped bits and 400 cuts, those of the headers among them: never another tokenizer, never other tokens.
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
    fn leftovers_of_killed_processes_go_those_of_living_ones_stay() {
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
