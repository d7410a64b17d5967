//! Text from outside, as a message may quote it.

/// A name or value from a file, cut to what a message can hold, with what could steer a terminal or break a line escaped.
pub fn shortened(text: &str) -> String {
    cut(text, 60)
}

/// At most so many characters of a text from a file, escaped as [`shortened`].
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
    fn text_from_files_is_cut_and_cannot_steer_a_terminal() {
        assert_eq!(shortened("a\u{1b}[31m\u{202e}b\n\u{9b}\"'\\"), "a\\u{1b}[31m\\u{202e}b\\n\\u{9b}\"'\\");
        assert_eq!(shortened(&"x".repeat(100_000)).len(), 63);
        assert_eq!(shortened("naïve"), "naïve");
    }
}
