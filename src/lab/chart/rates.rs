//! Learning rates: what was planned as a dashed line, what was applied as a solid one. They lie on each other if the run did as it was told.

use super::{
    Scale, arm_color,
    axis::{Axis, Frame, draw_grid, pieces},
    labels::{LABEL_SPACING, Label, draw_labels, fit},
};
use crate::lab::figure::{Anchor, Color, Figure, line, text};

const WIDTH: f64 = 900.0;
const FRAME: Frame = Frame { left: 76.0, top: 88.0, right: 664.0, bottom: 288.0 };
const LABEL_WIDTH: f64 = WIDTH - FRAME.right - 28.0;

/// One schedule, of one arm or of several with the same.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rate {
    /// The arms.
    pub name: String,
    /// The place of the first of them among the arms of the study, which determines the colour.
    pub index: usize,
    /// (update, rate) by the config.
    pub planned: Vec<[f64; 2]>,
    /// (update, rate) by the log.
    pub applied: Vec<[f64; 2]>,
}

/// The content of the chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rates {
    /// The heading.
    pub title: String,
    /// A line below it.
    pub subtitle: String,
    /// The quantity of the y axis.
    pub y_title: String,
    /// The schedules.
    pub rates: Vec<Rate>,
    /// Updates at which an epoch of the training data ends.
    pub epochs: Vec<f64>,
}

impl Rates {
    /// Draws the chart.
    pub fn figure(&self) -> Figure {
        let bottom = FRAME.bottom.max(FRAME.top + LABEL_SPACING * self.rates.len() as f64);
        let frame = Frame { bottom, ..FRAME };
        let points = || self.rates.iter().flat_map(|rate| rate.planned.iter().chain(&rate.applied)).filter(|point| point[1].is_finite());
        let last = points().fold(1.0, |last: f64, point| last.max(point[0]));
        let peak = points().fold(0.0, |peak: f64, point| peak.max(point[1]));
        let x = Axis::new(Scale::Linear, [0.0, last], [frame.left, frame.right]);
        let y = Axis::new(Scale::Linear, [0.0, if peak > 0.0 { 1.05 * peak } else { 1.0 }], [frame.bottom, frame.top]);
        let mut marks = vec![
            text([20.0, 30.0], 18.0, Color::INK, &fit(&self.title, 18.0, WIDTH - 40.0)).bold(),
            text([20.0, 50.0], 13.0, Color::GREY, &fit(&self.subtitle, 13.0, WIDTH - 40.0)),
            text([20.0, 74.0], 12.0, Color::GREY, &self.y_title),
            text([frame.right, frame.bottom + 36.0], 12.0, Color::GREY, "update").anchor(Anchor::End),
        ];
        draw_grid(&mut marks, &frame, &x, &y, 4.0);
        for epoch in self.epochs.iter().filter(|epoch| x.contains(**epoch)) {
            let at = x.place(*epoch);
            marks.push(line(vec![[at, frame.bottom - 8.0], [at, frame.bottom]], Color::GREY, 0.8).opacity(0.7));
        }
        let mut labels = Vec::new();
        for rate in &self.rates {
            let color = arm_color(rate.index);
            marks.extend(pieces(&rate.applied, &x, &y).into_iter().map(|piece| line(piece, color, 4.0).opacity(0.4)));
            marks.extend(pieces(&rate.planned, &x, &y).into_iter().map(|piece| line(piece, color, 1.3).dash([5.0, 3.0])));
            if let Some([at, value]) = rate.applied.last().or(rate.planned.last()) {
                let name = fit(&rate.name, 13.0, LABEL_WIDTH);
                labels.push(Label { ink: Color::INK, ..Label::new(x.place(*at), y.place(*value), name, color, false) });
            }
        }
        draw_labels(&mut marks, labels, &frame, frame.bottom);
        Figure { width: WIDTH, height: frame.bottom + 52.0, description: self.description(), marks }
    }

    fn description(&self) -> String {
        let names: Vec<&str> = self.rates.iter().map(|rate| rate.name.as_str()).collect();
        format!("{}: {}", self.title, names.join("; "))
    }
}
