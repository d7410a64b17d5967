//! A drawing as plain data: lines, areas, dots and text on a white page, in pixels from the top left.
//!
//! It is written as SVG here, and the native package rasterises that SVG as PNG, so both show the same image. The colours
//! are those of Okabe and Ito, which colour-blind readers can distinguish; text is escaped, so a run may have any name.

use std::fmt::Write;

/// An sRGB colour, `0xRRGGBB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Color(pub u32);

impl Color {
    /// Titles and labels.
    pub const INK: Color = Color(0x222222);
    /// Axes and captions.
    pub const GREY: Color = Color(0x5f5f5f);
    /// Grid lines.
    pub const PALE: Color = Color(0xe6e6e6);
    /// The page.
    pub const WHITE: Color = Color(0xffffff);
    /// Okabe-Ito blue.
    pub const BLUE: Color = Color(0x0072b2);
    /// Okabe-Ito vermilion.
    pub const VERMILION: Color = Color(0xd55e00);
    /// Okabe-Ito bluish green, darkened until its text has contrast 4.5 on white.
    pub const GREEN: Color = Color(0x00805d);
    /// Okabe-Ito reddish purple, darkened likewise.
    pub const PURPLE: Color = Color(0xb0478a);
}

/// The alignment of a text relative to its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// The text starts there.
    Start,
    /// The text is centred there.
    Middle,
    /// The text ends there.
    End,
}

/// One mark; later marks are on top.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// Line segments through points.
    Line {
        /// The points.
        points: Vec<[f64; 2]>,
        /// Colour of the stroke.
        color: Color,
        /// Width of the stroke.
        width: f64,
        /// Lengths of dash and gap; `None` for a solid line.
        dash: Option<[f64; 2]>,
        /// 0 (invisible) to 1.
        opacity: f64,
    },
    /// Separate line segments of one colour.
    Segments {
        /// Start and end of each.
        ends: Vec<[[f64; 2]; 2]>,
        /// Colour of the strokes.
        color: Color,
        /// Width of the strokes.
        width: f64,
    },
    /// The inside of a polygon.
    Area {
        /// The corners.
        points: Vec<[f64; 2]>,
        /// Its colour.
        color: Color,
        /// 0 (invisible) to 1.
        opacity: f64,
    },
    /// Rectangles of one colour, with sharp edges: the cells of a heat map.
    Cells {
        /// Left, top, width and height of each.
        cells: Vec<[f64; 4]>,
        /// Their colour.
        color: Color,
    },
    /// A disc with a white rim.
    Dot {
        /// Its centre.
        at: [f64; 2],
        /// Its radius without the rim.
        radius: f64,
        /// Its colour.
        color: Color,
    },
    /// One line of text.
    Text {
        /// Start, middle or end of the base line.
        at: [f64; 2],
        /// The text, unescaped.
        text: String,
        /// Font size.
        size: f64,
        /// Its colour.
        color: Color,
        /// Its alignment at `at`.
        anchor: Anchor,
        /// Emphasis.
        bold: bool,
    },
}

/// A solid line.
pub(super) fn line(points: Vec<[f64; 2]>, color: Color, width: f64) -> Mark {
    Mark::Line { points, color, width, dash: None, opacity: 1.0 }
}

/// A translucent rectangle.
pub(super) fn area([left, top]: [f64; 2], [right, bottom]: [f64; 2], color: Color, opacity: f64) -> Mark {
    Mark::Area { points: vec![[left, top], [right, top], [right, bottom], [left, bottom]], color, opacity }
}

/// A text that starts at a point.
pub(super) fn text(at: [f64; 2], size: f64, color: Color, text: &str) -> Mark {
    Mark::Text { at, text: text.to_string(), size, color, anchor: Anchor::Start, bold: false }
}

impl Mark {
    /// A dashed line; nothing else is changed.
    pub(super) fn dash(mut self, lengths: [f64; 2]) -> Self {
        if let Mark::Line { dash, .. } = &mut self {
            *dash = Some(lengths);
        }
        self
    }

    /// A translucent line; nothing else is changed.
    pub(super) fn opacity(mut self, share: f64) -> Self {
        if let Mark::Line { opacity, .. } = &mut self {
            *opacity = share;
        }
        self
    }

    /// A text with another alignment; nothing else is changed.
    pub(super) fn anchor(mut self, to: Anchor) -> Self {
        if let Mark::Text { anchor, .. } = &mut self {
            *anchor = to;
        }
        self
    }

    /// An emphasised text; nothing else is changed.
    pub(super) fn bold(mut self) -> Self {
        if let Mark::Text { bold, .. } = &mut self {
            *bold = true;
        }
        self
    }
}

/// A page with marks.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Width of the page.
    pub width: f64,
    /// Height of the page.
    pub height: f64,
    /// The description for screen readers: one sentence with the result.
    pub description: String,
    /// The marks, from back to front.
    pub marks: Vec<Mark>,
}

impl Figure {
    /// A self-contained SVG document.
    pub fn to_svg(&self) -> String {
        let page = format!("<rect width=\"{}\" height=\"{}\" fill=\"#ffffff\"/>\n", number(self.width), number(self.height));
        self.document(&page, &self.marks)
    }

    /// The same on transparent pages with at most so many marks each, to be drawn one over the other on a white one, so that a drawing
    /// can be interrupted.
    ///
    /// # Panics
    /// If there are to be none on a page.
    pub fn layers(&self, marks: usize) -> impl Iterator<Item = String> {
        self.marks.chunks(marks).map(|marks| self.document("", marks))
    }

    fn document(&self, page: &str, marks: &[Mark]) -> String {
        let (width, height) = (number(self.width), number(self.height));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
             role=\"img\" font-family=\"Ubuntu, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif\" stroke-linejoin=\"round\">\n\
             <title>{}</title>\n{page}",
            escape(&self.description)
        );
        for mark in marks {
            write_mark(&mut svg, mark).expect("writing to a String cannot fail");
        }
        svg + "</svg>\n"
    }
}

fn write_mark(svg: &mut String, mark: &Mark) -> std::fmt::Result {
    match mark {
        Mark::Line { points, color, width, dash, opacity } => {
            let points: Vec<String> = points.iter().map(place).collect();
            write!(svg, "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"{}\"", hex(*color), number(*width))?;
            if let Some([on, off]) = dash {
                write!(svg, " stroke-dasharray=\"{} {}\"", number(*on), number(*off))?;
            }
            if *opacity < 1.0 {
                write!(svg, " stroke-opacity=\"{}\"", number(*opacity))?;
            }
            writeln!(svg, " points=\"{}\"/>", points.join(" "))
        }
        Mark::Segments { ends, color, width } => {
            let path: String = ends.iter().map(|[from, to]| format!("M{}L{}", place(from), place(to))).collect();
            writeln!(svg, "<path fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" d=\"{path}\"/>", hex(*color), number(*width))
        }
        Mark::Area { points, color, opacity } => {
            let points: Vec<String> = points.iter().map(place).collect();
            write!(svg, "<polygon fill=\"{}\"", hex(*color))?;
            if *opacity < 1.0 {
                write!(svg, " fill-opacity=\"{}\"", number(*opacity))?;
            }
            writeln!(svg, " points=\"{}\"/>", points.join(" "))
        }
        Mark::Cells { cells, color } => {
            let cell = |[left, top, width, height]: &[f64; 4]| {
                let [left, top, width, height] = [left, top, width, height].map(|value| number(*value));
                format!("M{left},{top}h{width}v{height}h-{width}z")
            };
            let path: String = cells.iter().map(cell).collect();
            writeln!(svg, "<path shape-rendering=\"crispEdges\" fill=\"{}\" d=\"{path}\"/>", hex(*color))
        }
        Mark::Dot { at: [x, y], radius, color } => writeln!(
            svg,
            "<circle cx=\"{}\" cy=\"{}\" r=\"{}\" fill=\"{}\" stroke=\"#ffffff\" stroke-width=\"1\"/>",
            number(*x),
            number(*y),
            number(*radius),
            hex(*color)
        ),
        Mark::Text { at: [x, y], text, size, color, anchor, bold } => {
            let anchor = match anchor {
                Anchor::Start => "start",
                Anchor::Middle => "middle",
                Anchor::End => "end",
            };
            let weight = if *bold { " font-weight=\"600\"" } else { "" };
            writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" font-size=\"{}\" fill=\"{}\" text-anchor=\"{anchor}\"{weight}>{}</text>",
                number(*x),
                number(*y),
                number(*size),
                hex(*color),
                escape(text)
            )
        }
    }
}

/// Text for XML; characters that XML forbids are replaced.
pub fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            other if other.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

fn hex(color: Color) -> String {
    format!("#{:06x}", color.0)
}

/// A point as `x,y`.
fn place([x, y]: &[f64; 2]) -> String {
    format!("{},{}", number(*x), number(*y))
}

/// A coordinate with at most two decimals, and none where they are zero.
fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    match text.trim_end_matches('0').trim_end_matches('.') {
        "-0" => "0".to_string(),
        short => short.to_string(),
    }
}
