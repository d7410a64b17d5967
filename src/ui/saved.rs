//! Charts and heat maps as files: their numbers as CSV, their picture as SVG.

use std::collections::BTreeMap;

use egui::{Color32, Context, Id, Ui};

use super::{
    chart::{Chart, View},
    heat::Heat,
};
use crate::lab::{
    chart::{
        heat,
        lines::{DrawnLine, Lines},
    },
    figure::Color,
};

/// Name and content.
type File = (String, String);

/// Buttons that copy the numbers, and save numbers and picture.
pub fn buttons(ui: &mut Ui, title: &str, csv: impl Fn() -> String, svg: impl Fn() -> Option<String>) {
    ui.horizontal(|ui| {
        if ui.button("Copy as CSV").clicked() {
            ui.ctx().copy_text(csv());
        }
        if ui.button("Save CSV").clicked() {
            save(ui.ctx(), title, "csv", csv());
        }
        if ui.button("Save SVG").clicked()
            && let Some(svg) = svg()
        {
            save(ui.ctx(), title, "svg", svg);
        }
    });
}

fn key() -> Id {
    Id::unique("files to save")
}

/// Keeps a file until the end of the frame.
fn save(context: &Context, title: &str, ending: &str, text: String) {
    let plain: String = title.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let words: Vec<&str> = plain.split('-').filter(|word| !word.is_empty()).collect();
    let file = (format!("{}.{ending}", words.join("-")), text);
    context.data_mut(|data| data.get_temp_mut_or_default::<Vec<File>>(key()).push(file));
}

/// The name of the file of a chart about some runs: another run's chart of the same title does not replace it.
pub fn named(runs: &[String], chart: &str) -> String {
    let plain = |run: &String| run.replace('/', "-");
    match runs {
        [] => chart.to_string(),
        [run] => format!("{}-{chart}", plain(run)),
        [first, rest @ ..] => format!("{}-and-{}-{chart}", plain(first), rest.len()),
    }
}

/// The files of this frame.
pub fn take(context: &Context) -> Vec<File> {
    context.data_mut(|data| data.remove_temp(key())).unwrap_or_default()
}

fn cell(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

impl Chart {
    /// The picture, on white; `None` without a value.
    pub fn svg(&self, view: &View) -> Option<String> {
        let [x, y] = self.ranges(view)?;
        let lines = self.lines.iter().map(|line| DrawnLine {
            name: line.name.clone(),
            color: color(line.color),
            points: line.points.clone(),
            band: line.band.clone(),
            raw: line.raw.clone(),
            is_dotted: line.is_dotted,
        });
        let content = Lines {
            title: self.title.clone(),
            y_title: self.unit.clone(),
            x_title: self.x_title.clone(),
            x: (self.x_scale, x),
            y: (self.y_scale, y),
            lines: lines.collect(),
            levels: self.levels.clone(),
            marks: self.marks.clone(),
            description: self.description(&View::default()),
        };
        Some(content.figure().to_svg())
    }

    /// All points, as CSV: a row for each position, a column for each line.
    pub fn csv(&self) -> String {
        let mut rows: BTreeMap<u64, Vec<Option<f64>>> = BTreeMap::new();
        for (column, line) in self.lines.iter().enumerate() {
            for [at, value] in &line.points {
                // The bits of a float that is not negative have the order of its values.
                rows.entry(at.max(0.0).to_bits()).or_insert_with(|| vec![None; self.lines.len()])[column] = Some(*value);
            }
        }
        let heads: Vec<String> = std::iter::once(&self.x_title).chain(self.lines.iter().map(|line| &line.name)).map(|n| cell(n)).collect();
        let mut text = heads.join(",") + "\n";
        for (at, values) in rows {
            let values = values.into_iter().map(|value| value.map_or(String::new(), |value| value.to_string()));
            let cells: Vec<String> = std::iter::once(f64::from_bits(at).to_string()).chain(values).collect();
            text += &(cells.join(",") + "\n");
        }
        text
    }
}

impl Heat<'_> {
    /// The picture, on white.
    pub fn svg(&self) -> String {
        heat::map([self.name, &self.about], self.description(), &self.rows, &self.columns, &self.loads).to_svg()
    }

    /// All loads, as CSV: a row for each row, a column for each column.
    pub fn csv(&self) -> String {
        let names = (0..self.loads.iter().map(Vec::len).max().unwrap_or(0)).map(|column| cell(&(self.heads.1)(column)));
        let heads: Vec<String> = std::iter::once(cell(self.heads.0)).chain(names).collect();
        let mut text = heads.join(",") + "\n";
        for (name, loads) in self.rows.iter().zip(&self.loads) {
            let loads = loads.iter().map(|load| if load.is_finite() { load.to_string() } else { String::new() });
            let cells: Vec<String> = std::iter::once(cell(name)).chain(loads).collect();
            text += &(cells.join(",") + "\n");
        }
        text
    }
}

fn color(color: Color32) -> Color {
    Color(u32::from_be_bytes([0, color.r(), color.g(), color.b()]))
}
