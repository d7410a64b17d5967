//! Charts as [`Figure`](super::figure::Figure)s: plain data in, marks out. Each has a description for screen readers, and the report prints its
//! numbers as a table below it.
//!
//! Lines are labelled at their ends, not in a legend; text is dark on white, and the colour of an arm is that of its lines. The order of the
//! colours is fixed: neighbours in it can be told apart by colour-blind readers, and an arm has the same colour in every chart of a report.

pub(crate) mod axis;
pub mod curves;
pub mod heat;
pub mod intervals;
pub(in crate::lab) mod labels;
pub mod lines;
pub mod rates;

use super::figure::Color;
pub use axis::Scale;

/// The colours of arms, in order.
pub const ARM_COLORS: [Color; 8] = [
    Color(0x0072b2),
    Color(0xd55e00),
    Color(0x009e73),
    Color(0xcc79a7),
    Color(0xe69f00),
    Color(0x56b4e9),
    Color(0x7a5195),
    Color(0x8c8c8c),
];

/// The colour of an arm, by its place among the arms.
pub fn arm_color(index: usize) -> Color {
    ARM_COLORS[index % ARM_COLORS.len()]
}

/// The dashes of an arm's line: solid for the first eight arms, then patterns, so that a colour that occurs again looks different.
pub(in crate::lab) fn arm_dash(index: usize) -> Option<[f64; 2]> {
    [None, Some([7.0, 3.0]), Some([2.0, 2.0])][(index / ARM_COLORS.len()) % 3]
}

/// A number with its sign, a true minus, and as many decimals.
pub(crate) fn signed(value: f64, decimals: usize) -> String {
    format!("{value:+.decimals$}").replace('-', "\u{2212}")
}

/// A number with a comma every three digits.
pub fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
