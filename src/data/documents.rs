//! Documents of plain text: where one ends and the next begins, and which of them a config takes.

use crate::run::config::Data;

/// The separator between documents of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Separator {
    /// A text is one document.
    Nothing,
    /// Blank lines.
    BlankLines,
    /// Lines with this text.
    Line(String),
}

impl Separator {
    /// That of a config for a number of texts.
    pub fn of(data: &Data, texts: usize) -> Separator {
        match data.separator.as_str() {
            "" if texts > 1 => Separator::Nothing,
            "file" => Separator::Nothing,
            "" | "blank lines" => Separator::BlankLines,
            line => Separator::Line(line.into()),
        }
    }

    fn is(&self, line: &str) -> bool {
        match self {
            Separator::Nothing => false,
            Separator::BlankLines => line.trim().is_empty(),
            Separator::Line(separator) => line.trim() == separator,
        }
    }
}

/// Joins lines to documents.
pub struct Splitter<'a> {
    separator: &'a Separator,
    document: String,
}

impl<'a> Splitter<'a> {
    /// A splitter at the start of a text.
    pub fn new(separator: &'a Separator) -> Splitter<'a> {
        Splitter { separator, document: String::new() }
    }

    /// The next line, without its ending. Returns the document that it separates from the next one.
    pub fn line(&mut self, line: &str) -> Option<String> {
        if self.separator.is(line) {
            return Some(std::mem::take(&mut self.document));
        }
        self.document += line;
        self.document.push('\n');
        None
    }

    /// Bytes of the document so far.
    pub fn bytes(&self) -> usize {
        self.document.len()
    }

    /// The document at the end of the text.
    pub fn rest(self) -> String {
        self.document
    }
}

/// Which documents, and how much of each, a config takes.
pub struct Limits {
    left: usize,
    most_characters: usize,
}

impl Limits {
    /// Those of a config, before the first document.
    pub fn of(data: &Data) -> Limits {
        let unlimited = |limit: u32| if limit == 0 { usize::MAX } else { limit as usize };
        Limits { left: unlimited(data.max_documents), most_characters: unlimited(data.max_document_characters) }
    }

    /// Passes what is taken of a document on; documents without a visible character are skipped. Returns whether more are wanted.
    ///
    /// # Errors
    /// Those of `take`.
    pub fn pass<E>(&mut self, document: &str, mut take: impl FnMut(&str) -> Result<bool, E>) -> Result<bool, E> {
        let text = document.trim_matches('\n');
        if text.trim().is_empty() {
            return Ok(true);
        }
        let end = text.char_indices().nth(self.most_characters).map_or(text.len(), |(end, _)| end);
        self.left -= 1;
        Ok(take(&text[..end])? && self.left > 0)
    }
}
