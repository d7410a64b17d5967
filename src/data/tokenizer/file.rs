//! `tokenizer.json`: what moelab accepts, and why it refuses the rest.
//!
//! The `tokenizers` library panics on some files (a merge longer than the longest token is copied into a buffer of that
//! token's size), allocates by the largest id in others, and runs any regular expression. So a file is first parsed into the types
//! below, and the library is made from them:
//! - at most [`MAX_BYTES`] bytes, [`MAX_VOCABULARY`] ids, as many merges, [`MAX_TOKEN`] bytes per token, [`MAX_STEPS`] normalizers
//!   and as many pre-tokenizers;
//! - the model is BPE without dropout, prefix, suffix or byte fallback; the parts of every merge and their concatenation are tokens;
//! - ids, those of added tokens included, are 0, 1, 2 .. without gap or repetition, and no token is named twice;
//! - pre-tokenizers are byte-level, digits, and splits at a known pattern that remove nothing; normalizers are Unicode forms and lower case;
//! - truncation, padding, post-processor and decoder are dropped: they are not needed.
//!
//! Long because the format and its checks are read together.

mod of_model;

use std::collections::HashMap;
use std::fmt;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokenizers::models::bpe::BPE;

use super::END_OF_TEXT;
use crate::data::error::DataError;
use crate::run::quote::{cut, shortened};
pub use of_model::ModelFiles;
pub(super) use of_model::of_model;

/// Maximum bytes of a file: 32 MB.
pub const MAX_BYTES: usize = 32_000_000;
/// Maximum number of ids, and of merges.
pub(super) const MAX_VOCABULARY: usize = 1_000_000;
/// Maximum bytes of a token.
const MAX_TOKEN: usize = 1024;
/// Maximum number of normalizers, and of pre-tokenizers: each is a pass over the text.
const MAX_STEPS: usize = 32;

/// Common names of the end-of-document token; the first one found is used.
pub(super) const ENDS_OF_DOCUMENT: [&str; 5] = ["<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|im_end|>"];

/// Patterns that [`PreTokenizer::Split`] may use: those of GPT-2, GPT-4 and Llama 3, Qwen 2, and GPT-4o. Others may be exponential.
const PATTERNS: [&str; 4] = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];

/// Which of them is Qwen 2's.
const QWEN2: usize = 2;

/// A whole file.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    #[serde(default = "version")]
    version: String,
    #[serde(default, deserialize_with = "dropped")]
    truncation: (),
    #[serde(default, deserialize_with = "dropped")]
    padding: (),
    #[serde(default)]
    pub(super) added_tokens: Vec<Added>,
    #[serde(default)]
    pub(super) normalizer: Option<Normalizer>,
    pub(super) pre_tokenizer: PreTokenizer,
    #[serde(default, deserialize_with = "dropped")]
    post_processor: (),
    #[serde(default, deserialize_with = "dropped", serialize_with = "byte_level_decoder")]
    decoder: (),
    pub(super) model: Model,
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Added {
    id: u32,
    pub content: String,
    #[serde(default)]
    pub single_word: bool,
    #[serde(default)]
    pub lstrip: bool,
    #[serde(default)]
    pub rstrip: bool,
    #[serde(default)]
    pub normalized: bool,
    #[serde(default)]
    pub special: bool,
}

impl Added {
    fn new(id: u32, content: String) -> Self {
        Self { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: false }
    }
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(tag = "type", deny_unknown_fields)]
#[expect(clippy::upper_case_acronyms, reason = "the names in the file")]
pub(super) enum Normalizer {
    NFC,
    NFD,
    NFKC,
    NFKD,
    Lowercase,
    Sequence { normalizers: Vec<Normalizer> },
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub(super) enum PreTokenizer {
    ByteLevel {
        add_prefix_space: bool,
        #[serde(default)]
        trim_offsets: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    },
    Digits {
        individual_digits: bool,
    },
    Split {
        pattern: Pattern,
        behavior: Behavior,
        invert: bool,
    },
    Sequence {
        pretokenizers: Vec<PreTokenizer>,
    },
}

#[derive(Clone, Deserialize, Serialize)]
pub(super) enum Pattern {
    String(String),
    Regex(String),
}

#[derive(Clone, Deserialize, Serialize)]
pub(super) enum Behavior {
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Model {
    #[serde(rename = "type", default)]
    kind: Kind,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    pub unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    pub ignore_merges: bool,
    pub vocab: Vocabulary,
    pub merges: Vec<Merge>,
}

#[derive(Clone, Copy, Default, Deserialize, Serialize)]
enum Kind {
    #[default]
    #[serde(rename = "BPE")]
    Bpe,
}

/// Tokens with their ids, sorted by id once checked. Tokens are unique.
#[derive(Clone)]
pub(super) struct Vocabulary(pub Vec<(String, u32)>);

#[derive(Clone, Deserialize, Serialize)]
#[serde(untagged)]
pub(super) enum Merge {
    Pair(String, String),
    /// `first second`, the form in older files.
    Joined(String),
}

impl Model {
    /// BPE without tokens.
    fn empty() -> Self {
        Self {
            kind: Kind::Bpe,
            dropout: None,
            unk_token: None,
            continuing_subword_prefix: None,
            end_of_word_suffix: None,
            fuse_unk: false,
            byte_fallback: false,
            ignore_merges: false,
            vocab: Vocabulary(Vec::new()),
            merges: Vec::new(),
        }
    }
}

fn version() -> String {
    "1.0".into()
}

fn yes() -> bool {
    true
}

fn dropped<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| ())
}

fn byte_level_decoder<S: Serializer>(_: &(), serializer: S) -> Result<S::Ok, S::Error> {
    PreTokenizer::ByteLevel { add_prefix_space: false, trim_offsets: false, use_regex: true }.serialize(serializer)
}

impl Serialize for Vocabulary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(token, id)| (token, id)))
    }
}

impl<'de> Deserialize<'de> for Vocabulary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vocabulary;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of tokens and their ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocabulary, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    if entries.len() == MAX_VOCABULARY {
                        return Err(A::Error::custom(format!("more than {MAX_VOCABULARY} tokens")));
                    }
                    entries.push(entry);
                }
                Ok(Vocabulary(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl File {
    /// Ids are bytes: 256 tokens, no merges.
    pub fn bytes() -> Self {
        let vocab = Vocabulary((0..=u8::MAX).map(|byte| (symbol(byte).to_string(), byte.into())).collect());
        let model = Model { vocab, ..Model::empty() };
        Self {
            version: version(),
            truncation: (),
            padding: (),
            added_tokens: Vec::new(),
            normalizer: None,
            pre_tokenizer: PreTokenizer::ByteLevel { add_prefix_space: false, trim_offsets: false, use_regex: false },
            post_processor: (),
            decoder: (),
            model,
        }
    }

    /// What was learned from documents, whose ends have their own token.
    pub fn trained(model: &BPE) -> Result<Self, DataError> {
        let json = serde_json::to_vec(model).expect("a model is JSON");
        let model: Model = serde_json::from_slice(&json).map_err(|error| DataError::Tokenizer(format!("training failed: {error}")))?;
        let pre_tokenizer = PreTokenizer::ByteLevel { add_prefix_space: false, trim_offsets: false, use_regex: true };
        let mut file = Self { pre_tokenizer, model, ..Self::bytes() };
        let end = file.id_of(END_OF_TEXT).map(|id| Added { special: true, ..Added::new(id, END_OF_TEXT.into()) });
        file.added_tokens.extend(end);
        file.check()?;
        Ok(file)
    }

    /// Whether this equals [`File::bytes`].
    pub fn is_bytes(&self) -> bool {
        self.model.merges.is_empty() && self.to_json() == Self::bytes().to_json()
    }

    /// Reads and checks a file.
    pub fn read(json: &[u8]) -> Result<Self, DataError> {
        let fault = |what: String| Err(DataError::Tokenizer(what));
        if json.len() > MAX_BYTES {
            return fault(format!("{} bytes, expected at most {MAX_BYTES}", json.len()));
        }
        let mut file: Self = match serde_json::from_slice(json) {
            Ok(file) => file,
            Err(error) => {
                let error = cut(&error.to_string(), 200);
                return fault(format!("{error}; expected a tokenizer.json with a byte-level BPE model and known pre-tokenizers"));
            }
        };
        file.check()?;
        Ok(file)
    }

    fn check(&mut self) -> Result<(), DataError> {
        self.check_model()?;
        self.check_ids()?;
        self.check_merges()?;
        self.check_steps()
    }

    /// The id of a token.
    fn id_of(&self, token: &str) -> Option<u32> {
        let added = self.added_tokens.iter().find(|added| added.content == token).map(|added| added.id);
        added.or_else(|| self.model.vocab.0.iter().find(|(known, _)| known == token).map(|(_, id)| *id))
    }

    /// Adds a token, or marks an existing one as special. A different id for a token, or token for an id, is refused.
    fn add(&mut self, new: Added) -> Result<(), DataError> {
        if let Some(added) = self.added_tokens.iter_mut().find(|added| added.id == new.id && added.content == new.content) {
            added.special |= new.special;
            return Ok(());
        }
        let differs = self.id_of(&new.content).is_some_and(|id| id != new.id);
        if differs || self.added_tokens.iter().any(|added| added.id == new.id) {
            return Err(DataError::Tokenizer(format!(
                "the files disagree about the token \"{}\" or its id {}",
                shortened(&new.content),
                new.id
            )));
        }
        self.added_tokens.push(new);
        Ok(())
    }

    /// Whether a space is added before a text.
    fn adds_prefix_space(&self) -> bool {
        let last = match &self.pre_tokenizer {
            PreTokenizer::Sequence { pretokenizers } => pretokenizers.last(),
            step => Some(step),
        };
        matches!(last, Some(PreTokenizer::ByteLevel { add_prefix_space: true, .. }))
    }

    fn check_model(&mut self) -> Result<(), DataError> {
        let model = &mut self.model;
        let empty = |text: &Option<String>| text.as_ref().is_none_or(String::is_empty);
        let refused = [
            (model.dropout.is_some_and(|dropout| dropout != 0.0), "dropout, which makes tokens random"),
            (!empty(&model.continuing_subword_prefix), "a continuing_subword_prefix"),
            (!empty(&model.end_of_word_suffix), "an end_of_word_suffix"),
            (model.byte_fallback, "byte_fallback"),
        ];
        if let Some((_, what)) = refused.iter().find(|(found, _)| *found) {
            return Err(DataError::Tokenizer(format!("the model has {what}, expected byte-level BPE without it")));
        }
        (model.dropout, model.continuing_subword_prefix, model.end_of_word_suffix) = (None, None, None);
        for merge in &mut model.merges {
            if let Merge::Joined(joined) = merge {
                let Some((first, second)) = joined.split_once(' ') else {
                    return Err(DataError::Tokenizer(format!("the merge \"{}\" is not a pair of tokens", shortened(joined))));
                };
                *merge = Merge::Pair(first.into(), second.into());
            }
        }
        Ok(())
    }

    /// Orders the vocabulary by id and checks that ids are dense and tokens unique, those added included.
    fn check_ids(&mut self) -> Result<(), DataError> {
        let fault = |what: String| Err(DataError::Tokenizer(what));
        self.model.vocab.0.sort_by_key(|(_, id)| *id);
        let mut id_of: HashMap<&str, u32> = HashMap::new();
        let added = self.added_tokens.iter().map(|added| (&added.content, added.id));
        let in_model = self.model.vocab.0.iter().map(|(token, id)| (token, *id));
        for (place, (token, id)) in in_model.chain(added).enumerate() {
            if token.is_empty() || token.len() > MAX_TOKEN {
                return fault(format!("token {id} has {} bytes, expected 1 to {MAX_TOKEN}", token.len()));
            }
            let repeats = place >= self.model.vocab.0.len() && id_of.get(token.as_str()) == Some(&id);
            if id_of.insert(token, id).is_some() && !repeats {
                return fault(format!("the token \"{}\" occurs twice", shortened(token)));
            }
        }
        if id_of.len() > MAX_VOCABULARY {
            return fault(format!("{} tokens, expected at most {MAX_VOCABULARY}", id_of.len()));
        }
        let mut ids: Vec<u32> = id_of.values().copied().collect();
        ids.sort_unstable();
        match ids.iter().zip(0u32..).find(|(id, place)| *id != place) {
            Some((id, place)) if *id < place => fault(format!("two tokens have the id {id}")),
            Some((_, place)) => fault(format!("no token has the id {place}, expected ids 0 to {} without gaps", ids.len() - 1)),
            None if ids.is_empty() => fault("the vocabulary is empty".into()),
            None => Ok(()),
        }
    }

    fn check_merges(&self) -> Result<(), DataError> {
        let fault = |what: String| Err(DataError::Tokenizer(what));
        let Model { merges, vocab, unk_token, .. } = &self.model;
        if merges.len() > MAX_VOCABULARY {
            return fault(format!("{} merges, expected at most {MAX_VOCABULARY}", merges.len()));
        }
        let tokens: std::collections::HashSet<&str> = vocab.0.iter().map(|(token, _)| token.as_str()).collect();
        for merge in merges {
            let Merge::Pair(first, second) = merge else { unreachable!("joined merges were split") };
            let whole = format!("{first}{second}");
            if let Some(token) = [first, second, &whole].into_iter().find(|token| !tokens.contains(token.as_str())) {
                let [first, second, token] = [first, second, token].map(|token| format!("\"{}\"", shortened(token)));
                return fault(format!("the merge of {first} and {second} needs the token {token}, which is not in the vocabulary"));
            }
        }
        match unk_token.as_ref().filter(|unknown| !tokens.contains(unknown.as_str())) {
            Some(unknown) => fault(format!("unk_token is \"{}\", which is not in the vocabulary", shortened(unknown))),
            None => Ok(()),
        }
    }

    fn check_steps(&self) -> Result<(), DataError> {
        let fault = |what: &str| Err(DataError::Tokenizer(what.into()));
        if self.added_tokens.iter().any(|added| !added.special && (added.lstrip || added.rstrip)) {
            return fault("an added token that removes adjacent spaces (lstrip, rstrip): they would be lost");
        }
        if let Some(Normalizer::Sequence { normalizers }) = &self.normalizer
            && normalizers.iter().any(|normalizer| matches!(normalizer, Normalizer::Sequence { .. }))
        {
            return fault("a sequence of normalizers within a sequence, expected one list");
        }
        let steps = match &self.pre_tokenizer {
            PreTokenizer::Sequence { pretokenizers } => &pretokenizers[..],
            step => std::slice::from_ref(step),
        };
        let normalizers = if let Some(Normalizer::Sequence { normalizers }) = &self.normalizer { normalizers.len() } else { 0 };
        if let Some(most) = [normalizers, steps.len()].into_iter().find(|count| *count > MAX_STEPS) {
            return fault(&format!("{most} normalizers or pre-tokenizers in a sequence, expected at most {MAX_STEPS}"));
        }
        let Some((PreTokenizer::ByteLevel { .. }, before)) = steps.split_last() else {
            return fault("the last pre-tokenizer is not ByteLevel, expected byte-level BPE");
        };
        for step in before {
            match step {
                PreTokenizer::Split { behavior: Behavior::Removed, .. } => {
                    return fault("a Split that removes what it matches: its text would be lost, expected another behavior");
                }
                PreTokenizer::Digits { .. } | PreTokenizer::Split { pattern: Pattern::String(_), .. } => {}
                PreTokenizer::Split { pattern: Pattern::Regex(regex), .. } if PATTERNS.contains(&regex.as_str()) => {}
                PreTokenizer::Split { .. } => {
                    return fault("a Split at an unknown pattern, expected that of GPT-2, GPT-4, Llama 3, Qwen 2 or GPT-4o");
                }
                PreTokenizer::ByteLevel { .. } => return fault("ByteLevel twice, expected once and last"),
                PreTokenizer::Sequence { .. } => return fault("a sequence of pre-tokenizers within a sequence, expected one list"),
            }
        }
        Ok(())
    }

    /// The file in one canonical form: fields in order, the vocabulary by id.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain fields are JSON")
    }

    /// The bytes of each id.
    pub fn spelling(&self) -> Vec<Vec<u8>> {
        let byte_of: HashMap<char, u8> = (0..=u8::MAX).map(|byte| (symbol(byte), byte)).collect();
        let model = self.model.vocab.0.iter().map(|(token, id)| {
            // A token outside the alphabet never results from text.
            let bytes: Option<Vec<u8>> = token.chars().map(|symbol| byte_of.get(&symbol).copied()).collect();
            (*id, bytes.unwrap_or_else(|| token.clone().into_bytes()))
        });
        let added = self.added_tokens.iter().map(|added| (added.id, added.content.clone().into_bytes()));
        let by_id: std::collections::BTreeMap<u32, Vec<u8>> = model.chain(added).collect();
        by_id.into_values().collect()
    }

    /// The id that ends a document.
    pub fn end_of_document(&self) -> Option<u32> {
        if self.is_bytes() {
            return Some(0);
        }
        let id_of = |name: &str| self.added_tokens.iter().find(|added| added.content == name && added.special).map(|added| added.id);
        ENDS_OF_DOCUMENT.iter().find_map(|name| id_of(name))
    }
}

/// The printable character that represents a byte in byte-level BPE.
fn symbol(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return byte.into();
    }
    let rank = (0..byte).filter(|other| !printable(*other)).count() as u32;
    char::from_u32(256 + rank).expect("below the surrogates")
}
