//! What the `tokenizers` library does for a checked file: its BPE model, and of its many steps before the model those that files may have.
//!
//! The library's own [`tokenizers::Tokenizer`] can be any model with any steps and reads them from JSON; this one is what
//! [`File`] accepts and no more, so that a page does not carry the rest.

use tokenizers::{
    AddedToken, NormalizedString, Normalizer as _, PreTokenizedString, Result, SplitDelimiterBehavior, TokenizerImpl,
    models::bpe::{BPE, Vocab},
    normalizers::{Lowercase, NFC, NFD, NFKC, NFKD},
    pre_tokenizers::{
        byte_level::ByteLevel,
        digits::Digits,
        split::{Split, SplitPattern},
    },
};

use super::file::{Added, Behavior, File, Merge, Normalizer, Pattern, PreTokenizer};

/// Text to ids. No text is decoded by it, and nothing is added after the model.
pub type Library = TokenizerImpl<BPE, Normalizers, Steps, ByteLevel, ByteLevel>;

/// Unicode forms and lower case, one after another.
#[derive(Clone)]
pub struct Normalizers(Vec<Normalizer>);

impl tokenizers::Normalizer for Normalizers {
    fn normalize(&self, text: &mut NormalizedString) -> Result<()> {
        self.0.iter().try_for_each(|normalizer| normalize(normalizer, text))
    }
}

fn normalize(normalizer: &Normalizer, text: &mut NormalizedString) -> Result<()> {
    match normalizer {
        Normalizer::NFC => NFC.normalize(text),
        Normalizer::NFD => NFD.normalize(text),
        Normalizer::NFKC => NFKC.normalize(text),
        Normalizer::NFKD => NFKD.normalize(text),
        Normalizer::Lowercase => Lowercase.normalize(text),
        Normalizer::Sequence { normalizers } => normalizers.iter().try_for_each(|normalizer| normalize(normalizer, text)),
    }
}

/// Splits, the last of them at the boundaries of byte-level BPE.
#[derive(Clone)]
pub struct Steps(Vec<Step>);

#[derive(Clone)]
enum Step {
    ByteLevel(ByteLevel),
    Digits(Digits),
    Split(Box<Split>),
}

impl tokenizers::PreTokenizer for Steps {
    fn pre_tokenize(&self, text: &mut PreTokenizedString) -> Result<()> {
        self.0.iter().try_for_each(|step| match step {
            Step::ByteLevel(step) => step.pre_tokenize(text),
            Step::Digits(step) => step.pre_tokenize(text),
            Step::Split(step) => step.pre_tokenize(text),
        })
    }
}

impl Steps {
    fn add(&mut self, step: &PreTokenizer) -> Result<()> {
        self.0.push(match step {
            PreTokenizer::ByteLevel { add_prefix_space, trim_offsets, use_regex } => {
                Step::ByteLevel(ByteLevel::new(*add_prefix_space, *trim_offsets, *use_regex))
            }
            PreTokenizer::Digits { individual_digits } => Step::Digits(Digits::new(*individual_digits)),
            PreTokenizer::Split { pattern, behavior, invert } => {
                let pattern = match pattern {
                    Pattern::String(text) => SplitPattern::String(text.clone()),
                    Pattern::Regex(regex) => SplitPattern::Regex(regex.clone()),
                };
                Step::Split(Box::new(Split::new(pattern, behaviour(behavior), *invert)?))
            }
            PreTokenizer::Sequence { pretokenizers } => return pretokenizers.iter().try_for_each(|step| self.add(step)),
        });
        Ok(())
    }
}

fn behaviour(behavior: &Behavior) -> SplitDelimiterBehavior {
    match behavior {
        Behavior::Removed => SplitDelimiterBehavior::Removed,
        Behavior::Isolated => SplitDelimiterBehavior::Isolated,
        Behavior::MergedWithPrevious => SplitDelimiterBehavior::MergedWithPrevious,
        Behavior::MergedWithNext => SplitDelimiterBehavior::MergedWithNext,
        Behavior::Contiguous => SplitDelimiterBehavior::Contiguous,
    }
}

/// The library for a checked file.
///
/// # Errors
/// If the library refuses the model or a pattern.
pub fn library(file: &File) -> Result<Library> {
    let model = &file.model;
    let vocabulary: Vocab = model.vocab.0.iter().cloned().collect();
    let merges = model.merges.iter().map(|merge| match merge {
        Merge::Pair(first, second) => (first.clone(), second.clone()),
        Merge::Joined(_) => unreachable!("joined merges were split"),
    });
    let mut builder =
        BPE::builder().vocab_and_merges(vocabulary, merges.collect()).fuse_unk(model.fuse_unk).ignore_merges(model.ignore_merges);
    if let Some(unknown) = &model.unk_token {
        builder = builder.unk_token(unknown.clone());
    }
    let mut library = Library::new(builder.build()?);
    library.with_normalizer(file.normalizer.clone().map(|normalizer| Normalizers(vec![normalizer])))?;
    let mut steps = Steps(Vec::new());
    steps.add(&file.pre_tokenizer)?;
    library.with_pre_tokenizer(Some(steps));
    library.add_tokens(file.added_tokens.iter().map(|Added { content, single_word, lstrip, rstrip, normalized, special, .. }| {
        let token = AddedToken::from(content.clone(), *special).single_word(*single_word).lstrip(*lstrip).rstrip(*rstrip);
        token.normalized(*normalized)
    }))?;
    library.set_encode_special_tokens(true);
    Ok(library)
}
