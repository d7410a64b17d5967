//! Axes: values to positions, round ticks and their names.

use crate::lab::figure::{Anchor, Color, Mark, line, text};

/// The scale of an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Linear.
    #[default]
    Linear,
    /// Logarithmic. Values that are not positive are omitted.
    Log,
}

impl Scale {
    /// Whether a value has a place.
    pub(crate) fn accepts(self, value: f64) -> bool {
        value.is_finite() && (self == Scale::Linear || value > 0.0)
    }

    fn map(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log => value.ln(),
        }
    }

    #[cfg(feature = "ui")]
    fn unmap(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log => value.exp(),
        }
    }
}

/// The rectangle of the data, in pixels.
#[derive(Clone, Copy, Debug)]
pub(in crate::lab) struct Frame {
    pub left: f64,
    pub top: f64,
    pub right: f64,
    pub bottom: f64,
}

/// Values to positions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    /// Linear or logarithmic.
    pub scale: Scale,
    range: [f64; 2],
    pixels: [f64; 2],
}

impl Axis {
    /// The axis on which `range` fills `pixels`.
    pub fn new(scale: Scale, range: [f64; 2], pixels: [f64; 2]) -> Self {
        Self { scale, range, pixels }
    }

    /// The position of a value; values beyond the range are at its ends.
    pub fn place(&self, value: f64) -> f64 {
        let [low, high] = self.range.map(|end| self.scale.map(end));
        let share = (self.scale.map(value) - low) / (high - low).max(f64::MIN_POSITIVE);
        self.pixels[0] + share.clamp(0.0, 1.0) * (self.pixels[1] - self.pixels[0])
    }

    /// The value at a position.
    #[cfg(feature = "ui")]
    pub fn value(&self, position: f64) -> f64 {
        let [low, high] = self.range.map(|end| self.scale.map(end));
        let share = (position - self.pixels[0]) / (self.pixels[1] - self.pixels[0]);
        self.scale.unmap(low + share * (high - low))
    }

    /// Whether a value is within the range.
    pub fn contains(&self, value: f64) -> bool {
        (self.range[0]..=self.range[1]).contains(&value)
    }

    /// About `count` round values within the range.
    pub fn ticks(&self, count: f64) -> Vec<f64> {
        let [low, high] = self.range;
        if self.scale == Scale::Log && high / low > 5.0 {
            let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
            let steps: &[f64] = if high / low > 1000.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
            let values = decades.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
            return values.filter(|value| (low..=high).contains(value)).collect();
        }
        let rough = (high - low) / count;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough);
        let step = step.unwrap_or(rough);
        (0..).map(|i| ((low / step).ceil() + f64::from(i)) * step).take_while(|value| *value <= high * (1.0 + 1e-12)).collect()
    }
}

/// Grid lines and tick names of both axes, the lower axis as a line.
pub(in crate::lab) fn draw_grid(marks: &mut Vec<Mark>, frame: &Frame, x: &Axis, y: &Axis, count: f64) {
    let ticks = y.ticks(count);
    for (value, name) in ticks.iter().zip(tick_names(&ticks, y.scale == Scale::Linear)) {
        let at = y.place(*value);
        marks.push(line(vec![[frame.left, at], [frame.right, at]], Color::PALE, 1.0));
        marks.push(text([frame.left - 8.0, at + 4.0], 12.0, Color::GREY, &name).anchor(Anchor::End));
    }
    draw_x_axis(marks, frame, x, true);
}

/// The lower axis with ticks, and their names if `is_named`.
pub(in crate::lab) fn draw_x_axis(marks: &mut Vec<Mark>, frame: &Frame, x: &Axis, is_named: bool) {
    marks.push(line(vec![[frame.left, frame.bottom], [frame.right, frame.bottom]], Color::GREY, 1.0));
    let ticks = x.ticks(8.0);
    for (value, name) in ticks.iter().zip(tick_names(&ticks, x.scale == Scale::Linear)) {
        let at = x.place(*value);
        marks.push(line(vec![[at, frame.bottom], [at, frame.bottom + 5.0]], Color::GREY, 1.0));
        if is_named {
            marks.push(text([at, frame.bottom + 19.0], 12.0, Color::GREY, &name).anchor(Anchor::Middle));
        }
    }
}

/// Tick labels in one unit; evenly spaced ticks have as many decimals as the finest needs.
pub(crate) fn tick_names(values: &[f64], is_even: bool) -> Vec<String> {
    let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let (unit, suffix) = match largest {
        v if v >= 2e15 => (1e15, "P"),
        v if v >= 2e12 => (1e12, "T"),
        v if v >= 2e9 => (1e9, "G"),
        v if v >= 2e6 => (1e6, "M"),
        v if v >= 1e4 => (1e3, "k"),
        _ => (1.0, ""),
    };
    let decimals = |values: &[f64]| {
        let is_exact = |decimals: &i32| values.iter().map(|v| v / unit * 10f64.powi(*decimals)).all(|v| (v - v.round()).abs() < 1e-6);
        (0..6).find(is_exact).unwrap_or(6) as usize
    };
    let common = if is_even { decimals(values) } else { 0 };
    let name = |value: &f64| {
        let decimals = if is_even { common } else { decimals(&[*value]) };
        if *value == 0.0 { "0".to_string() } else { format!("{:.decimals$}{suffix}", value / unit).replace('-', "\u{2212}") }
    };
    values.iter().map(name).collect()
}

/// Runs of drawable points, as positions; a value that cannot be drawn ends a run.
pub(crate) fn pieces(points: &[[f64; 2]], x: &Axis, y: &Axis) -> Vec<Vec<[f64; 2]>> {
    let drawable = |point: &[f64; 2]| x.scale.accepts(point[0]) && y.scale.accepts(point[1]);
    let runs = points.split(|point| !drawable(point)).filter(|run| !run.is_empty());
    runs.map(|run| run.iter().map(|&[at, value]| [x.place(at), y.place(value)]).collect()).collect()
}
