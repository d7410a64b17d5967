//! A chart of lines: direct labels at their ends, dashed baselines with their names, few grid lines, a crosshair.
//!
//! The look is that of the report's figures, and axes and ticks are theirs. Gaps are gaps: a value that is not finite ends a line and is
//! marked. The crosshair is shared by all charts with the same `cursor`; it follows the pointer, and with the keyboard focus the arrow keys.
//! A drag selects a part of the x axis, a double click shows all of it again.
//!
//! Long because the parts of one chart are laid out together.

use std::rc::Rc;

use egui::{
    Align2, Color32, Id, Key, Painter, Pos2, Rect, Response, Role, Sense, Shape, Stroke, StrokeKind, Ui, Vec2, WidgetInfo, pos2, vec2,
};

use super::{
    saved,
    theme::{self, Colors, bold, plain, size},
    widgets,
};
use crate::lab::chart::{
    Scale,
    axis::{Axis, pieces, tick_names},
};

/// A line.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its colour.
    pub color: Color32,
    /// Positions and values, in order.
    pub points: Vec<[f64; 2]>,
    /// Position, lowest and highest value.
    pub band: Vec<[f64; 3]>,
    /// Values behind a smoothed line.
    pub raw: Vec<[f64; 2]>,
    /// Positions of values that are not finite.
    pub gaps: Vec<f64>,
    /// Whether only single points were measured, which are marked.
    pub is_dotted: bool,
}

/// What is seen of the x axis, shared by the charts of a screen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct View {
    /// The position of the crosshair.
    pub cursor: Option<f64>,
    /// The part of the axis that is shown; all of it by default.
    pub range: Option<[f64; 2]>,
}

/// A chart.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    /// The heading.
    pub title: String,
    /// Quantity and unit of the values.
    pub unit: String,
    /// Quantity of the x axis.
    pub x_title: String,
    /// The scale of the x axis.
    pub x_scale: Scale,
    /// The scale of the values.
    pub y_scale: Scale,
    /// The lines.
    pub lines: Rc<[Line]>,
    /// Name and value of reference lines.
    pub levels: Vec<(String, f64)>,
    /// Positions on the x axis with a word.
    pub marks: Vec<(f64, String)>,
    /// Whether values are being read.
    pub is_reading: bool,
    /// Height in points.
    pub height: f32,
}

const LEFT: f32 = 56.0;
const TOP: f32 = 38.0;
const BOTTOM: f32 = 34.0;
/// Room for labels at the ends of lines, in a chart of at least this width.
const LABELS: f32 = 150.0;
const ROOMY: f32 = 560.0;
const LABEL_HEIGHT: f32 = 15.0;
/// Rows of the table beside a chart.
const ROWS: usize = 40;

impl Chart {
    /// Shows the chart in the width that there is, with a button that shows it as a table.
    pub fn show(&self, ui: &mut Ui, view: &mut View) -> Response {
        let colors = theme::colors(ui);
        let id = ui.scope_id().with(("chart", &self.title));
        let width = ui.available_width().max(200.0);
        let (rect, response) = ui.allocate_exact_size(vec2(width, self.height), Sense::click_and_drag());
        let response = response.on_hover_cursor(egui::CursorIcon::Crosshair);
        let description = self.description(view);
        response.widget_info(|| WidgetInfo::labeled(Role::Image, true, &description));
        let has_room = width >= ROOMY;
        let right = if has_room { LABELS } else { 12.0 };
        // In a narrow chart the names of lines stand in a row above.
        let top = if has_room || self.lines.len() < 2 { TOP } else { TOP + 18.0 };
        let plot = Rect::from_min_max(rect.min + vec2(LEFT, top), rect.max - vec2(right, BOTTOM));
        let painter = ui.painter_at(rect.expand(2.0));
        painter.text(rect.min, Align2::LEFT_TOP, &self.title, bold(size::GROUP), colors.ink);
        let Some((x, y)) = self.axes(plot, view) else {
            painter.rect_stroke(plot, f32::from(theme::RADIUS), Stroke::new(1.0, colors.line), StrokeKind::Inside);
            painter.text(
                plot.center(),
                Align2::CENTER_CENTER,
                if self.is_reading { "reading …" } else { "nothing measured yet" },
                plain(size::BODY),
                colors.quiet,
            );
            return response;
        };
        self.draw_axes(&painter, plot, colors, &x, &y, rect);
        let clipped = painter.with_clip_rect(plot.expand(1.0));
        for line in self.lines.iter() {
            draw_line(&clipped, line, &x, &y);
        }
        self.draw_labels(&painter, plot, colors, &y, has_room);
        self.interact(ui, &response, plot, view, &x, id);
        if response.has_focus() {
            painter.rect_stroke(plot.expand(2.0), f32::from(theme::RADIUS), Stroke::new(2.0, colors.accent), StrokeKind::Outside);
        }
        if let Some(at) = view.cursor.filter(|at| x.contains(*at)) {
            self.draw_cursor(&painter, plot, colors, &x, &y, at);
        }
        let corner = Rect::from_min_size(pos2(plot.right() - 60.0, rect.top() - 4.0), vec2(60.0, 24.0));
        self.table(ui, id, corner, view);
        response
    }

    /// For those who cannot see it: the last value of each line, or those at the crosshair.
    pub(super) fn description(&self, view: &View) -> String {
        let value = |line: &Line| match view.cursor {
            Some(at) => at_position(&line.points, at).map(|point| point[1]),
            None => line.points.iter().rfind(|point| point[1].is_finite()).map(|point| point[1]),
        };
        let lines = self.lines.iter().filter_map(|line| Some(format!("{} {}", line.name, number(value(line)?))));
        let place = view.cursor.map_or("last values".to_string(), |at| format!("at {} {at:.0}", self.x_title));
        let unit = if self.unit.is_empty() { String::new() } else { format!(", {}", self.unit) };
        format!("{}{unit}: {place}: {}", self.title, lines.collect::<Vec<_>>().join(", "))
    }

    fn axes(&self, plot: Rect, view: &View) -> Option<(Axis, Axis)> {
        let [x, y] = self.ranges(view)?;
        let x = Axis::new(self.x_scale, x, [plot.left().into(), plot.right().into()]);
        Some((x, Axis::new(self.y_scale, y, [plot.bottom().into(), plot.top().into()])))
    }

    /// What is seen of both axes; `None` without a value.
    pub(super) fn ranges(&self, view: &View) -> Option<[[f64; 2]; 2]> {
        let accepted = |point: &[f64; 2]| self.x_scale.accepts(point[0]) && self.y_scale.accepts(point[1]);
        let points = || self.lines.iter().flat_map(|line| line.points.iter().chain(&line.raw)).copied().filter(accepted);
        let (low, high) = extent(points().map(|point| point[0]))?;
        let least = if self.x_scale == Scale::Log { low.max(1.0) } else { low.min(0.0) };
        let [from, to] = view.range.unwrap_or([least, high.max(least + 1.0)]);
        let seen = |at: f64| from <= at && at <= to;
        let bands = self.lines.iter().flat_map(|line| &line.band).filter(|band| seen(band[0])).flat_map(|band| [band[1], band[2]]);
        let values =
            points().filter(|point| seen(point[0])).map(|point| point[1]).chain(bands.filter(|value| self.y_scale.accepts(*value)));
        let (low, high) = extent(values)?;
        let range = match self.y_scale {
            Scale::Log => [low / 1.1, high * 1.1],
            Scale::Linear => {
                let room = 0.06 * (high - low).max(high.abs() * 1e-3).max(1e-9);
                [if low >= 0.0 { (low - room).max(0.0) } else { low - room }, high + room]
            }
        };
        Some([[from, to], range])
    }

    fn draw_axes(&self, painter: &Painter, plot: Rect, colors: Colors, x: &Axis, y: &Axis, rect: Rect) {
        let hidden: Vec<String> =
            self.levels.iter().filter(|(_, value)| !y.contains(*value)).map(|(name, value)| format!("{name} {}", number(*value))).collect();
        let beyond = if hidden.is_empty() { String::new() } else { format!("  (beyond the axis: {})", hidden.join(", ")) };
        let scale = if self.y_scale == Scale::Log { ", log" } else { "" };
        let room = (rect.width() / 6.5) as usize;
        painter.text(
            rect.min + vec2(0.0, 20.0),
            Align2::LEFT_TOP,
            short(&format!("{}{scale}{beyond}", self.unit), room),
            plain(size::SMALL),
            colors.quiet,
        );
        let ticks = y.ticks(4.0);
        for (value, name) in ticks.iter().zip(tick_names(&ticks, self.y_scale == Scale::Linear)) {
            let at = y.place(*value) as f32;
            painter.hline(plot.x_range(), at, Stroke::new(1.0, colors.line));
            painter.text(pos2(plot.left() - 8.0, at), Align2::RIGHT_CENTER, name, plain(size::SMALL), colors.quiet);
        }
        painter.hline(plot.x_range(), plot.bottom(), Stroke::new(1.0, colors.outline));
        let title = if self.x_scale == Scale::Log { format!("{}, log", self.x_title) } else { self.x_title.clone() };
        let title = painter.text(pos2(plot.right(), rect.bottom()), Align2::RIGHT_BOTTOM, title, plain(size::SMALL), colors.quiet);
        let ticks = x.ticks(f64::from(plot.width() / 90.0).clamp(3.0, 10.0));
        for (value, name) in ticks.iter().zip(tick_names(&ticks, self.x_scale == Scale::Linear)) {
            let at = x.place(*value) as f32;
            painter.vline(at, plot.bottom()..=plot.bottom() + 4.0, Stroke::new(1.0, colors.outline));
            let galley = painter.layout_no_wrap(name, plain(size::SMALL), colors.quiet);
            let place = Rect::from_min_size(pos2(at - galley.size().x / 2.0, plot.bottom() + 5.0), galley.size());
            if !place.expand(4.0).intersects(title) {
                painter.galley(place.min, galley, colors.quiet);
            }
        }
        let mut named = f32::NEG_INFINITY;
        for (value, word) in self.marks.iter().filter(|(at, _)| x.contains(*at)) {
            let at = x.place(*value) as f32;
            painter.add(Shape::dashed_line(&[pos2(at, plot.top()), pos2(at, plot.bottom())], Stroke::new(1.0, colors.line), 2.0, 3.0));
            // A word that would touch the one before is left out.
            if at > named {
                let drawn = painter.text(pos2(at + 3.0, plot.bottom() - 2.0), Align2::LEFT_BOTTOM, word, plain(size::SMALL), colors.quiet);
                named = drawn.right() + 6.0;
            }
        }
        for (_, value) in self.levels.iter().filter(|(_, value)| y.contains(*value)) {
            let at = y.place(*value) as f32;
            painter.add(Shape::dashed_line(&[pos2(plot.left(), at), pos2(plot.right(), at)], Stroke::new(1.0, colors.outline), 6.0, 4.0));
        }
    }

    /// Names at the ends of lines and levels, moved apart; in a narrow chart the names of lines in a row above.
    fn draw_labels(&self, painter: &Painter, plot: Rect, colors: Colors, y: &Axis, has_room: bool) {
        if !has_room {
            let mut at = pos2(plot.left(), plot.top() - 18.0);
            for line in self.lines.iter().take(if self.lines.len() > 1 { 4 } else { 0 }) {
                painter.line_segment([at + vec2(0.0, 7.0), at + vec2(12.0, 7.0)], Stroke::new(2.0, line.color));
                let drawn = painter.text(at + vec2(16.0, 0.0), Align2::LEFT_TOP, short(&line.name, 20), plain(size::SMALL), colors.ink);
                at.x = drawn.right() + 10.0;
            }
            for (name, value) in self.levels.iter().filter(|(_, value)| y.contains(*value)) {
                let at = pos2(plot.right() - 2.0, y.place(*value) as f32 - 1.0);
                let align = if at.y - LABEL_HEIGHT < plot.top() { Align2::RIGHT_TOP } else { Align2::RIGHT_BOTTOM };
                painter.text(at, align, format!("{} {}", short(name, 14), number(*value)), plain(size::SMALL), colors.quiet);
            }
            return;
        }
        let mut labels: Vec<(f32, String, Color32, Color32)> = Vec::new();
        for line in self.lines.iter() {
            let Some(last) = line.points.iter().rfind(|point| y.scale.accepts(point[1])) else { continue };
            labels.push((y.place(last[1]) as f32, format!("{} {}", short(&line.name, 15), number(last[1])), line.color, colors.ink));
        }
        for (name, value) in self.levels.iter().filter(|(_, value)| y.contains(*value)) {
            labels.push((y.place(*value) as f32, format!("{} {}", short(name, 14), number(*value)), colors.outline, colors.quiet));
        }
        labels.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut places: Vec<f32> = labels.iter().map(|label| label.0).collect();
        for i in 1..places.len() {
            places[i] = places[i].max(places[i - 1] + LABEL_HEIGHT);
        }
        let mut lowest = plot.bottom();
        for place in places.iter_mut().rev() {
            *place = place.min(lowest);
            lowest = *place - LABEL_HEIGHT;
        }
        for ((at, text, color, ink), place) in labels.into_iter().zip(places) {
            let start = pos2(plot.right() + 12.0, place);
            painter.line_segment([pos2(plot.right() + 2.0, at), start - vec2(2.0, 0.0)], Stroke::new(1.5, color));
            painter.text(start, Align2::LEFT_CENTER, text, plain(size::SMALL), ink);
        }
    }

    fn interact(&self, ui: &Ui, response: &Response, plot: Rect, view: &mut View, x: &Axis, id: Id) {
        let value = |at: Pos2| x.value(f64::from(at.x.clamp(plot.left(), plot.right())));
        if let Some(pointer) = response.hover_pos().filter(|at| plot.expand(4.0).contains(*at)) {
            view.cursor = Some(value(pointer));
        } else if response.contains_pointer() || ui.input(|input| input.pointer.delta() != Vec2::ZERO) && !response.has_focus() {
            view.cursor = None;
        }
        if response.clicked() {
            response.request_focus();
        }
        if response.double_clicked() {
            view.range = None;
        }
        let start = ui.data(|data| data.get_temp::<f64>(id));
        if response.drag_started() {
            ui.data_mut(|data| data.insert_temp(id, response.interact_pointer_pos().map_or(0.0, value)));
        } else if let (Some(start), Some(at)) = (start, response.interact_pointer_pos()) {
            let (from, to) = (x.place(start) as f32, at.x.clamp(plot.left(), plot.right()));
            let area = Rect::from_x_y_ranges(from.min(to)..=from.max(to), plot.y_range());
            ui.painter().rect_filled(area, 0.0, theme::colors(ui).accent.gamma_multiply(0.15));
            if response.drag_stopped() {
                ui.data_mut(|data| data.remove::<f64>(id));
                let end = value(at);
                if area.width() > 4.0 {
                    view.range = Some([start.min(end), start.max(end)]);
                }
            }
        }
        if response.has_focus() {
            ui.memory_mut(|memory| {
                let keys = egui::EventFilter { horizontal_arrows: true, ..Default::default() };
                memory.set_focus_lock_filter(response.id, keys);
            });
            let step = ui.input(|input| i32::from(input.key_pressed(Key::ArrowRight)) - i32::from(input.key_pressed(Key::ArrowLeft)));
            if step != 0 {
                view.cursor = self.lines.first().and_then(|line| next(&line.points, view.cursor, step));
            }
        }
    }

    /// The crosshair and the values there, in one box.
    fn draw_cursor(&self, painter: &Painter, plot: Rect, colors: Colors, x: &Axis, y: &Axis, at: f64) {
        let place = x.place(at) as f32;
        painter.vline(place, plot.y_range(), Stroke::new(1.0, colors.outline));
        let found: Vec<(&Line, [f64; 2])> =
            self.lines.iter().filter_map(|line| Some((line, at_position(&line.points, at)?))).take(12).collect();
        let Some((_, [nearest, _])) = found.first() else { return };
        let mut rows = vec![(format!("{} {}", self.x_title, number(*nearest)), colors.quiet)];
        for (line, [own, value]) in &found {
            if y.scale.accepts(*value) && y.contains(*value) {
                painter.circle_filled(pos2(x.place(*own) as f32, y.place(*value) as f32), 3.0, line.color);
            }
            // A line that was measured less often has its nearest value.
            let place = if own == nearest { String::new() } else { format!(" (at {})", number(*own)) };
            rows.push((format!("{}  {}{place}", number(*value), short(&line.name, 30)), colors.ink));
        }
        let galleys: Vec<_> = rows.into_iter().map(|(text, ink)| painter.layout_no_wrap(text, plain(size::SMALL), ink)).collect();
        let width = galleys.iter().map(|galley| galley.size().x).fold(0.0, f32::max) + 16.0;
        let height = 16.0 * galleys.len() as f32 + 8.0;
        let left = if place + width + 12.0 > plot.right() { place - width - 10.0 } else { place + 10.0 };
        let area = Rect::from_min_size(pos2(left, plot.top() + 4.0), vec2(width, height));
        painter.rect_filled(area, f32::from(theme::RADIUS), colors.panel);
        painter.rect_stroke(area, f32::from(theme::RADIUS), Stroke::new(1.0, colors.line), StrokeKind::Inside);
        for (row, galley) in galleys.into_iter().enumerate() {
            let start = area.min + vec2(8.0, 4.0 + 16.0 * row as f32);
            if row > 0 {
                painter.line_segment([start + vec2(-6.0, 8.0), start + vec2(-1.0, 8.0)], Stroke::new(2.0, found[row - 1].0.color));
            }
            painter.galley(start, galley, colors.ink);
        }
    }

    /// The chart as a table, behind a button.
    fn table(&self, ui: &mut Ui, id: Id, corner: Rect, view: &View) {
        let mut child = ui.new_child(egui::UiBuilder::new().max_rect(corner).layout(egui::Layout::right_to_left(egui::Align::Center)));
        let button = widgets::small_button(&mut child, "Table", &format!("{} as a table", self.title));
        egui::Popup::menu(&button).id(id.with("table")).close_behavior(egui::PopupCloseBehavior::CloseOnClickOutside).show(|ui| {
            ui.set_max_height(360.0);
            egui::ScrollArea::both().max_height(320.0).show(ui, |ui| {
                egui::Grid::new(id.with("grid")).striped(true).spacing(vec2(16.0, 4.0)).show(ui, |ui| {
                    ui.label(egui::RichText::new(&self.x_title).strong());
                    for line in self.lines.iter().take(12) {
                        ui.label(egui::RichText::new(short(&line.name, 24)).strong());
                    }
                    ui.end_row();
                    let positions = self.lines.iter().map(|line| &line.points).max_by_key(|points| points.len());
                    let positions = positions.map_or(&[][..], Vec::as_slice);
                    let step = positions.len().div_ceil(ROWS).max(1);
                    for [at, _] in positions.iter().rev().step_by(step).rev() {
                        ui.label(number(*at));
                        for line in self.lines.iter().take(12) {
                            ui.label(at_position(&line.points, *at).map_or("–".into(), |point| number(point[1])));
                        }
                        ui.end_row();
                    }
                });
            });
            saved::buttons(ui, &self.title, || self.csv(), || self.svg(view));
        });
    }
}

fn draw_line(painter: &Painter, line: &Line, x: &Axis, y: &Axis) {
    let place = |points: &[[f64; 2]]| -> Vec<Vec<Pos2>> {
        let pieces = pieces(points, x, y);
        pieces.into_iter().map(|piece| piece.into_iter().map(|[x, y]| pos2(x as f32, y as f32)).collect()).collect()
    };
    // One strip of quads: a polygon of the whole outline is not convex.
    let mut mesh = egui::Mesh::default();
    let fill = line.color.gamma_multiply(0.18);
    let drawable = |band: &&[f64; 3]| y.scale.accepts(band[1]) && y.scale.accepts(band[2]) && x.scale.accepts(band[0]);
    for (column, band) in line.band.iter().filter(drawable).enumerate() {
        let at = x.place(band[0]) as f32;
        mesh.colored_vertex(pos2(at, y.place(band[1]) as f32), fill);
        mesh.colored_vertex(pos2(at, y.place(band[2]) as f32), fill);
        if column > 0 {
            let i = 2 * column as u32;
            mesh.add_triangle(i - 2, i - 1, i);
            mesh.add_triangle(i - 1, i, i + 1);
        }
    }
    if !mesh.is_empty() {
        painter.add(Shape::mesh(mesh));
    }
    for piece in place(&line.raw) {
        painter.add(Shape::line(piece, Stroke::new(1.0, line.color.gamma_multiply(0.3))));
    }
    for piece in place(&line.points) {
        if piece.len() == 1 || line.is_dotted {
            piece.iter().for_each(|at| {
                painter.circle_filled(*at, 2.5, line.color);
            });
        }
        painter.add(Shape::line(piece, Stroke::new(2.0, line.color)));
    }
    for gap in line.gaps.iter().filter(|gap| x.contains(**gap)) {
        let (at, top) = (x.place(*gap) as f32, painter.clip_rect().top() + 6.0);
        let stroke = Stroke::new(1.5, line.color);
        painter.line_segment([pos2(at - 3.0, top - 3.0), pos2(at + 3.0, top + 3.0)], stroke);
        painter.line_segment([pos2(at - 3.0, top + 3.0), pos2(at + 3.0, top - 3.0)], stroke);
    }
}

fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((low.min(value), high.max(value))),
    })
}

/// The point nearest to a position.
fn at_position(points: &[[f64; 2]], at: f64) -> Option<[f64; 2]> {
    let after = points.partition_point(|point| point[0] < at);
    let near = [after.checked_sub(1), Some(after)].into_iter().flatten().filter_map(|index| points.get(index));
    near.min_by(|a, b| (a[0] - at).abs().total_cmp(&(b[0] - at).abs())).copied()
}

/// The position of the next point, or of the last one without a cursor.
fn next(points: &[[f64; 2]], cursor: Option<f64>, step: i32) -> Option<f64> {
    let Some(cursor) = cursor else { return points.last().map(|point| point[0]) };
    let nearest = at_position(points, cursor)?;
    let index = points.iter().position(|point| point[0] == nearest[0])? as i32 + step;
    points.get(index.clamp(0, points.len() as i32 - 1) as usize).map(|point| point[0])
}

/// A number as it is read: few digits, a true minus.
pub fn number(value: f64) -> String {
    let text = match value.abs() {
        _ if !value.is_finite() => return "not finite".into(),
        0.0 => "0".into(),
        v if v >= 1e6 => format!("{:.3}M", value / 1e6),
        v if v >= 1e4 => format!("{:.1}k", value / 1e3),
        v if value == value.round() && v >= 1.0 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.1}"),
        v if v >= 1e-2 => format!("{value:.4}"),
        _ => format!("{value:.2e}"),
    };
    text.replace('-', "\u{2212}")
}

/// A name that fits, with an ellipsis if it was cut.
pub fn short(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_string();
    }
    name.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// The exponential moving average, without its bias towards the start; gaps are kept.
pub fn smoothed(points: &[[f64; 2]], weight: f64) -> Vec<[f64; 2]> {
    let (mut sum, mut total) = (0.0, 0.0);
    let of = |point: &[f64; 2]| {
        if !point[1].is_finite() {
            return *point;
        }
        sum = weight * sum + (1.0 - weight) * point[1];
        total = weight * total + (1.0 - weight);
        [point[0], sum / total]
    };
    points.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::{at_position, next, number, smoothed};

    #[test]
    fn a_constant_stays_itself_when_it_is_smoothed_and_a_gap_stays_one() {
        let points = [[1.0, 3.0], [2.0, f64::NAN], [3.0, 3.0], [4.0, 3.0]];
        let smooth = smoothed(&points, 0.9);
        assert!(smooth[1][1].is_nan());
        assert!([0, 2, 3].iter().all(|&i| (smooth[i][1] - 3.0_f64).abs() < 1e-12), "{smooth:?}");
    }

    #[test]
    fn the_crosshair_finds_points() {
        let points = [[1.0, 3.0], [2.0, 4.0], [8.0, 5.0]];
        assert_eq!(at_position(&points, 4.0), Some([2.0, 4.0]));
        assert_eq!(at_position(&points, 6.0), Some([8.0, 5.0]));
        assert_eq!(at_position(&[], 6.0), None);
        assert_eq!((next(&points, None, 1), next(&points, Some(2.0), 1), next(&points, Some(1.0), -1)), (Some(8.0), Some(8.0), Some(1.0)));
    }

    #[test]
    fn numbers_are_short() {
        let read = [0.0, 250.0, 1.23456, -0.012, 12_345.0, 2_500_000.0, 0.000_12, f64::NAN].map(number);
        assert_eq!(read, ["0", "250", "1.2346", "\u{2212}0.0120", "12.3k", "2.500M", "1.20e\u{2212}4", "not finite"]);
    }
}
