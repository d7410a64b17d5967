//! The load of experts over time: a small heat map for each router call of a forward pass, with a row for each expert and a column for each range of updates.
//!
//! The scale is fixed and centred on the fair share, 1.0 = 1 / E of the assignments: blue below, orange above, from 0 to 2. A load beyond 2 is
//! hatched, a dead expert (no assignment in the whole range) is crossed. It is never scaled to the data, so that maps of different runs can be
//! compared. Blue and orange are distinct for colour-blind readers, and lightness tells the distance from the fair share.
//!
//! A run is read in at most [`COLUMNS`] ranges of updates, and the cells of a colour are one path, so that a map of 24 layers with 64 experts
//! stays a small file.

use std::collections::BTreeMap;

#[cfg(feature = "ui")]
use super::labels::text_width;
use super::{axis::tick_names, labels::fit};
use crate::lab::{
    figure::{Anchor, Color, Figure, Mark, line, text},
    reader::Block,
};

/// The most columns of a map.
pub const COLUMNS: usize = 60;
const WIDTH: f64 = 900.0;
const TOP: f64 = 96.0;
const GAP: f64 = 40.0;
/// Steps of the colour scale on each side of the fair share.
const STEPS: i32 = 8;
/// Colours of load 0, of the fair share, and of twice the fair share.
const ENDS: [[f64; 3]; 3] = [[0.0, 84.0, 150.0], [250.0, 250.0, 248.0], [205.0, 88.0, 0.0]];

/// The content of the chart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeatMaps {
    /// The heading.
    pub title: String,
    /// A line below it.
    pub subtitle: String,
    /// The last update of each column.
    pub updates: Vec<f64>,
    /// Router calls, experts.
    pub shape: [usize; 2],
    /// Names of the router calls, as in `layer 3` or `depth step 2`.
    pub names: Vec<String>,
    /// For each column, the load of each expert of each layer as a multiple of the fair share; NaN where it was not measured.
    pub loads: Vec<Vec<f64>>,
}

impl HeatMaps {
    /// The maps of a run, from its series `expert_load` in at most [`COLUMNS`] buckets, with the names of its router calls. `None` if it has no
    /// experts.
    pub fn new(title: &str, subtitle: &str, names: Vec<String>, block: &Block) -> Option<HeatMaps> {
        let [layers, experts] = block.shape[..] else { return None };
        if block.buckets.is_empty() || layers == 0 || experts < 2 {
            return None;
        }
        let load = |shares: &Vec<f64>| shares.iter().map(|share| share * experts as f64).collect();
        Some(HeatMaps {
            title: title.into(),
            subtitle: subtitle.into(),
            updates: block.buckets.iter().map(|bucket| f64::from(*bucket.updates.end())).collect(),
            shape: [layers, experts],
            names,
            loads: block.buckets.iter().map(|bucket| load(&bucket.mean)).collect(),
        })
    }

    /// The name of a router call.
    pub fn name(&self, call: usize) -> &str {
        self.names.get(call).map_or("", String::as_str)
    }

    /// Draws the maps.
    pub fn figure(&self) -> Figure {
        let [layers, experts] = self.shape;
        let across = match layers {
            1 => 1,
            2 | 4 => 2,
            3 | 5..=9 => 3,
            _ => 4,
        };
        let width = (WIDTH - 56.0 - GAP * (across - 1) as f64 - 20.0) / across as f64;
        let row = (160.0 / experts as f64).clamp(3.0, 18.0);
        let height = row * experts as f64;
        let (mut cells, mut labels) = (Cells::default(), Vec::new());
        let down = layers.div_ceil(across);
        for layer in 0..layers {
            let (column, line_of) = (layer % across, layer / across);
            let left = 56.0 + (width + GAP) * column as f64;
            let top = TOP + (height + 52.0) * line_of as f64;
            labels.push(text([left, top - 6.0], 12.0, Color::INK, self.name(layer)));
            for expert in named_experts(experts, row) {
                let at = top + row * (expert as f64 + 0.5) + 4.0;
                labels.push(text([left - 6.0, at], 11.0, Color::GREY, &expert.to_string()).anchor(Anchor::End));
            }
            let cell = width / self.updates.len() as f64;
            for (column, loads) in self.loads.iter().enumerate() {
                for expert in 0..experts {
                    let load = loads.get(layer * experts + expert).copied().unwrap_or(f64::NAN);
                    cells.add([left + cell * column as f64, top + row * expert as f64, cell, row], load);
                }
            }
            let outline = [[left, top], [left + width, top], [left + width, top + height], [left, top + height], [left, top]];
            labels.push(line(outline.to_vec(), Color::GREY, 0.6));
            self.name_updates(&mut labels, left, width, top + height);
        }
        let mut marks = vec![
            text([20.0, 30.0], 18.0, Color::INK, &fit(&self.title, 18.0, WIDTH - 40.0)).bold(),
            text([20.0, 50.0], 13.0, Color::GREY, &fit(&self.subtitle, 13.0, WIDTH - 40.0)),
        ];
        cells.draw(&mut marks);
        marks.extend(labels);
        let bottom = TOP + (height + 52.0) * down as f64;
        draw_legend(&mut marks, bottom - 2.0);
        Figure { width: WIDTH, height: bottom + 46.0, description: self.description(), marks }
    }

    fn name_updates(&self, marks: &mut Vec<Mark>, left: f64, width: f64, bottom: f64) {
        let last = self.updates.last().copied().unwrap_or_default();
        let names = tick_names(&[last], true);
        marks.push(text([left, bottom + 15.0], 11.0, Color::GREY, "0"));
        let name = format!("update {}", names.first().cloned().unwrap_or_default());
        marks.push(text([left + width, bottom + 15.0], 11.0, Color::GREY, &name).anchor(Anchor::End));
    }

    fn description(&self) -> String {
        let last = self.loads.last().into_iter().flatten().copied().filter(|load| load.is_finite());
        let [low, high] = last.fold([f64::INFINITY, 0.0_f64], |[low, high], load| [low.min(load), high.max(load)]);
        let [layers, experts] = self.shape;
        format!(
            "{}. {layers} layers of {experts} experts; in the last column the loads are between {low:.2} and {high:.2} of a fair share",
            self.title
        )
    }
}

/// One map with named rows, as the app shows it: `loads` has a row for each name, `columns` the names at some columns.
#[cfg(feature = "ui")]
pub fn map([title, subtitle]: [&str; 2], description: String, rows: &[String], columns: &[(usize, String)], loads: &[Vec<f64>]) -> Figure {
    let count = loads.iter().map(Vec::len).max().unwrap_or(0).max(1);
    let widest = rows.iter().map(|name| text_width(name, 11.0)).fold(20.0, f64::max);
    let (left, top, row) = (26.0 + widest, 68.0, 18.0);
    let cell = (WIDTH - left - 20.0) / count as f64;
    let mut cells = Cells::default();
    let mut marks = vec![
        text([20.0, 30.0], 18.0, Color::INK, &fit(title, 18.0, WIDTH - 40.0)).bold(),
        text([20.0, 50.0], 13.0, Color::GREY, &fit(subtitle, 13.0, WIDTH - 40.0)),
    ];
    for (number, (name, loads)) in rows.iter().zip(loads).enumerate() {
        let y = top + row * number as f64;
        marks.push(text([left - 6.0, y + 13.0], 11.0, Color::GREY, name).anchor(Anchor::End));
        for (column, load) in loads.iter().enumerate() {
            cells.add([left + cell * column as f64, y, cell, row - 1.0], *load);
        }
    }
    cells.draw(&mut marks);
    let bottom = top + row * rows.len() as f64;
    for (column, name) in columns {
        let at = [left + cell * (*column as f64 + 0.5), bottom + 14.0];
        marks.push(text(at, 11.0, Color::GREY, name).anchor(Anchor::Middle));
    }
    draw_legend(&mut marks, bottom + 34.0);
    Figure { width: WIDTH, height: bottom + 82.0, description, marks }
}

/// Cells by colour, and the signs over them.
#[derive(Default)]
struct Cells {
    filled: BTreeMap<u32, Vec<[f64; 4]>>,
    hatches: Vec<[[f64; 2]; 2]>,
    crosses: Vec<[[f64; 2]; 2]>,
}

impl Cells {
    /// Adds a cell: left, top, width and height.
    fn add(&mut self, [x, y, width, height]: [f64; 4], load: f64) {
        if load.is_finite() {
            self.filled.entry(color(load).0).or_default().push([x, y, width, height]);
        }
        // In a wide cell the sign stays a sign.
        let half = width.min(3.0 * height) / 2.0;
        let [from, to] = [x + width / 2.0 - half, x + width / 2.0 + half];
        if load > 2.0 {
            self.hatches.push([[from, y + height], [to, y]]);
        }
        if load == 0.0 {
            self.crosses.extend([[[from, y], [to, y + height]], [[from, y + height], [to, y]]]);
        }
    }

    fn draw(self, marks: &mut Vec<Mark>) {
        marks.extend(self.filled.into_iter().map(|(color, cells)| Mark::Cells { cells: joined(cells), color: Color(color) }));
        for (ends, color) in [(self.hatches, Color::INK), (self.crosses, Color::WHITE)] {
            if !ends.is_empty() {
                marks.push(Mark::Segments { ends, color, width: 0.8 });
            }
        }
    }
}

/// The experts whose numbers fit beside their rows.
fn named_experts(experts: usize, row: f64) -> Vec<usize> {
    let step = (12.0 / row).ceil() as usize;
    (0..experts).step_by(step.max(1)).collect()
}

/// Cells that touch horizontally as one.
fn joined(mut cells: Vec<[f64; 4]>) -> Vec<[f64; 4]> {
    cells.sort_by(|a, b| a[1].total_cmp(&b[1]).then(a[0].total_cmp(&b[0])));
    let mut rows: Vec<[f64; 4]> = Vec::new();
    for cell in cells {
        match rows.last_mut() {
            Some(last) if last[1] == cell[1] && (last[0] + last[2] - cell[0]).abs() < 1e-6 => last[2] += cell[2],
            _ => rows.push(cell),
        }
    }
    rows
}

/// The colour of a load.
pub fn color(load: f64) -> Color {
    let step = ((load.clamp(0.0, 2.0) - 1.0) * f64::from(STEPS)).round() / f64::from(STEPS);
    let end = if step < 0.0 { ENDS[0] } else { ENDS[2] };
    let channel = |i: usize| ((ENDS[1][i] + (end[i] - ENDS[1][i]) * step.abs()).round() as u32) << (16 - 8 * i);
    Color(channel(0) | channel(1) | channel(2))
}

fn draw_legend(marks: &mut Vec<Mark>, top: f64) {
    let (left, cell) = (56.0, 18.0);
    for step in 0..=2 * STEPS {
        let load = f64::from(step) / f64::from(STEPS);
        let place = [left + cell * f64::from(step), top, cell, 12.0];
        marks.push(Mark::Cells { cells: vec![place], color: color(load) });
    }
    for (load, name) in [(0.0, "0"), (1.0, "1 = fair share"), (2.0, "2")] {
        let at = left + cell * (load * f64::from(STEPS) + 0.5);
        marks.push(text([at, top + 26.0], 11.0, Color::GREY, name).anchor(Anchor::Middle));
    }
    let [hatch, cross] = [left + cell * 19.5, left + cell * 27.0];
    marks.push(Mark::Cells { cells: vec![[hatch, top, cell, 12.0]], color: color(2.0) });
    marks.push(Mark::Segments { ends: vec![[[hatch, top + 12.0], [hatch + cell, top]]], color: Color::INK, width: 0.8 });
    marks.push(text([hatch + cell + 6.0, top + 10.0], 11.0, Color::GREY, "more than 2"));
    marks.push(Mark::Cells { cells: vec![[cross, top, cell, 12.0]], color: color(0.0) });
    let ends = vec![[[cross, top], [cross + cell, top + 12.0]], [[cross, top + 12.0], [cross + cell, top]]];
    marks.push(Mark::Segments { ends, color: Color::WHITE, width: 0.8 });
    marks.push(text([cross + cell + 6.0, top + 10.0], 11.0, Color::GREY, "no token at all"));
}
