//! Curves of several arms: for each the mean over its seeds as a line, the range of the seeds as a band, and each seed as a faint line.
//!
//! The mean and the band exist only where every seed of the arm was measured, so that a mean never moves because a run ended. Baselines are
//! dashed levels, the ends of epochs are ticks at the lower axis, and stage ends and decisions are numbered marks above the data. If the
//! planned learning rate is given, it is drawn below, on the same axis of updates.
//!
//! Long because the parts of one figure are laid out together.

use std::collections::BTreeMap;

use super::{
    Scale, arm_color, arm_dash,
    axis::{Axis, Frame, draw_grid, draw_x_axis, pieces},
    labels::{LABEL_SPACING, Label, backed, draw_labels, fit, text_width},
};
use crate::lab::figure::{Anchor, Color, Figure, Mark, line, text};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 96.0;
const RIGHT: f64 = 640.0;
/// Width of the labels to the right of the data.
const LABEL_WIDTH: f64 = WIDTH - RIGHT - 28.0;
const DATA_HEIGHT: f64 = 340.0;
const STRIP_HEIGHT: f64 = 52.0;
/// More epochs than this are drawn as ticks without a word each.
const NAMED_EPOCHS: usize = 8;
/// A line that ends this many pixels before the right end says where.
const ENDS_EARLY: f64 = 12.0;
/// Epoch ends closer than this many pixels are not drawn one by one.
const EPOCH_SPACING: f64 = 3.0;

/// The runs of an arm.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ArmCurves {
    /// Name of the arm.
    pub name: String,
    /// Its place among the arms of the study, which determines its colour.
    pub index: usize,
    /// For each seed, (position, value) in order.
    pub seeds: Vec<Vec<[f64; 2]>>,
}

impl ArmCurves {
    /// For each position at which every seed was measured: position, mean, lowest and highest value.
    pub fn band(&self) -> Vec<[f64; 4]> {
        let mut at: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for [x, value] in self.seeds.iter().flatten() {
            // The bits of a float that is not negative have the order of its values.
            at.entry(x.max(0.0).to_bits()).or_default().push(*value);
        }
        let of = |(x, values): (u64, Vec<f64>)| {
            (values.len() == self.seeds.len() && values.iter().all(|value| value.is_finite())).then(|| {
                let [low, high] = extent(values.iter().copied());
                [f64::from_bits(x), values.iter().sum::<f64>() / values.len() as f64, low, high]
            })
        };
        at.into_iter().filter_map(of).collect()
    }
}

/// A position with a word.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moment {
    /// The position on the x axis.
    pub at: f64,
    /// What happened.
    pub text: String,
}

/// The content of the chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    /// The heading.
    pub title: String,
    /// A line below it.
    pub subtitle: String,
    /// The quantity and unit of the y axis.
    pub y_title: String,
    /// The quantity of the x axis.
    pub x_title: String,
    /// The arms.
    pub arms: Vec<ArmCurves>,
    /// Name and value of horizontal lines. Those beyond the data of a [`window`](Self::window) are named below the title.
    pub levels: Vec<(String, f64)>,
    /// Positions at which an epoch of the training data ends.
    pub epochs: Vec<f64>,
    /// Stage ends.
    pub stages: Vec<Moment>,
    /// Decisions.
    pub decisions: Vec<Moment>,
    /// The planned learning rate as a share of its peak, if it is the same for all arms.
    pub schedule: Vec<[f64; 2]>,
    /// The part of the x axis to draw; the y axis then covers the data of that part only.
    pub window: Option<[f64; 2]>,
    /// Scale of the x axis.
    pub x_scale: Scale,
    /// Scale of the y axis.
    pub y_scale: Scale,
}

impl Curves {
    /// Draws the chart.
    pub fn figure(&self) -> Figure {
        let names = self.arms.len() + self.levels.len();
        let height = DATA_HEIGHT.max(LABEL_SPACING * names as f64);
        let frame = Frame { left: LEFT, top: TOP, right: RIGHT, bottom: TOP + height };
        let (x, y, hidden) = self.axes(&frame);
        let mut marks = vec![
            text([20.0, 30.0], 18.0, Color::INK, &fit(&self.title, 18.0, WIDTH - 40.0)).bold(),
            text([20.0, 50.0], 13.0, Color::GREY, &fit(&self.subtitle, 13.0, WIDTH - 40.0)),
            text([20.0, TOP - 22.0], 12.0, Color::GREY, &format!("{}{hidden}", self.y_title)),
        ];
        draw_grid(&mut marks, &frame, &x, &y, 7.0);
        let mut labels = Vec::new();
        for (name, value) in self.levels.iter().filter(|(_, value)| y.scale.accepts(*value) && y.contains(*value)) {
            let at = y.place(*value);
            marks.push(line(vec![[LEFT, at], [RIGHT, at]], Color::GREY, 1.2).dash([6.0, 4.0]));
            let name = fit(name, 13.0, LABEL_WIDTH - 50.0);
            labels.push(Label::new(RIGHT, at, format!("{name} {value:.3}"), Color::GREY, false));
        }
        for arm in &self.arms {
            labels.extend(self.draw_arm(&mut marks, arm, &x, &y));
        }
        self.draw_epochs(&mut marks, &frame, &x);
        self.draw_moments(&mut marks, &frame, &x);
        if !self.arms.iter().flat_map(|arm| &arm.seeds).flatten().any(|point| point[1].is_finite()) {
            let middle = [(LEFT + RIGHT) / 2.0, (frame.top + frame.bottom) / 2.0];
            marks.push(text(middle, 14.0, Color::GREY, "no data yet").anchor(Anchor::Middle));
        }
        draw_labels(&mut marks, labels, &frame, frame.bottom);
        let mut bottom = frame.bottom + 36.0;
        marks.push(text([RIGHT, bottom], 12.0, Color::GREY, &self.x_title).anchor(Anchor::End));
        if !self.schedule.is_empty() {
            bottom = self.draw_schedule(&mut marks, bottom + 22.0, &x);
        }
        for (number, decision) in self.decisions.iter().enumerate() {
            bottom += 16.0;
            let said = format!("{}  {}", number + 1, decision.text);
            marks.push(text([LEFT, bottom], 12.0, Color::INK, &fit(&said, 12.0, WIDTH - LEFT - 20.0)));
        }
        Figure { width: WIDTH, height: bottom + 16.0, description: self.description(), marks }
    }

    fn description(&self) -> String {
        let last = |arm: &ArmCurves| {
            let said = arm.band().last().map_or("not measured".to_string(), |[_, mean, ..]| format!("{mean:.3}"));
            format!("{} {said}", arm.name)
        };
        let arms: Vec<String> = self.arms.iter().map(last).collect();
        format!("{}. Last means: {}", self.title, arms.join(", "))
    }

    fn is_shown(&self, at: f64) -> bool {
        self.window.is_none_or(|[from, to]| (from..=to).contains(&at))
    }

    /// Both axes, and a note on levels that are beyond them.
    fn axes(&self, frame: &Frame) -> (Axis, Axis, String) {
        let points = || self.arms.iter().flat_map(|arm| &arm.seeds).flatten().filter(|point| point[1].is_finite());
        let [_, last] = extent(points().map(|point| point[0]));
        let least = if self.x_scale == Scale::Log { 1.0 } else { 0.0 };
        let range = self.window.unwrap_or([least, if last.is_finite() { last.max(1.0) } else { 1.0 }]);
        let x = Axis::new(self.x_scale, range, [frame.left, frame.right]);
        let values = points().filter(|point| self.is_shown(point[0])).map(|point| point[1]);
        let levels = self.levels.iter().map(|(_, value)| *value).filter(|_| self.window.is_none());
        let [low, high] = extent(values.chain(levels).filter(|value| self.y_scale.accepts(*value)));
        let range = match (low <= high, self.y_scale) {
            (false, _) => [0.1, 1.0],
            (true, Scale::Log) => [low / 1.08, high * 1.08],
            (true, Scale::Linear) => {
                let margin = 0.05 * (high - low).max(1e-3);
                [(low - margin).max(0.0_f64.min(low)), high + margin]
            }
        };
        let y = Axis::new(self.y_scale, range, [frame.bottom, frame.top]);
        let beyond: Vec<String> =
            self.levels.iter().filter(|(_, value)| !y.contains(*value)).map(|(name, value)| format!("{name} {value:.3}")).collect();
        let hidden = if beyond.is_empty() { String::new() } else { format!(" (beyond the axis: {})", beyond.join(", ")) };
        (x, y, hidden)
    }

    fn draw_arm(&self, marks: &mut Vec<Mark>, arm: &ArmCurves, x: &Axis, y: &Axis) -> Option<Label> {
        let (color, dash) = (arm_color(arm.index), arm_dash(arm.index));
        let band: Vec<[f64; 4]> = arm.band().into_iter().filter(|point| self.is_shown(point[0])).collect();
        if arm.seeds.len() > 1 {
            let edge = |side: usize| band.iter().map(move |point| [x.place(point[0]), y.place(point[side])]);
            let points: Vec<[f64; 2]> = edge(2).chain(edge(3).rev()).collect();
            if band.len() > 1 {
                marks.push(Mark::Area { points, color, opacity: 0.15 });
            }
            for seed in &arm.seeds {
                let shown: Vec<[f64; 2]> = seed.iter().copied().filter(|point| self.is_shown(point[0])).collect();
                marks.extend(pieces(&shown, x, y).into_iter().map(|piece| line(piece, color, 0.8).opacity(0.4)));
            }
        }
        let mean: Vec<[f64; 2]> = band.iter().map(|point| [point[0], point[1]]).collect();
        for piece in pieces(&mean, x, y) {
            if let [at] = piece[..] {
                marks.push(Mark::Dot { at, radius: 3.0, color });
            }
            let mark = line(piece, color, 2.0);
            marks.push(dash.map_or(mark.clone(), |dash| mark.dash(dash)));
        }
        self.arm_label(arm, &mean, x, y)
    }

    /// The last mean of an arm; or, if no position within the window has all seeds, the seeds that are left.
    fn arm_label(&self, arm: &ArmCurves, mean: &[[f64; 2]], x: &Axis, y: &Axis) -> Option<Label> {
        let n = arm.seeds.len();
        let mean = mean.iter().rev().find(|point| y.scale.accepts(point[1])).copied();
        let ([at, value], said) = match mean {
            Some([at, ce]) => {
                let is_last = RIGHT - x.place(at) < ENDS_EARLY;
                let early = if is_last { String::new() } else { format!(" at {at}") };
                let seeds = if n > 1 { format!(" ({n} seeds)") } else { String::new() };
                ([at, ce], format!(" {ce:.3}{early}{seeds}"))
            }
            None => {
                let drawable = |point: &&[f64; 2]| self.is_shown(point[0]) && y.scale.accepts(point[1]);
                let lasts: Vec<[f64; 2]> = arm.seeds.iter().filter_map(|seed| seed.iter().rfind(drawable)).copied().collect();
                let at = lasts.iter().map(|point| point[0]).max_by(f64::total_cmp)?;
                let value = lasts.iter().map(|point| point[1]).sum::<f64>() / lasts.len() as f64;
                ([at, value], format!(" ({} of {n} seeds)", lasts.len()))
            }
        };
        let name = fit(&arm.name, 13.0, LABEL_WIDTH - text_width(&said, 13.0));
        let place = [x.place(at), y.place(value)];
        let label = Label::new(place[0], place[1], format!("{name}{said}"), arm_color(arm.index), false);
        Some(Label { ink: Color::INK, is_far: RIGHT - place[0] >= ENDS_EARLY, ..label })
    }

    fn draw_epochs(&self, marks: &mut Vec<Mark>, frame: &Frame, x: &Axis) {
        let shown: Vec<(usize, f64)> = self.epochs.iter().copied().enumerate().filter(|(_, at)| self.is_shown(*at)).collect();
        let places: Vec<f64> = shown.iter().map(|(_, at)| x.place(*at)).collect();
        if places.windows(2).any(|pair| pair[1] - pair[0] < EPOCH_SPACING) {
            let note = format!("{} epochs", self.epochs.len());
            marks.push(text([frame.right - 4.0, frame.bottom - 6.0], 11.0, Color::GREY, &note).anchor(Anchor::End));
            return;
        }
        for ((number, at), place) in shown.iter().zip(&places) {
            if !x.contains(*at) {
                continue;
            }
            let is_named = shown.len() <= NAMED_EPOCHS;
            let [top, bottom] = if is_named { [frame.top, frame.bottom + 24.0] } else { [frame.bottom - 10.0, frame.bottom] };
            marks.push(line(vec![[*place, top], [*place, bottom]], Color::GREY, 0.8).dash([2.0, 3.0]).opacity(0.7));
            // The title of the axis stands at its end.
            if is_named && *place < frame.right - 70.0 {
                let note = format!("epoch {}", number + 1);
                marks.push(text([*place, frame.bottom + 36.0], 11.0, Color::GREY, &note).anchor(Anchor::Middle));
            }
        }
        if shown.len() > NAMED_EPOCHS {
            marks.push(text([frame.left + 4.0, frame.bottom - 14.0], 11.0, Color::GREY, "ticks: ends of epochs"));
        }
    }

    /// Stage ends as lines with their names at the top; decisions as numbers, explained below the chart.
    fn draw_moments(&self, marks: &mut Vec<Mark>, frame: &Frame, x: &Axis) {
        for stage in self.stages.iter().filter(|stage| self.is_shown(stage.at)) {
            let at = x.place(stage.at);
            marks.push(line(vec![[at, frame.top - 4.0], [at, frame.bottom]], Color::PURPLE, 1.0).dash([5.0, 3.0]));
            let (place, anchor) = if at > frame.left + 80.0 { (at - 4.0, Anchor::End) } else { (at + 4.0, Anchor::Start) };
            let name = fit(&stage.text, 11.0, 150.0);
            marks.extend(backed([place, frame.top + 10.0], 11.0, Color::PURPLE, &name, anchor));
        }
        let mut ends: BTreeMap<u64, f64> = BTreeMap::new();
        for (number, decision) in self.decisions.iter().enumerate().filter(|(_, decision)| self.is_shown(decision.at)) {
            let at = x.place(decision.at);
            // Numbers at one position stand beside each other.
            let next = ends.entry((at / 12.0) as u64).or_insert(at);
            let label = (number + 1).to_string();
            marks.push(line(vec![[at, frame.top - 4.0], [at, frame.top]], Color::INK, 1.0));
            marks.push(text([*next, frame.top - 7.0], 11.0, Color::INK, &label).anchor(Anchor::Middle).bold());
            *next += 7.0 * label.len() as f64 + 4.0;
        }
    }

    /// The planned learning rate below the chart; returns its lower end.
    fn draw_schedule(&self, marks: &mut Vec<Mark>, top: f64, x: &Axis) -> f64 {
        let frame = Frame { left: LEFT, top, right: RIGHT, bottom: top + STRIP_HEIGHT };
        let y = Axis::new(Scale::Linear, [0.0, 1.0], [frame.bottom, frame.top]);
        for share in [0.0, 1.0] {
            marks.push(text([LEFT - 8.0, y.place(share) + 4.0], 12.0, Color::GREY, &format!("{share:.0}")).anchor(Anchor::End));
        }
        marks.push(line(vec![[LEFT, frame.top], [RIGHT, frame.top]], Color::PALE, 1.0));
        draw_x_axis(marks, &frame, x, false);
        let shown: Vec<[f64; 2]> = self.schedule.iter().copied().filter(|point| self.is_shown(point[0])).collect();
        for piece in pieces(&shown, x, &y) {
            let mut under = piece.clone();
            under.extend(piece.last().map(|point| [point[0], frame.bottom]));
            under.extend(piece.first().map(|point| [point[0], frame.bottom]));
            marks.push(Mark::Area { points: under, color: Color::GREY, opacity: 0.1 });
            marks.push(line(piece, Color::GREY, 1.5));
        }
        marks.push(text([RIGHT + 20.0, frame.top + 12.0], 12.0, Color::GREY, "learning rate,"));
        marks.push(text([RIGHT + 20.0, frame.top + 28.0], 12.0, Color::GREY, "share of its peak, as planned"));
        frame.bottom + 8.0
    }
}

/// The least and the greatest value.
fn extent(values: impl Iterator<Item = f64>) -> [f64; 2] {
    values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], value| [low.min(value), high.max(value)])
}
