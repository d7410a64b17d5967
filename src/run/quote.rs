//! Quoting untrusted text in messages.

/// A name or value from a file, truncated for a message, with line breaks and terminal control characters escaped.
pub fn shortened(text: &str) -> String {
    cut(text, 60)
}

/// At most this many characters of a text from a file, escaped as by [`shortened`].
pub fn cut(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == most {
            return shown + "...";
        }
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_text_is_truncated_and_escaped() {
        assert_eq!(shortened("a\u{1b}[31m\u{202e}b\n\u{9b}\"'\\"), "a\\u{1b}[31m\\u{202e}b\\n\\u{9b}\"'\\");
        assert_eq!(shortened(&"x".repeat(100_000)).len(), 63);
        assert_eq!(shortened("naïve"), "naïve");
    }
}
