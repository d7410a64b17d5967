//! Heat maps of loads, in shares of a fair one: the scale is fixed from 0 to 2 and centred on 1. Beyond 2 is hatched, no token at all is crossed.

use egui::{Align2, Color32, Pos2, Rect, Response, RichText, Role, Sense, Stroke, Ui, WidgetInfo, pos2, vec2};

use super::{
    saved,
    theme::{self, Colors, plain, size},
    widgets,
};

/// The most columns of the table beside a map; its CSV has all.
const TABLE_COLUMNS: usize = 24;

/// A heat map: rows by columns of loads.
pub struct Heat<'a> {
    /// What it shows, for those who cannot see it.
    pub name: &'a str,
    /// Of what, and when: below the heading of its file.
    pub about: String,
    /// The names of the rows.
    pub rows: Vec<String>,
    /// The names at some columns.
    pub columns: Vec<(usize, String)>,
    /// What the rows are, and the full name of a column: the heads of the table.
    pub heads: (&'a str, &'a dyn Fn(usize) -> String),
    /// For each row, the load of each column, in shares of a fair one; NaN where nothing was measured.
    pub loads: Vec<Vec<f64>>,
    /// The column that is marked.
    pub marked: Option<usize>,
    /// Height of a row in points.
    pub row_height: f32,
    /// Whether the value stands in each cell, if there is room.
    pub has_values: bool,
}

/// A cell under the pointer: row and column.
pub type Cell = (usize, usize);

impl Heat<'_> {
    /// Draws it in the width that there is, with a button that shows it as a table.
    pub fn show(&self, ui: &mut Ui) -> (Response, Option<Cell>) {
        let shown = self.draw(ui);
        // In the row of the heading above.
        let rect = shown.0.rect;
        let corner = Rect::from_min_size(pos2(rect.right() - 60.0, rect.top() - 30.0), vec2(60.0, 24.0));
        let mut child = ui.new_child(egui::UiBuilder::new().max_rect(corner).layout(egui::Layout::right_to_left(egui::Align::Center)));
        let button = widgets::small_button(&mut child, "Table", &format!("{} as a table", self.name));
        let close = egui::PopupCloseBehavior::CloseOnClickOutside;
        egui::Popup::menu(&button).id(button.id.with("table")).close_behavior(close).show(|ui| self.table(ui));
        shown
    }

    /// Every load, or the last columns and rows of many.
    fn table(&self, ui: &mut Ui) {
        let columns = self.loads.iter().map(Vec::len).max().unwrap_or(0);
        let step = columns.div_ceil(TABLE_COLUMNS).max(1);
        let shown: Vec<usize> = (0..columns).rev().step_by(step).collect();
        let room = (ui.ctx().content_rect().width() - 60.0).min(640.0);
        ui.set_min_width((120.0 + 76.0 * shown.len() as f32).min(room));
        egui::ScrollArea::both().max_height(320.0).show(ui, |ui| {
            egui::Grid::new("loads").striped(true).spacing(vec2(16.0, 4.0)).show(ui, |ui| {
                ui.label(RichText::new(self.heads.0).strong());
                for column in shown.iter().rev() {
                    ui.label(RichText::new((self.heads.1)(*column)).strong());
                }
                ui.end_row();
                for (name, loads) in self.rows.iter().zip(&self.loads) {
                    ui.label(name);
                    for column in shown.iter().rev() {
                        let load = loads.get(*column).filter(|load| load.is_finite());
                        ui.label(load.map_or("–".into(), |load| format!("{load:.3}")));
                    }
                    ui.end_row();
                }
            });
        });
        saved::buttons(ui, self.name, || self.csv(), || Some(self.svg()));
    }

    fn draw(&self, ui: &mut Ui) -> (Response, Option<Cell>) {
        let colors = theme::colors(ui);
        let widest = self.rows.iter().map(|name| name.chars().count()).max().unwrap_or(0) as f32;
        let left = (widest * 7.0 + 12.0).clamp(40.0, 170.0);
        let columns = self.loads.iter().map(Vec::len).max().unwrap_or(0);
        let width = ui.available_width();
        let extent = vec2(width, self.row_height * self.loads.len() as f32 + 20.0);
        let (rect, response) = ui.allocate_exact_size(extent, Sense::click());
        let area = Rect::from_min_max(rect.min + vec2(left, 0.0), rect.max - vec2(0.0, 20.0));
        let description = self.description();
        response.widget_info(|| WidgetInfo::labeled(Role::Image, true, &description));
        if columns == 0 || !ui.is_rect_visible(rect) {
            return (response, None);
        }
        let cell = vec2(area.width() / columns as f32, self.row_height);
        let painter = ui.painter_at(rect);
        let place = |row: usize, column: usize| {
            let min = area.min + vec2(cell.x * column as f32, cell.y * row as f32);
            Rect::from_min_size(min, vec2(cell.x + 0.5, cell.y - 1.0))
        };
        for (row, loads) in self.loads.iter().enumerate() {
            for (column, load) in loads.iter().enumerate() {
                draw_cell(&painter, place(row, column), *load, colors, self.has_values && cell.x >= 34.0 && cell.y >= 14.0);
            }
            let every = (13.0 / self.row_height).ceil().max(1.0) as usize;
            if row % every == 0 {
                let at = pos2(area.left() - 8.0, place(row, 0).center().y);
                painter.text(at, Align2::RIGHT_CENTER, &self.rows[row], plain(size::SMALL), colors.quiet);
            }
        }
        for (column, name) in &self.columns {
            let at = area.left() + cell.x * (*column as f32 + 0.5);
            let (at, align) = match *column {
                0 if cell.x < 30.0 => (area.left(), Align2::LEFT_BOTTOM),
                column if cell.x < 30.0 && column + 1 == columns => (area.right(), Align2::RIGHT_BOTTOM),
                _ => (at, Align2::CENTER_BOTTOM),
            };
            painter.text(pos2(at, rect.bottom()), align, name, plain(size::SMALL), colors.quiet);
        }
        if let Some(column) = self.marked {
            let at = area.left() + cell.x * (column as f32 + 0.5);
            painter.vline(at, area.y_range(), Stroke::new(1.5, colors.ink));
        }
        let hovered = response.hover_pos().filter(|at| area.contains(*at)).map(|at: Pos2| {
            let column = ((at.x - area.left()) / cell.x) as usize;
            (((at.y - area.top()) / cell.y) as usize, column.min(columns - 1))
        });
        (response, hovered.filter(|(row, _)| *row < self.loads.len()))
    }

    pub(super) fn description(&self) -> String {
        let last: Vec<String> = self
            .rows
            .iter()
            .zip(&self.loads)
            .filter_map(|(name, loads)| Some(format!("{name} {:.2}", loads.iter().rfind(|load| load.is_finite())?)))
            .take(64)
            .collect();
        format!("{}, shares of a fair load: {}", self.name, last.join(", "))
    }
}

fn draw_cell(painter: &egui::Painter, rect: Rect, load: f64, colors: Colors, has_value: bool) {
    if !load.is_finite() {
        return;
    }
    let fill = colors.load(load);
    painter.rect_filled(rect, 0.0, fill);
    let ink = if luminance(fill) > 0.4 { Color32::from_rgb(0x1b, 0x1d, 0x1f) } else { Color32::WHITE };
    let stroke = Stroke::new(1.0, ink.gamma_multiply(0.7));
    if load > 2.0 {
        painter.line_segment([rect.left_bottom(), rect.right_top()], stroke);
    }
    if load == 0.0 {
        painter.line_segment([rect.left_bottom(), rect.right_top()], stroke);
        painter.line_segment([rect.left_top(), rect.right_bottom()], stroke);
    }
    if has_value {
        painter.text(rect.center(), Align2::CENTER_CENTER, format!("{load:.2}"), plain(size::SMALL), ink);
    }
}

fn luminance(color: Color32) -> f32 {
    let [r, g, b] = [color.r(), color.g(), color.b()].map(|channel| f32::from(channel) / 255.0);
    0.299 * r + 0.587 * g + 0.114 * b
}

/// The legend, which is always there.
pub fn legend(ui: &mut Ui) {
    let colors = theme::colors(ui);
    let is_narrow = ui.available_width() < 440.0;
    let height = if is_narrow { 50.0 } else { 32.0 };
    let (rect, response) = ui.allocate_exact_size(vec2(ui.available_width().min(520.0), height), Sense::hover());
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, "Legend: blue is less than a fair share, orange more"));
    let painter = ui.painter_at(rect);
    let steps = 20;
    let cell = 10.0;
    for step in 0..=steps {
        let load = 2.0 * f64::from(step) / f64::from(steps);
        let at = Rect::from_min_size(rect.min + vec2(cell * step as f32, 0.0), vec2(cell + 0.5, 12.0));
        painter.rect_filled(at, 0.0, colors.load(load));
    }
    let width = cell * (steps + 1) as f32;
    for (share, align, name) in [(0.0, Align2::LEFT_TOP, "0"), (0.5, Align2::CENTER_TOP, "1 = fair share"), (1.0, Align2::RIGHT_TOP, "2")] {
        painter.text(rect.min + vec2(width * share, 15.0), align, name, plain(size::SMALL), colors.quiet);
    }
    // Beside the scale, or below it.
    let (mut left, top) = if is_narrow { (rect.left(), rect.top() + 34.0) } else { (rect.left() + width + 20.0, rect.top()) };
    for (load, name) in [(2.5, "more than 2"), (0.0, "no token")] {
        draw_cell(&painter, Rect::from_min_size(pos2(left, top), vec2(14.0, 12.0)), load, colors, false);
        let drawn = painter.text(pos2(left + 20.0, top - 2.0), Align2::LEFT_TOP, name, plain(size::SMALL), colors.quiet);
        left = drawn.right() + 16.0;
    }
}
