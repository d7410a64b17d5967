//! Options of the data: corpus, tokenizer, windows.

use crate::{choices, options};

options! {
    /// What the model trains on. Paths are relative to the folder that the run is started in.
    pub struct Data: data {
        /// Puts the embedded language, a token a byte, in place of the corpus, tokenizer and `model.vocabulary` that an extended file, or
        /// the file below a `--set`, states.
        embedded: bool = false;
        /// Where the documents come from.
        kind: DataKind = DataKind::Language;
        /// Files, folders or glob patterns; brackets in a name are written [[] and []]. Text is .txt, .text, .md or .markdown, JSON
        /// lines are .jsonl or .ndjson, in any case; a folder gives these, and what it leaves out is told. Packed tokens: files.
        #[when("data.kind" = "text" | "tokens")]
        #[class(bookkeeping)]
        paths: Vec<String> = Vec::new();
        /// What a file of another ending is that a path or a pattern names.
        #[when("data.kind" = "text")]
        #[class(bookkeeping)]
        unknown_files: UnknownFiles = UnknownFiles::Refuse;
        /// What parts the documents of a text file, of no effect on others: "file" for nothing, "blank lines", or the line that stands between two of
        /// them, for example "<|endoftext|>". Empty: "file" if there are several files, else "blank lines".
        #[when("data.kind" = "text")]
        separator: String = String::new();
        /// What to do about bytes that are no UTF-8, halves of surrogate pairs in JSON, and NULs.
        #[when("data.kind" = "text")]
        invalid: Invalid = Invalid::Refuse;
        /// Documents used, in the order of the files; 0 for all.
        #[when("data.kind" = "text")]
        max_documents: u32 = 0;
        /// Characters after which a document is cut; 0 for whole documents.
        #[when("data.kind" = "text")]
        max_document_characters: u32 = 0;
        /// Tokens used, training and validation together; 0 for all.
        #[when("data.kind" = "text")]
        max_tokens: u64 = 0;
        /// Which documents are kept for validation; documents are split before windows are cut. Endless documents of the
        /// language need no split: validation has its own.
        split: SplitOptions;
        /// Documents are separated by the tokenizer's end-of-document token. The language needs it.
        end_of_document: bool = true;
        /// Tokens of a sequence, T.
        sequence_length: u32 = 512 => 2..=131_072;
        /// Which tokens of a sequence are targets.
        targets: TargetRule = TargetRule::Next;
        /// Sequences of a micro-batch, B.
        batch: u32 = 24 => 1..=65_536;
        /// Training windows are shuffled anew in each epoch; else they come in the order of the documents.
        shuffle: bool = true;
        /// The last micro-batch of an epoch is dropped unless it is full; else it is filled up with sequences without targets.
        drop_last: bool = true;
        /// Text to tokens and back.
        tokenizer: Tokenizer;
        /// The embedded artificial language.
        #[when("data.kind" = "language")]
        language: LanguageOptions;
    }
}

choices! {
    /// Where the documents come from.
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
    /// What a file is whose name does not tell.
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
    /// What to do about bytes that are no UTF-8, and about NULs.
    pub enum Invalid {
        /// an error that names file and line.
        Refuse = "refuse",
        /// U+FFFD in their place.
        Replace = "replace",
    }
}

options! {
    /// Text to tokens and back.
    pub struct Tokenizer: data {
        /// Which tokenizer.
        kind: TokenizerKind = TokenizerKind::Bytes;
        /// Most tokens of the vocabulary, the 256 bytes and the end of documents among them; fewer are learned where the text has fewer
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
    /// Which tokenizer.
    pub enum TokenizerKind {
        /// one token a byte.
        Bytes = "bytes",
        /// byte-level BPE, trained on the training documents.
        Bpe = "bpe",
        /// read from a `tokenizer.json`.
        File = "file",
    }
}

impl Tokenizer {
    /// Tokens of the vocabulary, where that is known without reading a file.
    pub fn known_vocabulary(&self) -> Option<u32> {
        match self.kind {
            TokenizerKind::Bytes => Some(256),
            TokenizerKind::Bpe => Some(self.vocabulary),
            TokenizerKind::File => None,
        }
    }
}

choices! {
    /// Which documents are kept for validation.
    pub enum SplitRule {
        /// drawn by `seed`.
        Shuffled = "shuffled",
        /// the last ones.
        Last = "last",
    }
}

options! {
    /// How documents are split into training and validation.
    pub struct SplitOptions: data {
        /// Share of the documents kept for validation; rounded, at least one document on each side.
        fraction: f64 = 0.1 => 0.0001..=0.5;
        /// Which.
        rule: SplitRule = SplitRule::Shuffled;
        /// Draws the shuffled split. Apart from the run's seed, so that runs with other seeds are measured on the same text.
        seed: u64 = 0;
    }
}

choices! {
    /// Which tokens of a sequence are targets.
    pub enum TargetRule {
        /// T targets: the last one is the token after the sequence.
        Next = "next",
        /// T - 1 targets: those in the sequence; its last position has none.
        Inside = "inside",
    }
}

impl TargetRule {
    /// Targets of a window of `tokens` tokens.
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
        /// Which language: its words, and the documents of each stream. Apart from the run's seed, so that runs with other
        /// seeds are measured on the same text.
        seed: u64 = 0;
        /// Latent domains, each with words, inflection and word order of its own.
        domains: u32 = 4 => 1..=16;
        /// Nouns of a domain.
        nouns: u32 = 10 => 1..=200;
        /// Verbs of a domain with an object, and as many without.
        verbs: u32 = 4 => 1..=200;
        /// Adjectives of a domain.
        adjectives: u32 = 4 => 1..=200;
        /// Names that the hero of a document can have.
        names: u32 = 12 => 1..=200;
        /// Share of each class of words that all domains have in common.
        shared: f64 = 0.25 => 0.0..=1.0;
        /// Probability that a document ends after a sentence.
        stop: f64 = 0.3 => 0.01..=1.0;
        /// Documents of the corpus, training and validation together; 0 for endless fresh ones.
        documents: u32 = 0;
    }
}
