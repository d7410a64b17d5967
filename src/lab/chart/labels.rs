//! Direct labels at the ends of lines, and the widths of texts.

use super::axis::Frame;
use crate::lab::figure::{Anchor, Color, Mark, area, line, text};

/// Vertical distance of labels.
pub(in crate::lab) const LABEL_SPACING: f64 = 17.0;

/// A label to the right of the data for a line that ends at `from`.
pub(in crate::lab) struct Label {
    /// The end of its line.
    pub from: [f64; 2],
    /// What it says.
    pub text: String,
    /// Colour of the leader.
    pub color: Color,
    /// Colour of the text.
    pub ink: Color,
    /// Emphasis.
    pub bold: bool,
    /// Whether a leader joins it to its line.
    pub leader: bool,
    /// Whether its line ends within the data, so that the leader crosses them: it is dotted.
    pub is_far: bool,
}

impl Label {
    /// A label with a leader, both in the colour of the line.
    pub fn new(x: f64, y: f64, text: String, color: Color, bold: bool) -> Self {
        Self { from: [x, y], text, color, ink: color, bold, leader: true, is_far: false }
    }
}

/// Arranges the labels vertically in the order of their lines, without overlap, each as close to its line as possible, between the top of
/// the frame and `lowest`.
pub(in crate::lab) fn draw_labels(marks: &mut Vec<Mark>, mut labels: Vec<Label>, frame: &Frame, lowest: f64) {
    labels.sort_by(|a, b| a.from[1].total_cmp(&b.from[1]));
    // Groups of labels that touch are centred on the mean of their lines, until none overlap.
    let mut groups: Vec<(f64, usize)> = Vec::new();
    for label in &labels {
        groups.push((label.from[1], 1));
        while let [.., (above, m), (below, n)] = groups[..] {
            let apart = LABEL_SPACING * (m + n) as f64 / 2.0;
            if below - above >= apart {
                break;
            }
            groups.truncate(groups.len() - 2);
            groups.push(((above * m as f64 + below * n as f64) / (m + n) as f64, m + n));
        }
    }
    let mut places: Vec<f64> = Vec::new();
    for (centre, count) in groups {
        let half = LABEL_SPACING * (count - 1) as f64 / 2.0;
        let centre = centre.clamp(frame.top + half, (lowest - half).max(frame.top + half));
        places.extend((0..count).map(|i| centre - half + LABEL_SPACING * i as f64));
    }
    // Groups that the ends of the page moved may touch their neighbours: those above give way, then those below.
    for i in (1..places.len()).rev() {
        places[i - 1] = places[i - 1].min(places[i] - LABEL_SPACING);
    }
    if let Some(first) = places.first_mut() {
        *first = first.max(frame.top);
    }
    for i in 1..places.len() {
        places[i] = places[i].max(places[i - 1] + LABEL_SPACING);
    }
    for (label, at) in labels.iter().zip(places) {
        if label.leader {
            let [x, y] = label.from;
            let right = frame.right;
            let leader = vec![[x, y], [right + 2.0, y], [right + 12.0, at], [right + 16.0, at]];
            let leader = line(leader, label.color, 0.8).opacity(0.6);
            marks.push(if label.is_far { leader.dash([1.0, 4.0]) } else { leader });
        }
        let mark = text([frame.right + 20.0, at + 4.0], 13.0, label.ink, &label.text);
        marks.push(if label.bold { mark.bold() } else { mark });
    }
}

/// A small text on a white ground, so that it can be read over lines.
pub(in crate::lab) fn backed(at: [f64; 2], size: f64, color: Color, said: &str, anchor: Anchor) -> [Mark; 2] {
    let width = text_width(said, size);
    let left = match anchor {
        Anchor::Start => at[0],
        Anchor::Middle => at[0] - width / 2.0,
        Anchor::End => at[0] - width,
    };
    let ground = area([left - 1.0, at[1] - size + 1.0], [left + width + 1.0, at[1] + 3.0], Color::WHITE, 0.85);
    [ground, text(at, size, color, said).anchor(anchor)]
}

/// The width of a text in pixels, rounded up: fonts differ, so it is that of a wide one.
pub(in crate::lab) fn text_width(text: &str, size: f64) -> f64 {
    let width = |character: char| match character {
        'i' | 'j' | 'l' | '.' | ',' | ':' | ';' | '\'' | '|' | '!' => 0.28,
        ' ' | 'f' | 't' | 'r' | 'I' | '(' | ')' | '[' | ']' | '-' | '/' | '"' => 0.36,
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.88,
        'A'..='Z' | '=' | '+' | '\u{2212}' => 0.68,
        character if character.is_ascii() => 0.57,
        _ => 1.0,
    };
    text.chars().map(width).sum::<f64>() * size
}

/// A text no wider than `width` pixels; a longer one loses its middle, so that names that differ at their ends are distinct.
pub(in crate::lab) fn fit(text: &str, size: f64, width: f64) -> String {
    if text_width(text, size) <= width {
        return text.to_string();
    }
    let characters: Vec<char> = text.chars().collect();
    for kept in (2..characters.len()).rev() {
        let (head, tail) = (kept.div_ceil(2), kept / 2);
        let short: String = characters[..head].iter().chain(&['\u{2026}']).chain(&characters[characters.len() - tail..]).collect();
        if text_width(&short, size) <= width {
            return short;
        }
    }
    "\u{2026}".to_string()
}
