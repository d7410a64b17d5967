//! Packed token shards: tokenized documents as one block of bytes, so that a corpus is tokenized once.
//!
//! Layout, little-endian, no padding:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | magic `moelab\0T` |
//! | 4 | version, 1 |
//! | 4 | bytes per token: 2 if the vocabulary has at most 65,536 ids, else 4 |
//! | 4 | vocabulary V |
//! | 4 | documents |
//! | 8 | tokens |
//! | 32 | SHA-256 of the tokenizer |
//! | 32 | SHA-256 of the 64 bytes above and of all bytes below |
//! | 4 each | tokens of each document, u32 |
//! | 2 or 4 each | token ids |
//!
//! [`Shard::decode`] trusts no field: it checks every length against the available bytes before it allocates anything, every
//! id against V, and finally the hash. It returns what was encoded, or an error.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::error::DataError;

const MAGIC: [u8; 8] = *b"moelab\0T";
const VERSION: u32 = 1;
const HASHED_HEADER: usize = 64;
const HEADER: usize = 96;

/// Token ids in the narrowest type that fits the vocabulary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// At most 65,536 ids.
    U16(Vec<u16>),
    /// Any vocabulary.
    U32(Vec<u32>),
}

impl Tokens {
    /// An empty list for a vocabulary of `vocabulary` ids.
    pub fn new(vocabulary: u32) -> Self {
        if vocabulary <= 1 << 16 { Tokens::U16(Vec::new()) } else { Tokens::U32(Vec::new()) }
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        match self {
            Tokens::U16(ids) => ids.len(),
            Tokens::U32(ids) => ids.len(),
        }
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id at `index`.
    pub fn get(&self, index: usize) -> u32 {
        match self {
            Tokens::U16(ids) => ids[index].into(),
            Tokens::U32(ids) => ids[index],
        }
    }

    /// The ids in `range`.
    pub fn slice(&self, range: Range<usize>) -> impl DoubleEndedIterator<Item = u32> + '_ {
        range.map(|index| self.get(index))
    }

    /// Appends ids, all below the vocabulary.
    pub fn extend(&mut self, tokens: impl IntoIterator<Item = u32>) {
        match self {
            Tokens::U16(ids) => ids.extend(tokens.into_iter().map(|id| u16::try_from(id).expect("ids are below the vocabulary"))),
            Tokens::U32(ids) => ids.extend(tokens),
        }
    }

    /// The ids as bytes, little-endian.
    fn to_bytes(&self) -> Vec<u8> {
        match self {
            Tokens::U16(ids) => ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
            Tokens::U32(ids) => ids.iter().flat_map(|id| id.to_le_bytes()).collect(),
        }
    }

    /// Feeds the ids to a hash, each as u32, independent of their type in memory.
    pub(crate) fn hash_into(&self, hash: &mut Sha256) {
        hash.update((self.len() as u64).to_le_bytes());
        self.slice(0..self.len()).for_each(|id| hash.update(id.to_le_bytes()));
    }
}

/// Tokenized documents, one after the other, without separators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    vocabulary: u32,
    tokenizer: [u8; 32],
    tokens: Tokens,
    /// Where each document ends in `tokens`.
    ends: Vec<usize>,
}

impl Shard {
    /// Bytes before the documents.
    pub const HEADER: usize = HEADER;

    /// Creates an empty shard for ids below `vocabulary`, of the tokenizer with this SHA-256.
    pub fn new(vocabulary: u32, tokenizer: [u8; 32]) -> Self {
        Self { vocabulary, tokenizer, tokens: Tokens::new(vocabulary), ends: Vec::new() }
    }

    /// Appends a document. An error if an id is not in the vocabulary or there are too many documents or tokens in one.
    pub fn push(&mut self, document: &[u32]) -> Result<(), DataError> {
        if let Some(id) = document.iter().find(|id| **id >= self.vocabulary) {
            return Err(DataError::Shard(format!("token id {id}, expected below the vocabulary of {}", self.vocabulary)));
        }
        if self.ends.len() == u32::MAX as usize || document.len() > u32::MAX as usize {
            return Err(DataError::Shard("more than 4,294,967,295 documents, or as many tokens in one".into()));
        }
        self.tokens.extend(document.iter().copied());
        self.ends.push(self.tokens.len());
        Ok(())
    }

    /// Appends the documents of another shard of the same tokenizer.
    pub fn append(&mut self, other: &Shard) -> Result<(), DataError> {
        if self.tokenizer != other.tokenizer || self.vocabulary != other.vocabulary {
            return Err(DataError::Shard("shards of different tokenizers".into()));
        }
        (0..other.documents()).try_for_each(|index| self.push(&other.document(index).collect::<Vec<_>>()))
    }

    /// Ids of the tokenizer: V.
    pub fn vocabulary(&self) -> u32 {
        self.vocabulary
    }

    /// SHA-256 of the tokenizer.
    pub fn tokenizer(&self) -> [u8; 32] {
        self.tokenizer
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.ends.len()
    }

    /// Number of tokens in all documents.
    pub fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// The tokens of one document.
    pub fn document(&self, index: usize) -> impl DoubleEndedIterator<Item = u32> + '_ {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.tokens.slice(start..self.ends[index])
    }

    /// SHA-256 of the tokens of each document.
    pub fn digests(&self) -> Vec<[u8; 32]> {
        let digest = |index| {
            let mut hash = Sha256::new();
            self.document(index).for_each(|id| hash.update(id.to_le_bytes()));
            hash.finalize().into()
        };
        (0..self.documents()).map(digest).collect()
    }

    /// The shard as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let width = if matches!(self.tokens, Tokens::U16(_)) { 2u32 } else { 4 };
        let mut bytes = Vec::with_capacity(HEADER + 4 * self.ends.len() + width as usize * self.tokens.len());
        bytes.extend(MAGIC);
        for field in [VERSION, width, self.vocabulary, self.ends.len() as u32] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend((self.tokens.len() as u64).to_le_bytes());
        bytes.extend(self.tokenizer);
        bytes.extend([0; 32]);
        let mut start = 0;
        for &end in &self.ends {
            bytes.extend(((end - start) as u32).to_le_bytes());
            start = end;
        }
        bytes.extend(self.tokens.to_bytes());
        let hash = hash_of(&bytes);
        bytes[HASHED_HEADER..HEADER].copy_from_slice(&hash);
        bytes
    }

    /// Checks the first [`Shard::HEADER`] bytes of a shard of `size` bytes, so that a large file can be rejected without reading it.
    pub fn check_header(header: &[u8], size: u64) -> Result<(), DataError> {
        Fields::read(header, size).map(|_| ())
    }

    /// Decodes the output of [`Shard::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, DataError> {
        let fault = |what: String| Err(DataError::Shard(what));
        let Fields { width, vocabulary, documents } = Fields::read(bytes, bytes.len() as u64)?;
        let (header, body) = bytes.split_at(HEADER);
        if hash_of(bytes) != header[HASHED_HEADER..] {
            return fault("the SHA-256 does not match: the bytes have changed since they were written".into());
        }
        let (lengths, ids) = body.split_at(documents as usize * 4);
        let (pairs, words) = (ids.as_chunks::<2>().0, ids.as_chunks::<4>().0);
        let tokens = match width {
            2 => Tokens::U16(pairs.iter().map(|id| u16::from_le_bytes(*id)).collect()),
            _ => Tokens::U32(words.iter().map(|id| u32::from_le_bytes(*id)).collect()),
        };
        if let Some(id) = tokens.slice(0..tokens.len()).find(|id| *id >= vocabulary) {
            return fault(format!("token id {id}, expected below the vocabulary of {vocabulary}"));
        }
        let mut end = 0u64;
        let ends = lengths.as_chunks::<4>().0.iter().map(|length| {
            end += u64::from(u32::from_le_bytes(*length));
            end as usize
        });
        let ends = ends.collect();
        if end != tokens.len() as u64 {
            return fault(format!("documents of {end} tokens together, expected {}", tokens.len()));
        }
        let tokenizer = header[32..64].try_into().expect("32 bytes");
        Ok(Self { vocabulary, tokenizer, tokens, ends })
    }
}

/// The sizes stated by a header.
struct Fields {
    width: u32,
    vocabulary: u32,
    documents: u32,
}

impl Fields {
    fn read(bytes: &[u8], size: u64) -> Result<Self, DataError> {
        let fault = |what: String| Err(DataError::Shard(what));
        let Some((header, _)) = bytes.split_at_checked(HEADER) else {
            return fault(format!("{} bytes, expected at least the {HEADER} of a header", bytes.len()));
        };
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
        if header[..8] != MAGIC {
            return fault("this is not a token shard: it does not start with the magic bytes".into());
        }
        let [version, width, vocabulary, documents] = [word(8), word(12), word(16), word(20)];
        let tokens = u64::from(word(24)) | u64::from(word(28)) << 32;
        if version != VERSION {
            return fault(format!("version {version}, expected {VERSION}"));
        }
        let wanted_width = if vocabulary <= 1 << 16 { 2 } else { 4 };
        if width != wanted_width {
            return fault(format!("{width} bytes per token, expected {wanted_width} for a vocabulary of {vocabulary}"));
        }
        let body = size.saturating_sub(HEADER as u64);
        let wanted = u128::from(documents) * 4 + u128::from(tokens) * u128::from(width);
        if wanted != u128::from(body) {
            return fault(format!("{body} bytes after the header, expected {wanted}: truncated or appended to"));
        }
        Ok(Self { width, vocabulary, documents })
    }
}

/// SHA-256 of some bytes, the digest of a document.
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SHA-256 of an encoded shard, excluding the hash itself.
fn hash_of(bytes: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(&bytes[..HASHED_HEADER]).chain_update(&bytes[HEADER..]).finalize().into()
}
