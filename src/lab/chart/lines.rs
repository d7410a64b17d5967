//! A chart of the app as a file: lines with their names at the ends, bands, faint values behind smoothed lines.

use super::{
    Scale,
    axis::{Axis, Frame, draw_grid, pieces},
    labels::{LABEL_SPACING, Label, backed, draw_labels, fit, text_width},
};
use crate::lab::figure::{Anchor, Color, Figure, Mark, line, text};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 76.0;
const RIGHT: f64 = 660.0;
const HEIGHT: f64 = 340.0;
/// Width of the labels to the right of the data.
const LABEL_WIDTH: f64 = WIDTH - RIGHT - 28.0;

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawnLine {
    /// Its name.
    pub name: String,
    /// Its colour.
    pub color: Color,
    /// Positions and values, in order.
    pub points: Vec<[f64; 2]>,
    /// Position, lowest and highest value.
    pub band: Vec<[f64; 3]>,
    /// Values behind a smoothed line.
    pub raw: Vec<[f64; 2]>,
    /// Whether only single points were measured, which are marked.
    pub is_dotted: bool,
}

/// The content of the chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Lines {
    /// The heading.
    pub title: String,
    /// Quantity and unit of the values.
    pub y_title: String,
    /// Quantity of the x axis.
    pub x_title: String,
    /// Scale and range of the x axis.
    pub x: (Scale, [f64; 2]),
    /// Scale and range of the values.
    pub y: (Scale, [f64; 2]),
    /// The lines.
    pub lines: Vec<DrawnLine>,
    /// Name and value of horizontal lines.
    pub levels: Vec<(String, f64)>,
    /// Positions on the x axis with a word.
    pub marks: Vec<(f64, String)>,
    /// The description for those who cannot see it.
    pub description: String,
}

impl Lines {
    /// Draws the chart.
    pub fn figure(&self) -> Figure {
        let height = HEIGHT.max(LABEL_SPACING * (self.lines.len() + self.levels.len()) as f64);
        let frame = Frame { left: LEFT, top: TOP, right: RIGHT, bottom: TOP + height };
        let x = Axis::new(self.x.0, self.x.1, [frame.left, frame.right]);
        let y = Axis::new(self.y.0, self.y.1, [frame.bottom, frame.top]);
        let log = |scale: Scale| if scale == Scale::Log { ", log" } else { "" };
        let mut marks = vec![
            text([20.0, 30.0], 18.0, Color::INK, &fit(&self.title, 18.0, WIDTH - 40.0)).bold(),
            text([20.0, TOP - 22.0], 12.0, Color::GREY, &format!("{}{}", self.y_title, log(self.y.0))),
        ];
        draw_grid(&mut marks, &frame, &x, &y, 6.0);
        for (at, word) in self.marks.iter().filter(|(at, _)| x.contains(*at)) {
            let place = x.place(*at);
            marks.push(line(vec![[place, frame.top], [place, frame.bottom]], Color::GREY, 0.8).dash([2.0, 3.0]).opacity(0.7));
            marks.extend(backed([place + 3.0, frame.bottom - 4.0], 11.0, Color::GREY, word, Anchor::Start));
        }
        let mut labels = Vec::new();
        for (name, value) in self.levels.iter().filter(|(_, value)| y.scale.accepts(*value) && y.contains(*value)) {
            let at = y.place(*value);
            marks.push(line(vec![[LEFT, at], [RIGHT, at]], Color::GREY, 1.2).dash([6.0, 4.0]));
            let name = fit(name, 13.0, LABEL_WIDTH - 60.0);
            labels.push(Label::new(RIGHT, at, format!("{name} {value:.4}"), Color::GREY, false));
        }
        for drawn in &self.lines {
            labels.extend(draw_line(&mut marks, drawn, &x, &y));
        }
        draw_labels(&mut marks, labels, &frame, frame.bottom);
        let bottom = frame.bottom + 38.0;
        let x_title = format!("{}{}", self.x_title, log(self.x.0));
        marks.push(text([RIGHT, bottom], 12.0, Color::GREY, &x_title).anchor(Anchor::End));
        Figure { width: WIDTH, height: bottom + 16.0, description: self.description.clone(), marks }
    }
}

/// A line and its label, at its last value within the chart.
fn draw_line(marks: &mut Vec<Mark>, drawn: &DrawnLine, x: &Axis, y: &Axis) -> Option<Label> {
    let color = drawn.color;
    let seen = |points: &[[f64; 2]]| -> Vec<[f64; 2]> { points.iter().copied().filter(|point| x.contains(point[0])).collect() };
    let edge = |side: usize| {
        let inside = drawn.band.iter().filter(|band| x.contains(band[0]) && y.scale.accepts(band[1]));
        inside.map(move |band| [x.place(band[0]), y.place(band[side])])
    };
    let outline: Vec<[f64; 2]> = edge(1).chain(edge(2).rev()).collect();
    if outline.len() > 2 {
        marks.push(Mark::Area { points: outline, color, opacity: 0.15 });
    }
    marks.extend(pieces(&seen(&drawn.raw), x, y).into_iter().map(|piece| line(piece, color, 0.8).opacity(0.35)));
    let points = seen(&drawn.points);
    for piece in pieces(&points, x, y) {
        if piece.len() == 1 || drawn.is_dotted {
            marks.extend(piece.iter().map(|at| Mark::Dot { at: *at, radius: 2.5, color }));
        }
        marks.push(line(piece, color, 2.0));
    }
    let [at, value] = points.iter().rfind(|point| y.scale.accepts(point[1])).copied()?;
    let said = format!(" {value:.4}");
    let name = fit(&drawn.name, 13.0, LABEL_WIDTH - text_width(&said, 13.0));
    let label = Label::new(x.place(at), y.place(value), format!("{name}{said}"), color, false);
    Some(Label { ink: Color::INK, is_far: RIGHT - x.place(at) >= 12.0, ..label })
}
