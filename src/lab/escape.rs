//! Untrusted text for people: control characters, and those that reorder a line, are written as escapes.

/// Text with control characters escaped as `\u{1b}`, except line feeds and tabs.
pub fn visible(text: &str) -> String {
    escaped(text, |c, escaped| escaped.extend(c.escape_unicode()))
}

/// An untrusted name for use within a line: its line feeds are escaped as well, so that it cannot forge a line.
pub fn name(text: &str) -> String {
    visible(text).replace('\n', "\\n").replace('\t', "\\t")
}

/// Text with control characters written by `escape`, except line feeds and tabs.
pub fn escaped(text: &str, escape: impl Fn(char, &mut String)) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            c if steers(c) => escape(c, &mut shown),
            c => shown.push(c),
        }
    }
    shown
}

/// Control characters, line and paragraph separators, and marks that change the direction of a line.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(visible("a\u{1b}[2Jb\tc\nd\r\u{9b}\u{202e}e"), "a\\u{1b}[2Jb\tc\nd\\u{d}\\u{9b}\\u{202e}e");
        assert_eq!(name("run\nerror: forged\u{7f}"), "run\\nerror: forged\\u{7f}");
        assert_eq!(visible("größer 🦀"), "größer 🦀");
    }
}
