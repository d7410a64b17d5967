//! The loss curve of a run: training (raw and smoothed) and validation cross-entropy against the baselines.
//!
//! Every line is labelled at its end with its last value, so that no legend has to be matched by colour. Baselines are horizontal
//! lines: uniform, unigram and bigram; and, if the source is known, its entropy, which no model can beat. A long run is read in
//! buckets of updates and drawn by the extremes of each, so that spikes are visible and the file stays small.
//!
//! Long because axes, labels and curves of one figure are laid out together.

use super::figure::{Anchor, Color, Figure, Mark, line, text};
use super::reader::{Bucket, Reader};
use super::store::StoreError;
use crate::run::records::Incident;
use crate::run::series::Series;
use crate::run::summary::{Baselines, Summary};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 500.0;
/// The rectangle of the data; the labels are to the right of it.
const LEFT: f64 = 56.0;
const TOP: f64 = 86.0;
const RIGHT: f64 = 690.0;
const BOTTOM: f64 = 452.0;
const LABEL_SPACING: f64 = 17.0;
const TITLE_CHARACTERS: usize = 80;
/// Buckets of a series: four per pixel column.
const POINTS: usize = 4 * (RIGHT - LEFT) as usize;

/// The scale of an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scale {
    /// Linear.
    #[default]
    Linear,
    /// Logarithmic. Values that are not positive are omitted.
    Log,
}

/// The loss of one or several updates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// The last of the updates.
    pub update: f64,
    /// The least, mean and greatest loss, nats per token.
    pub loss: [f64; 3],
    /// Whether all its losses are finite.
    pub is_whole: bool,
}

impl From<[f64; 2]> for Point {
    /// The point of a single update.
    fn from([update, loss]: [f64; 2]) -> Point {
        Point { update, loss: [loss; 3], is_whole: loss.is_finite() }
    }
}

impl From<&Bucket> for Point {
    fn from(bucket: &Bucket) -> Point {
        let value = |values: &[f64]| values.first().copied().unwrap_or(f64::NAN);
        let loss = [value(&bucket.min), value(&bucket.mean), value(&bucket.max)];
        Point { update: f64::from(*bucket.updates.end()), loss, is_whole: bucket.not_finite == 0 }
    }
}

impl Point {
    fn mean(&self) -> [f64; 2] {
        [self.update, self.loss[1]]
    }

    /// The values to draw: both extremes, followed by a gap if a loss is not finite.
    fn extremes(&self) -> impl Iterator<Item = [f64; 2]> {
        let [least, _, greatest] = self.loss.map(|loss| [self.update, loss]);
        let gap = (!self.is_whole).then_some([self.update, f64::NAN]);
        [Some(least), (least != greatest).then_some(greatest), gap].into_iter().flatten()
    }
}

/// The content of the plot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LossPlot {
    /// Name of the run.
    pub title: String,
    /// One line below it.
    pub subtitle: String,
    /// Training cross-entropy.
    pub train: Vec<Point>,
    /// Validation cross-entropy.
    pub validation: Vec<Point>,
    /// Skipped updates.
    pub skipped: Vec<f64>,
    /// Name and value of the horizontal lines, from [`LossPlot::from_run`]: uniform, unigram, bigram.
    pub baselines: Vec<(String, f64)>,
    /// Entropy of the source, where it is known.
    pub entropy: Option<f64>,
    /// Scale of the update axis.
    pub x_scale: Scale,
    /// Scale of the loss axis.
    pub y_scale: Scale,
}

impl LossPlot {
    /// The plot of a finished run.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn from_run(title: &str, summary: &Summary, reader: &Reader) -> Result<Self, StoreError> {
        let mut subtitle = format!("{} updates, {} tokens", thousands(u64::from(summary.updates)), thousands(summary.tokens));
        if summary.skipped_updates > 0 {
            subtitle += &format!(", {} skipped", summary.skipped_updates);
        }
        Self::new(title, &format!("{subtitle}, on {}", summary.adapter), summary.baselines.as_ref(), reader)
    }

    /// The plot of a run that may be in progress.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn new(title: &str, subtitle: &str, baselines: Option<&Baselines>, reader: &Reader) -> Result<Self, StoreError> {
        let mut plot = Self { title: title.to_string(), subtitle: subtitle.to_string(), ..Self::default() };
        for (key, points) in [("train_ce", &mut plot.train), ("eval.val_ce", &mut plot.validation)] {
            if let Some(series) = Series::find(key) {
                points.extend(reader.read(series, 0..=u32::MAX, POINTS)?.buckets.iter().map(Point::from));
            }
        }
        for record in reader.incidents() {
            let record = record?;
            if record.incident == Incident::NonFinite {
                plot.skipped.push(f64::from(record.update));
            }
        }
        plot.baselines = baselines.into_iter().flat_map(Baselines::named).map(|(name, value)| (name.to_string(), value)).collect();
        plot.entropy = baselines.and_then(|baselines| baselines.entropy);
        Ok(plot)
    }

    /// Draws the plot. Without any finite point it shows the baselines and a note that there is no data.
    pub fn figure(&self) -> Figure {
        let (x, y) = self.axes();
        let mut marks = vec![
            text([LEFT - 40.0, 30.0], 18.0, Color::INK, &shorten(&self.title)).bold(),
            text([LEFT - 40.0, 50.0], 13.0, Color::GREY, &shorten(&self.subtitle)),
            text([LEFT - 40.0, 74.0], 12.0, Color::GREY, "cross-entropy, nats per token"),
            text([RIGHT, BOTTOM + 36.0], 12.0, Color::GREY, "update").anchor(Anchor::End),
        ];
        draw_grid(&mut marks, &x, &y);
        let mut labels = Vec::new();
        for (name, value) in &self.baselines {
            labels.extend(draw_level(&mut marks, &y, name, *value, Color::GREY, [6.0, 4.0]));
        }
        if let Some(entropy) = self.entropy {
            labels.extend(draw_level(&mut marks, &y, "entropy of the source", entropy, Color::GREEN, [2.0, 3.0]));
        }
        self.draw_skipped(&mut marks, &x);
        labels.extend(self.draw_curves(&mut marks, &x, &y));
        if self.train.is_empty() && self.validation.is_empty() {
            let middle = [(LEFT + RIGHT) / 2.0, (TOP + BOTTOM) / 2.0];
            marks.push(text(middle, 14.0, Color::GREY, "no data yet").anchor(Anchor::Middle));
        }
        draw_labels(&mut marks, labels);
        Figure { width: WIDTH, height: HEIGHT, description: self.description(), marks }
    }

    fn description(&self) -> String {
        let level = |(name, value): &(String, f64)| format!("{name} {value:.3}");
        let levels: Vec<String> = self.baselines.iter().map(level).collect();
        let last = self.validation.last().map_or("not measured".to_string(), |point| format!("{:.3}", point.loss[1]));
        let entropy = self.entropy.map_or(String::new(), |entropy| format!(", entropy of the source {entropy:.3}"));
        format!("Loss of {}: validation {last} nats per token; {}{entropy}", self.title, levels.join(", "))
    }

    /// Axes that cover all points and levels.
    fn axes(&self) -> (Axis, Axis) {
        let points = || self.train.iter().chain(&self.validation).filter(|point| point.loss[1].is_finite());
        let levels = self.baselines.iter().map(|(_, value)| *value).chain(self.entropy);
        let last = points().map(|point| point.update).fold(1.0, f64::max);
        let x = Axis::new(self.x_scale, [if self.x_scale == Scale::Log { 1.0 } else { 0.0 }, last], [LEFT, RIGHT]);
        let values = points().flat_map(|point| point.loss).chain(levels).filter(|value| self.y_scale.accepts(*value));
        let [low, high] = values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| [low.min(v), high.max(v)]);
        let range = match (low <= high, self.y_scale) {
            (false, _) => [0.1, 1.0],
            (true, Scale::Log) => [low / 1.08, high * 1.08],
            (true, Scale::Linear) => {
                let margin = 0.05 * (high - low).max(0.1);
                [(low - margin).max(0.0_f64.min(low)), high + margin]
            }
        };
        (x, Axis::new(self.y_scale, range, [BOTTOM, TOP]))
    }

    fn draw_skipped(&self, marks: &mut Vec<Mark>, x: &Axis) {
        let places = self.skipped.iter().map(|update| x.place(*update));
        marks.extend(places.map(|at| line(vec![[at, BOTTOM - 8.0], [at, BOTTOM]], Color::PURPLE, 1.5)));
        if let Some(last) = self.skipped.last() {
            let (side, anchor) = if x.place(*last) < RIGHT - 60.0 { (5.0, Anchor::Start) } else { (-5.0, Anchor::End) };
            marks.push(text([x.place(*last) + side, BOTTOM - 4.0], 11.0, Color::PURPLE, "skipped").anchor(anchor));
        }
    }

    fn draw_curves(&self, marks: &mut Vec<Mark>, x: &Axis, y: &Axis) -> Vec<Label> {
        let mut labels = Vec::new();
        let means = |points: &[Point]| points.iter().map(Point::mean).collect::<Vec<_>>();
        let (smooth, validation) = (smoothed(&means(&self.train)), means(&self.validation));
        for piece in pieces(&self.train.iter().flat_map(Point::extremes).collect::<Vec<_>>(), x, y) {
            marks.push(line(thinned(piece), Color::BLUE, 1.0).opacity(0.35));
        }
        for piece in pieces(&smooth, x, y) {
            marks.push(line(thinned(piece), Color::BLUE, 2.0));
        }
        for piece in pieces(&self.validation.iter().flat_map(Point::extremes).collect::<Vec<_>>(), x, y) {
            if piece.len() <= 60 {
                marks.extend(piece.iter().map(|&at| Mark::Dot { at, radius: 3.0, color: Color::VERMILION }));
            }
            marks.push(line(thinned(piece), Color::VERMILION, 2.0));
        }
        let finite = |points: &[[f64; 2]]| points.iter().rev().find(|p| y.scale.accepts(p[1])).copied();
        if let Some([update, ce]) = finite(&smooth) {
            labels.push(Label::new(x.place(update), y.place(ce), format!("training {ce:.3}"), Color::BLUE, true));
        }
        if let Some([update, ce]) = finite(&validation) {
            let at = [x.place(update), y.place(ce)];
            labels.push(Label::new(at[0], at[1], format!("validation {ce:.3}"), Color::VERMILION, true));
            let least = self.validation.iter().map(|point| [point.update, point.loss[0]]).filter(|p| y.scale.accepts(p[1]));
            if let Some([update, best]) = least.min_by(|a, b| a[1].total_cmp(&b[1])).filter(|best| best[1] < ce) {
                marks.push(Mark::Dot { at: [x.place(update), y.place(best)], radius: 4.5, color: Color::VERMILION });
                let text = format!("best {best:.3} at {}", thousands(update as u64));
                labels.push(Label { leader: false, ..Label::new(at[0], at[1], text, Color::VERMILION, false) });
            }
        }
        labels
    }
}

/// Values to positions.
struct Axis {
    scale: Scale,
    range: [f64; 2],
    pixels: [f64; 2],
}

impl Scale {
    fn accepts(self, value: f64) -> bool {
        value.is_finite() && (self == Scale::Linear || value > 0.0)
    }

    fn map(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Log => value.ln(),
        }
    }
}

impl Axis {
    fn new(scale: Scale, range: [f64; 2], pixels: [f64; 2]) -> Self {
        Self { scale, range, pixels }
    }

    fn place(&self, value: f64) -> f64 {
        let [low, high] = self.range.map(|end| self.scale.map(end));
        let share = (self.scale.map(value) - low) / (high - low).max(f64::MIN_POSITIVE);
        self.pixels[0] + share.clamp(0.0, 1.0) * (self.pixels[1] - self.pixels[0])
    }

    /// About `count` round values within the range.
    fn ticks(&self, count: f64) -> Vec<f64> {
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

fn draw_grid(marks: &mut Vec<Mark>, x: &Axis, y: &Axis) {
    let ticks = y.ticks(8.0);
    for (value, name) in ticks.iter().zip(tick_names(&ticks, y.scale == Scale::Linear)) {
        let at = y.place(*value);
        marks.push(line(vec![[LEFT, at], [RIGHT, at]], Color::PALE, 1.0));
        marks.push(text([LEFT - 8.0, at + 4.0], 12.0, Color::GREY, &name).anchor(Anchor::End));
    }
    marks.push(line(vec![[LEFT, BOTTOM], [RIGHT, BOTTOM]], Color::GREY, 1.0));
    let ticks = x.ticks(8.0);
    for (value, name) in ticks.iter().zip(tick_names(&ticks, x.scale == Scale::Linear)) {
        let at = x.place(*value);
        marks.push(line(vec![[at, BOTTOM], [at, BOTTOM + 5.0]], Color::GREY, 1.0));
        marks.push(text([at, BOTTOM + 19.0], 12.0, Color::GREY, &name).anchor(Anchor::Middle));
    }
}

fn draw_level(marks: &mut Vec<Mark>, y: &Axis, name: &str, value: f64, color: Color, dash: [f64; 2]) -> Option<Label> {
    if !y.scale.accepts(value) {
        return None;
    }
    let at = y.place(value);
    marks.push(line(vec![[LEFT, at], [RIGHT, at]], color, 1.2).dash(dash));
    Some(Label::new(RIGHT, at, format!("{name} {value:.3}"), color, false))
}

/// A label to the right of the data for a line that ends at `from`.
struct Label {
    from: [f64; 2],
    text: String,
    color: Color,
    bold: bool,
    leader: bool,
}

impl Label {
    fn new(x: f64, y: f64, text: String, color: Color, bold: bool) -> Self {
        Self { from: [x, y], text, color, bold, leader: true }
    }
}

/// Arranges the labels vertically in the order of their lines, without overlap, each as close to its line as possible.
fn draw_labels(marks: &mut Vec<Mark>, mut labels: Vec<Label>) {
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
    let places = groups.iter().flat_map(|&(centre, count)| {
        let half = LABEL_SPACING * (count - 1) as f64 / 2.0;
        let centre = centre.clamp(TOP + half, (HEIGHT - 14.0 - half).max(TOP + half));
        (0..count).map(move |i| centre - half + LABEL_SPACING * i as f64)
    });
    for (label, at) in labels.iter().zip(places) {
        if label.leader {
            let leader = vec![label.from, [RIGHT + 2.0, label.from[1]], [RIGHT + 12.0, at], [RIGHT + 16.0, at]];
            marks.push(line(leader, label.color, 0.8).opacity(0.6));
        }
        let mark = text([RIGHT + 20.0, at + 4.0], 13.0, label.color, &label.text);
        marks.push(if label.bold { mark.bold() } else { mark });
    }
}

/// Runs of drawable points, as positions; a value that cannot be drawn ends a run.
fn pieces(points: &[[f64; 2]], x: &Axis, y: &Axis) -> Vec<Vec<[f64; 2]>> {
    let drawable = |point: &[f64; 2]| x.scale.accepts(point[0]) && y.scale.accepts(point[1]);
    let runs = points.split(|point| !drawable(point)).filter(|run| !run.is_empty());
    runs.map(|run| run.iter().map(|&[at, value]| [x.place(at), y.place(value)]).collect()).collect()
}

/// At most four points in each pixel column: first, lowest, highest, last.
fn thinned(points: Vec<[f64; 2]>) -> Vec<[f64; 2]> {
    if points.len() as f64 <= 4.0 * (RIGHT - LEFT) {
        return points;
    }
    let mut kept = Vec::new();
    for column in points.chunk_by(|a, b| a[0].floor() == b[0].floor()) {
        let extreme = |sign: f64| (0..column.len()).max_by(|&a, &b| (sign * column[a][1]).total_cmp(&(sign * column[b][1])));
        let mut indices: Vec<usize> = [Some(0), extreme(-1.0), extreme(1.0), Some(column.len() - 1)].into_iter().flatten().collect();
        indices.sort_unstable();
        indices.dedup();
        kept.extend(indices.into_iter().map(|i| column[i]));
    }
    kept
}

/// Mean over a window of 4 % of the finite points, centred; narrower at the steep start, and one-sided at the end.
fn smoothed(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let finite: Vec<[f64; 2]> = points.iter().copied().filter(|point| point[1].is_finite()).collect();
    let half = finite.len() / 50;
    let mut sums = vec![0.0];
    sums.extend(finite.iter().scan(0.0, |sum, point| {
        *sum += point[1];
        Some(*sum)
    }));
    let mean = |i: usize| {
        let (from, to) = (i - half.min(i), (i + half.min(i)).min(finite.len() - 1) + 1);
        [finite[i][0], (sums[to] - sums[from]) / (to - from) as f64]
    };
    (0..finite.len()).map(mean).collect()
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(TITLE_CHARACTERS) {
        None => text.to_string(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Tick labels in one unit; evenly spaced ticks have as many decimals as the finest needs.
fn tick_names(values: &[f64], is_even: bool) -> Vec<String> {
    let largest = values.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let (unit, suffix) = match largest {
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
        if *value == 0.0 { "0".to_string() } else { format!("{:.decimals$}{suffix}", value / unit) }
    };
    values.iter().map(name).collect()
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
