//! Tokenizers: lossless conversion between text and ids.
//!
//! - [`Tokenizer::bytes`]: an id is a byte, V = 256. No text contains the byte 0 (readers refuse or replace it), so id 0 is
//!   used to end documents.
//! - [`Tokenizer::train`]: byte-level BPE learned from documents; id 0 is [`END_OF_TEXT`] and ends documents.
//! - [`Tokenizer::from_json`]: a `tokenizer.json` of the `tokenizers` library, byte-level BPE only, checked before the
//!   library sees it ([`file`]). Its end-of-document token is the first of `file::ENDS_OF_DOCUMENT` that it has.
//!
//! All three are byte-level BPE and are written as the same `tokenizer.json` (bytes: without merges). Text never yields a
//! special token: the text `<|endoftext|>` in a document is encoded as ordinary characters. Post-processors, padding and
//! truncation of a file are dropped: no ids are added to those of the text.

mod file;
mod library;

use std::sync::atomic::{AtomicUsize, Ordering};

use sha2::{Digest, Sha256};
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::utils::parallelism::set_parallelism;
use tokenizers::{AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Trainer as _};

use super::error::DataError;
use crate::run::digest::hex;
use file::File;
pub use file::{MAX_BYTES, ModelFiles};
use library::{Library, library};

/// Ends documents in a tokenizer trained here.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// The byte-level alphabet and the end-of-document token: the minimum vocabulary of a trained tokenizer.
pub const LEAST_TRAINED_VOCABULARY: u32 = 257;

/// Maximum bytes of a word, between two breaks of the pattern, that a tokenizer is trained on as a whole.
pub const LONGEST_TRAINED_WORD: usize = 1024;

/// Bytes that no text contains: NUL, which readers refuse or replace, and those that UTF-8 never uses.
const NEVER_IN_TEXT: [u8; 14] = [0x00, 0xc0, 0xc1, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff];

/// A trained tokenizer, with statistics of its documents.
pub struct Trained {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Number of words longer than [`LONGEST_TRAINED_WORD`], which were split for training.
    pub cut_words: usize,
    /// Bytes of the longest word.
    pub longest_word: usize,
}

/// Converts text to ids and back.
#[derive(Clone)]
pub struct Tokenizer {
    /// `None` for bytes, which need no library.
    library: Option<Library>,
    file: File,
    /// The bytes of each id.
    spelling: Vec<Vec<u8>>,
    /// Bytes without an id.
    missing: Vec<u8>,
    end_of_document: Option<u32>,
    digest: [u8; 32],
}

impl Tokenizer {
    /// Ids are bytes: V = 256.
    pub fn bytes() -> Self {
        Self::new(File::bytes(), None)
    }

    /// Whether its ids are bytes.
    pub fn is_bytes(&self) -> bool {
        self.digest == Self::bytes().digest
    }

    /// Trains byte-level BPE with at most `vocabulary` ids, 257 to 1,000,000; fewer if the documents have fewer pairs that occur twice.
    /// The result is deterministic.
    ///
    /// The time is quadratic in the length of the longest word, that is, a run of letters, digits, spaces or other characters in the
    /// pattern; so longer words are split into pieces of [`LONGEST_TRAINED_WORD`] bytes.
    pub fn train<S: AsRef<str> + Send>(documents: impl Iterator<Item = S> + Send, vocabulary: u32) -> Result<Trained, DataError> {
        if !(LEAST_TRAINED_VOCABULARY..=file::MAX_VOCABULARY as u32).contains(&vocabulary) {
            let wanted = format!("expected {LEAST_TRAINED_VOCABULARY} to {}", file::MAX_VOCABULARY);
            return Err(DataError::Tokenizer(format!("a trained vocabulary of {vocabulary} ids, {wanted}")));
        }
        let alphabet = ByteLevel::alphabet().into_iter().collect();
        let mut trainer = BpeTrainerBuilder::new()
            .vocab_size(vocabulary as usize)
            .min_frequency(2)
            .max_token_length(Some(32))
            .show_progress(false)
            .initial_alphabet(alphabet)
            .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
            .build();
        set_parallelism(false); // The browser has no threads, and the order of sums must not depend on them.
        let pattern = ByteLevel::new(false, false, true);
        let (cut_words, longest_word) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let words_of = |text: &str| {
            let mut parted = PreTokenizedString::from(text);
            pattern.pre_tokenize(&mut parted)?;
            let mut words = Vec::new();
            for (word, (start, end), _) in parted.get_splits(OffsetReferential::Original, OffsetType::Byte) {
                longest_word.fetch_max(end - start, Ordering::Relaxed);
                if end - start <= LONGEST_TRAINED_WORD {
                    words.push(word.to_owned());
                    continue;
                }
                cut_words.fetch_add(1, Ordering::Relaxed);
                // A character represents a byte.
                let symbols: Vec<char> = word.chars().collect();
                words.extend(symbols.chunks(LONGEST_TRAINED_WORD).map(|piece| piece.iter().collect::<String>()));
            }
            Ok(words)
        };
        let mut model = BPE::default();
        let learned = trainer.feed(documents, words_of).and_then(|()| trainer.train(&mut model));
        learned.map_err(|error| DataError::Tokenizer(format!("training failed: {error}")))?;
        let tokenizer = Self::of_file(File::trained(&model)?)?;
        Ok(Trained { tokenizer, cut_words: cut_words.into_inner(), longest_word: longest_word.into_inner() })
    }

    /// Loads a `tokenizer.json`.
    pub fn from_json(json: &[u8]) -> Result<Self, DataError> {
        Self::of_file(File::read(json)?)
    }

    /// The tokenizer of a checked file.
    fn of_file(file: File) -> Result<Self, DataError> {
        if file.is_bytes() {
            return Ok(Self::bytes());
        }
        // The library is known to panic on some files; if panics unwind, they become errors.
        let library = std::panic::catch_unwind(|| library(&file))
            .map_err(|_| DataError::Tokenizer("the tokenizers library panicked on this file".into()))?
            .map_err(|error| DataError::Tokenizer(format!("the tokenizers library rejects this file: {error}")))?;
        Ok(Self::new(file, Some(library)))
    }

    /// The tokenizer of a model folder, with the ids of transformers' `AutoTokenizer`. Also returns what a run does not keep from
    /// the files, one line each.
    pub fn of_model(files: &ModelFiles) -> Result<(Self, Vec<String>), DataError> {
        let (json, notes) = file::of_model(files)?;
        Ok((Self::from_json(json.as_bytes())?, notes))
    }

    fn new(file: File, library: Option<Library>) -> Self {
        let mut spelling = file.spelling();
        let missing = (0..=u8::MAX).filter(|byte| !spelling.iter().any(|bytes| bytes == &[*byte])).collect();
        let end_of_document = file.end_of_document();
        if let Some(end) = end_of_document {
            spelling[end as usize] = vec![0];
        }
        let digest = Sha256::digest(file.to_json()).into();
        Self { library, file, spelling, missing, end_of_document, digest }
    }

    /// Encodes a text. Fails if the tokenizer has no id for one of its bytes.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let Some(library) = &self.library else {
            return match text.bytes().position(|byte| byte == 0) {
                Some(at) => {
                    Err(DataError::Tokenizer(format!("the text has a NUL at byte {at}, which is reserved for the end of documents")))
                }
                None => Ok(text.bytes().map(u32::from).collect()),
            };
        };
        if let Some(byte) = text.bytes().find(|byte| self.missing.contains(byte)) {
            return Err(DataError::Tokenizer(format!("the tokenizer has no id for the byte 0x{byte:02x}: use another tokenizer")));
        }
        let encoded = library.encode_fast(text, false);
        encoded.map(|encoding| encoding.get_ids().to_vec()).map_err(|error| DataError::Tokenizer(error.to_string()))
    }

    /// Decodes ids. The end of a document becomes a newline; ids beyond the vocabulary, and bytes that are not UTF-8, become U+FFFD.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            match self.spelling.get(id as usize) {
                _ if Some(id) == self.end_of_document => bytes.push(b'\n'),
                Some(spelling) => bytes.extend(spelling),
                None => bytes.extend("\u{fffd}".bytes()),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The bytes of an id below V; for the end of a document, byte 0.
    pub fn spelling(&self, id: u32) -> &[u8] {
        &self.spelling[id as usize]
    }

    /// Vocabulary size: V.
    pub fn vocabulary(&self) -> u32 {
        self.spelling.len() as u32
    }

    /// The ids that may be sampled: those that occur in some text, special tokens, and the end of a document, but not ids of a model
    /// beyond its tokenizer.
    pub fn drawable(&self) -> Vec<u32> {
        let occurs = |id: &u32| Some(*id) == self.end_of_document || !self.spelling(*id).iter().any(|byte| NEVER_IN_TEXT.contains(byte));
        (0..self.vocabulary()).filter(occurs).collect()
    }

    /// The id that ends a document.
    pub fn end_of_document(&self) -> Option<u32> {
        self.end_of_document
    }

    /// The tokenizer as `tokenizer.json`; [`Tokenizer::from_json`] loads it.
    pub fn to_json(&self) -> String {
        self.file.to_json()
    }

    /// SHA-256 of [`Tokenizer::to_json`].
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// [`Tokenizer::digest`] in hexadecimal.
    pub fn hash(&self) -> String {
        hex(&self.digest)
    }
}
