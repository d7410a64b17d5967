//! Options of the data: corpus, tokenizer, windows.

use crate::{choices, options};

options! {
    /// The training data. Paths are relative to the working directory in which the run is started.
    pub struct Data: data {
        /// Replaces the corpus, tokenizer and `model.vocabulary` of an extended file, or of the file that a `--set` is applied to, by
        /// the embedded language, one token per byte.
        embedded: bool = false;
        /// Source of the documents.
        kind: DataKind = DataKind::Language;
        /// Files, folders or glob patterns; brackets in a name are written [[] and []]. Text is .txt, .text, .md or .markdown, JSON
        /// lines are .jsonl or .ndjson, in any case; these are read from a folder, other files are reported. Packed tokens: files.
        #[when("data.kind" = "text" | "tokens")]
        #[class(bookkeeping)]
        paths: Vec<String> = Vec::new();
        /// Format of files with another extension that a path or a pattern names.
        #[when("data.kind" = "text")]
        #[class(bookkeeping)]
        unknown_files: UnknownFiles = UnknownFiles::Refuse;
        /// Document separator in text files: "file" for one document per file, "blank lines", or a line that separates documents, for
        /// example "<|endoftext|>". Empty: "file" if there are several files, else "blank lines". Other formats ignore it.
        #[when("data.kind" = "text")]
        separator: String = String::new();
        /// Handling of invalid UTF-8, unpaired surrogates in JSON, and NULs.
        #[when("data.kind" = "text")]
        invalid: Invalid = Invalid::Refuse;
        /// Maximum number of documents, in the order of the files; 0 for all.
        #[when("data.kind" = "text")]
        max_documents: u32 = 0;
        /// Maximum characters per document, after which it is truncated; 0 for whole documents.
        #[when("data.kind" = "text")]
        max_document_characters: u32 = 0;
        /// Maximum number of tokens, training and validation together; 0 for all.
        #[when("data.kind" = "text")]
        max_tokens: u64 = 0;
        /// Which documents are held out for validation; documents are split before windows are cut. Endless documents of the
        /// language need no split: validation has separate ones.
        split: SplitOptions;
        /// Whether the tokenizer's end-of-document token separates documents. The language requires it.
        end_of_document: bool = true;
        /// Tokens per sequence, T.
        sequence_length: u32 = 512 => 2..=131_072;
        /// Which tokens of a sequence are targets.
        targets: TargetRule = TargetRule::Next;
        /// Sequences per micro-batch, B.
        batch: u32 = 24 => 1..=65_536;
        /// Whether training windows are reshuffled in each epoch; otherwise they come in the order of the documents.
        shuffle: bool = true;
        /// Whether the last micro-batch of an epoch is dropped unless it is full; otherwise it is padded with sequences without targets.
        drop_last: bool = true;
        /// The tokenizer.
        tokenizer: Tokenizer;
        /// The embedded artificial language.
        #[when("data.kind" = "language")]
        language: LanguageOptions;
    }
}

choices! {
    /// Source of the documents.
    pub enum DataKind {
        /// the embedded artificial language, whose entropy is known.
        Language = "language",
        /// text files, or JSONL files with a field `text` on each line.
        Text = "text",
        /// packed token shards.
        Tokens = "tokens",
    }
}

choices! {
    /// The format of files with an unknown extension.
    pub enum UnknownFiles {
        /// an error that names the files.
        Refuse = "refuse",
        /// text.
        Text = "text",
        /// JSON lines.
        JsonLines = "jsonl",
    }
}

choices! {
    /// Handling of invalid UTF-8 and NULs.
    pub enum Invalid {
        /// an error that names file and line.
        Refuse = "refuse",
        /// replaced by U+FFFD.
        Replace = "replace",
    }
}

options! {
    /// The tokenizer.
    pub struct Tokenizer: data {
        /// Kind of tokenizer.
        kind: TokenizerKind = TokenizerKind::Bytes;
        /// Maximum vocabulary size, including the 256 bytes and the end-of-document token; fewer are learned if the text has fewer
        /// pairs that occur twice.
        #[when("data.tokenizer.kind" = "bpe")]
        vocabulary: u32 = 4096 => 257..=131_072;
        /// A `tokenizer.json`.
        #[when("data.tokenizer.kind" = "file")]
        #[class(bookkeeping)]
        path: String = String::new();
    }
}

choices! {
    /// Kind of tokenizer.
    pub enum TokenizerKind {
        /// one token per byte.
        Bytes = "bytes",
        /// byte-level BPE, trained on the training documents.
        Bpe = "bpe",
        /// read from a `tokenizer.json`.
        File = "file",
    }
}

impl Tokenizer {
    /// Vocabulary size, if it is known without reading a file.
    pub fn known_vocabulary(&self) -> Option<u32> {
        match self.kind {
            TokenizerKind::Bytes => Some(256),
            TokenizerKind::Bpe => Some(self.vocabulary),
            TokenizerKind::File => None,
        }
    }
}

choices! {
    /// Which documents are held out for validation.
    pub enum SplitRule {
        /// chosen at random by `seed`.
        Shuffled = "shuffled",
        /// the last ones.
        Last = "last",
    }
}

options! {
    /// How documents are split into training and validation.
    pub struct SplitOptions: data {
        /// Share of the documents held out for validation; rounded, with at least one document on each side.
        fraction: f64 = 0.1 => 0.0001..=0.5;
        /// Which documents.
        rule: SplitRule = SplitRule::Shuffled;
        /// Seed of the shuffled split. Separate from the run's seed, so that runs with other seeds are evaluated on the same text.
        seed: u64 = 0;
    }
}

choices! {
    /// Which tokens of a sequence are targets.
    pub enum TargetRule {
        /// T targets: the last one is the token after the sequence.
        Next = "next",
        /// T - 1 targets: the tokens in the sequence; its last position has none.
        Inside = "inside",
    }
}

impl TargetRule {
    /// Number of targets in a window of `tokens` tokens.
    pub fn targets(self, tokens: u32) -> u32 {
        match self {
            TargetRule::Next => tokens,
            TargetRule::Inside => tokens - 1,
        }
    }
}

options! {
    /// The embedded artificial language.
    pub struct LanguageOptions: data {
        /// Seed of the language: its words, and the documents of each stream. Separate from the run's seed, so that runs with other
        /// seeds are evaluated on the same text.
        seed: u64 = 0;
        /// Latent domains, each with its own words, inflection and word order.
        domains: u32 = 4 => 1..=16;
        /// Nouns per domain.
        nouns: u32 = 10 => 1..=200;
        /// Transitive verbs per domain, and as many intransitive ones.
        verbs: u32 = 4 => 1..=200;
        /// Adjectives per domain.
        adjectives: u32 = 4 => 1..=200;
        /// Number of possible names for the hero of a document.
        names: u32 = 12 => 1..=200;
        /// Share of each word class that all domains have in common.
        shared: f64 = 0.25 => 0.0..=1.0;
        /// Probability that a document ends after a sentence.
        stop: f64 = 0.3 => 0.01..=1.0;
        /// Number of documents, training and validation together; 0 for an endless supply of new ones.
        documents: u32 = 0;
    }
}
