//! The loss curve of a run: training (raw and smoothed) and validation cross-entropy against the baselines.
//!
//! Every line is labelled at its end with its last value, so that no legend has to be matched by colour. Baselines are horizontal
//! lines: uniform, unigram and bigram; and, if the source is known, its entropy, which no model can beat. A long run is read in
//! buckets of updates and drawn by the extremes of each, so that spikes are visible and the file stays small.
//!

pub use super::chart::Scale;
use super::chart::{
    axis::{Axis, Frame, draw_grid, pieces},
    labels::{Label, draw_labels},
    thousands,
};
use super::figure::{Anchor, Color, Figure, Mark, line, text};
use super::overview::Overview;
use super::reader::Bucket;
use crate::run::summary::{Baselines, Summary};

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 500.0;
/// The rectangle of the data; the labels are to the right of it.
const FRAME: Frame = Frame { left: LEFT, top: TOP, right: RIGHT, bottom: BOTTOM };
const LEFT: f64 = 56.0;
const TOP: f64 = 86.0;
const RIGHT: f64 = 690.0;
const BOTTOM: f64 = 452.0;
const TITLE_CHARACTERS: usize = 80;

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
    pub fn from_run(title: &str, summary: &Summary, overview: &Overview) -> Self {
        let mut subtitle = format!("{} updates, {} tokens", thousands(u64::from(summary.updates)), thousands(summary.tokens));
        if summary.skipped_updates > 0 {
            subtitle += &format!(", {} skipped", summary.skipped_updates);
        }
        let points = |curve: &[Bucket]| curve.iter().map(Point::from).collect();
        let [train, validation] = &overview.curves;
        let baselines = summary.baselines.iter().flat_map(Baselines::named);
        Self {
            title: title.to_string(),
            subtitle: format!("{subtitle}, on {}", summary.adapter),
            train: points(train),
            validation: points(validation),
            skipped: overview.skipped.iter().map(|update| f64::from(*update)).collect(),
            baselines: baselines.map(|(name, value)| (name.to_string(), value)).collect(),
            entropy: summary.baselines.and_then(|baselines| baselines.entropy),
            ..Self::default()
        }
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
        draw_grid(&mut marks, &FRAME, &x, &y, 8.0);
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
        draw_labels(&mut marks, labels, &FRAME, HEIGHT - 14.0);
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

fn draw_level(marks: &mut Vec<Mark>, y: &Axis, name: &str, value: f64, color: Color, dash: [f64; 2]) -> Option<Label> {
    if !y.scale.accepts(value) {
        return None;
    }
    let at = y.place(value);
    marks.push(line(vec![[LEFT, at], [RIGHT, at]], color, 1.2).dash(dash));
    Some(Label::new(RIGHT, at, format!("{name} {value:.3}"), color, false))
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
