//! Intervals of the differences to the control: one row for each arm, its pairs as dots, the margin as a band around zero.
//!
//! An interval that excludes zero is a clear difference, one inside the band is equivalent within the margin. With few pairs an interval is
//! wide; what is beyond the axis is drawn as an arrow, so that one such arm does not hide the others. Arms stand in the order of the study:
//! the chart is no ranking.

use super::{
    Scale, arm_color,
    axis::{Axis, Frame, draw_x_axis},
    labels::{fit, text_width},
    signed,
};
use crate::lab::figure::{Anchor, Color, Figure, Mark, area, line, text};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 180.0;
const RIGHT: f64 = 640.0;
const TOP: f64 = 88.0;
const ROW: f64 = 44.0;
/// The longest part of an interval that is drawn, as a multiple of the largest difference of a pair.
const LONGEST: f64 = 2.5;

/// The row of an arm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArmInterval {
    /// Name of the arm.
    pub name: String,
    /// Its place among the arms of the study, which determines its colour.
    pub index: usize,
    /// The differences of the pairs, arm minus control.
    pub pairs: Vec<f64>,
    /// Their mean, if there is a pair.
    pub mean: Option<f64>,
    /// The interval of the mean, if it is finite.
    pub interval: Option<[f64; 2]>,
    /// The verdict in a few words.
    pub verdict: String,
}

/// The content of the chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Intervals {
    /// The heading.
    pub title: String,
    /// A line below it.
    pub subtitle: String,
    /// The quantity and unit of the x axis, and which side is better.
    pub x_title: String,
    /// M: the margin within which differences do not matter.
    pub margin: f64,
    /// The arms.
    pub arms: Vec<ArmInterval>,
}

impl Intervals {
    /// Draws the chart.
    pub fn figure(&self) -> Figure {
        let frame = Frame { left: LEFT, top: TOP, right: RIGHT, bottom: TOP + ROW * self.arms.len().max(1) as f64 };
        let x = self.axis(&frame);
        let mut marks = vec![
            text([20.0, 30.0], 18.0, Color::INK, &fit(&self.title, 18.0, WIDTH - 40.0)).bold(),
            text([20.0, 50.0], 13.0, Color::GREY, &fit(&self.subtitle, 13.0, WIDTH - 40.0)),
            area([x.place(-self.margin), frame.top], [x.place(self.margin), frame.bottom], Color::GREY, 0.13),
        ];
        let note = format!("margin \u{b1}{}", self.margin);
        marks.push(text([x.place(0.0), frame.top - 8.0], 11.0, Color::GREY, &note).anchor(Anchor::Middle));
        for tick in x.ticks(8.0) {
            let at = x.place(tick);
            marks.push(line(vec![[at, frame.top], [at, frame.bottom]], Color::PALE, 1.0));
        }
        marks.push(line(vec![[x.place(0.0), frame.top], [x.place(0.0), frame.bottom]], Color::INK, 1.0));
        for (row, arm) in self.arms.iter().enumerate() {
            draw_row(&mut marks, arm, &x, frame.top + ROW * (row as f64 + 0.5));
        }
        draw_x_axis(&mut marks, &frame, &x, true);
        let middle = (LEFT + RIGHT) / 2.0;
        marks.push(text([middle, frame.bottom + 40.0], 12.0, Color::GREY, &self.x_title).anchor(Anchor::Middle));
        Figure { width: WIDTH, height: frame.bottom + 56.0, description: self.description(), marks }
    }

    fn description(&self) -> String {
        let said: Vec<String> = self.arms.iter().map(|arm| format!("{}: {}, {}", arm.name, arm.verdict, numbers(arm))).collect();
        format!("{}. {}", self.title, said.join("; "))
    }

    /// An axis that is symmetric enough to contain zero, the margin, all pairs and the intervals up to a limit.
    fn axis(&self, frame: &Frame) -> Axis {
        let finite = |value: &f64| value.is_finite();
        let differences = || self.arms.iter().flat_map(|arm| arm.pairs.iter().copied().chain(arm.mean)).filter(finite);
        let largest = differences().fold(1.5 * self.margin, |largest, value| largest.max(value.abs()));
        let limit = LONGEST * largest;
        let ends = self.arms.iter().filter_map(|arm| arm.interval).flatten().filter(finite).map(|end| end.clamp(-limit, limit));
        let all = differences().chain(ends).chain([-1.5 * self.margin, 1.5 * self.margin]);
        let [low, high] = all.fold([0.0_f64, 0.0_f64], |[low, high], value| [low.min(value), high.max(value)]);
        let room = 0.04 * (high - low).max(1e-9);
        Axis::new(Scale::Linear, [low - room, high + room], [frame.left, frame.right])
    }
}

/// Mean, interval and number of pairs.
fn numbers(arm: &ArmInterval) -> String {
    let pairs = match arm.pairs.len() {
        1 => "1 pair".to_string(),
        n => format!("{n} pairs"),
    };
    match (arm.mean, arm.interval) {
        (Some(mean), Some([low, high])) => format!("{} ({} to {}), {pairs}", signed(mean, 4), signed(low, 4), signed(high, 4)),
        (Some(mean), None) => format!("{} (no interval), {pairs}", signed(mean, 4)),
        (None, _) => pairs,
    }
}

fn draw_row(marks: &mut Vec<Mark>, arm: &ArmInterval, x: &Axis, middle: f64) {
    let color = arm_color(arm.index);
    let name = fit(&arm.name, 13.0, LEFT - 36.0);
    marks.push(text([LEFT - 14.0, middle + 4.0], 13.0, Color::INK, &name).anchor(Anchor::End));
    for pair in arm.pairs.iter().filter(|pair| pair.is_finite()) {
        let at = x.place(*pair);
        marks.push(line(vec![[at, middle + 7.0], [at, middle + 14.0]], color, 1.5).opacity(0.6));
    }
    if let Some([low, high]) = arm.interval {
        let (from, to) = (x.place(low), x.place(high));
        marks.push(line(vec![[from, middle], [to, middle]], color, 3.0));
        for (end, at, inward) in [(low, from, 1.0), (high, to, -1.0)] {
            marks.push(match x.contains(end) {
                true => line(vec![[at, middle - 5.0], [at, middle + 5.0]], color, 1.5),
                false => line(vec![[at + 7.0 * inward, middle - 5.0], [at, middle], [at + 7.0 * inward, middle + 5.0]], color, 2.0),
            });
        }
    }
    if let Some(mean) = arm.mean.filter(|mean| mean.is_finite()) {
        marks.push(Mark::Dot { at: [x.place(mean), middle], radius: 4.5, color });
    }
    let numbers = numbers(arm);
    let size = if text_width(&numbers, 12.0) > WIDTH - RIGHT - 24.0 { 11.0 } else { 12.0 };
    let verdict = fit(&arm.verdict, 13.0, WIDTH - RIGHT - 24.0);
    marks.push(text([RIGHT + 16.0, middle - 3.0], 13.0, Color::INK, &verdict).bold());
    marks.push(text([RIGHT + 16.0, middle + 13.0], size, Color::GREY, &numbers));
}
