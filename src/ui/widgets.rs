//! Small parts that several screens use.

use egui::{
    Align, Align2, Color32, CornerRadius, Frame, Layout, Margin, Painter, Pos2, Rect, Response, RichText, Role, Sense, Shape, Stroke,
    StrokeKind, Ui, Vec2, WidgetInfo, pos2, vec2,
};

use super::{
    Screen,
    state::Outcome,
    theme::{self, APART, Colors, NEAR, RADIUS, bold, plain, size},
};

/// The button of the one thing to do.
pub fn primary(ui: &mut Ui, text: &str) -> Response {
    let colors = theme::colors(ui);
    ui.scope(|ui| {
        let widgets = &mut ui.visuals_mut().widgets;
        for (visuals, share) in [(&mut widgets.inactive, 0.0), (&mut widgets.hovered, 0.12), (&mut widgets.active, 0.2)] {
            let fill = theme::mix(colors.accent, colors.ink, share);
            (visuals.bg_fill, visuals.weak_bg_fill) = (fill, fill);
            visuals.bg_stroke = Stroke::new(1.0, fill);
            visuals.fg_stroke = Stroke::new(1.0, colors.on_accent);
        }
        ui.add(egui::Button::new(RichText::new(text).color(colors.on_accent).font(bold(size::BODY))))
    })
    .inner
}

/// A button without an outline, for what is rarely needed. `name` says what it does without its surroundings.
pub fn small_button(ui: &mut Ui, text: &str, name: &str) -> Response {
    let colors = theme::colors(ui);
    let button = egui::Button::new(RichText::new(text).font(plain(size::SMALL)).color(colors.accent)).frame(false);
    let response = ui.add(button);
    response.widget_info(|| WidgetInfo::labeled(Role::Button, true, name));
    response
}

/// A card.
pub fn card<R>(ui: &mut Ui, content: impl FnOnce(&mut Ui) -> R) -> R {
    let colors = theme::colors(ui);
    let frame = Frame::new()
        .fill(colors.panel)
        .stroke(Stroke::new(1.0, colors.line))
        .corner_radius(CornerRadius::same(RADIUS))
        .inner_margin(Margin::same(APART as i8));
    frame.show(ui, content).inner
}

/// The heading of a screen, with a line that says what it is for.
pub fn heading(ui: &mut Ui, title: &str, purpose: &str) {
    let colors = theme::colors(ui);
    ui.label(RichText::new(title).font(bold(size::TITLE)).color(colors.ink));
    if !purpose.is_empty() {
        ui.label(RichText::new(purpose).color(colors.quiet));
    }
    ui.add_space(NEAR);
}

/// The heading of a group.
pub fn group(ui: &mut Ui, title: &str) {
    let colors = theme::colors(ui);
    ui.add_space(NEAR);
    ui.label(RichText::new(title).font(bold(size::GROUP)).color(colors.ink));
}

/// Text of less weight.
pub fn quiet(ui: &mut Ui, text: impl Into<String>) -> Response {
    let colors = theme::colors(ui);
    ui.label(RichText::new(text).color(colors.quiet))
}

/// What will be on a screen that has nothing yet, and one button that fills it. Returns whether it was pressed.
pub fn empty(ui: &mut Ui, title: &str, text: &str, button: Option<&str>) -> bool {
    let colors = theme::colors(ui);
    ui.add_space(48.0);
    ui.vertical_centered(|ui| {
        ui.label(RichText::new(title).font(bold(size::GROUP)).color(colors.ink));
        ui.set_max_width(ui.available_width().min(460.0));
        ui.label(RichText::new(text).color(colors.quiet));
        ui.add_space(NEAR);
        button.is_some_and(|button| primary(ui, button).clicked())
    })
    .inner
}

/// A name and a value, the value in tabular figures at the right.
pub fn fact(ui: &mut Ui, name: &str, value: &str) {
    let colors = theme::colors(ui);
    ui.spacing_mut().interact_size.y = 18.0;
    ui.horizontal(|ui| {
        ui.label(RichText::new(name).color(colors.quiet));
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            ui.add(egui::Label::new(RichText::new(value).color(colors.ink)).wrap_mode(egui::TextWrapMode::Truncate));
        });
    });
}

/// A state: its shape, its colour and its word.
pub fn state(ui: &mut Ui, outcome: Outcome, words: &str) -> Response {
    let colors = theme::colors(ui);
    ui.scope(|ui| {
        ui.spacing_mut().interact_size.y = 18.0;
        ui.spacing_mut().item_spacing.x = 6.0;
        ui.horizontal(|ui| {
            let (rect, _) = ui.allocate_exact_size(Vec2::splat(12.0), Sense::hover());
            shape(ui.painter(), rect.center(), outcome, colors);
            ui.label(RichText::new(words).color(color(outcome, colors)))
        })
        .inner
    })
    .inner
}

/// The colour of a state.
pub fn color(outcome: Outcome, colors: Colors) -> Color32 {
    match outcome {
        Outcome::Waiting => colors.quiet,
        Outcome::Running => colors.accent,
        Outcome::Done => colors.good,
        Outcome::Attention => colors.attention,
        Outcome::Failed => colors.bad,
    }
}

/// The shape of a state: ring, dot, check, triangle, cross.
pub fn shape(painter: &Painter, at: Pos2, outcome: Outcome, colors: Colors) {
    let color = color(outcome, colors);
    let stroke = Stroke::new(2.0, color);
    match outcome {
        Outcome::Waiting => {
            painter.circle_stroke(at, 4.0, Stroke::new(1.5, color));
        }
        Outcome::Running => {
            painter.circle_filled(at, 4.5, color);
        }
        Outcome::Done => {
            painter.add(Shape::line(vec![at + vec2(-4.5, 0.0), at + vec2(-1.5, 3.5), at + vec2(4.5, -3.5)], stroke));
        }
        Outcome::Attention => {
            painter.add(Shape::convex_polygon(vec![at + vec2(0.0, -5.0), at + vec2(5.0, 4.0), at + vec2(-5.0, 4.0)], color, Stroke::NONE));
        }
        Outcome::Failed => {
            painter.line_segment([at + vec2(-4.0, -4.0), at + vec2(4.0, 4.0)], stroke);
            painter.line_segment([at + vec2(-4.0, 4.0), at + vec2(4.0, -4.0)], stroke);
        }
    }
}

/// A bar of progress, from 0 to 1, with a name for those who cannot see it.
pub fn bar(ui: &mut Ui, share: f64, width: f32, outcome: Outcome, name: &str) -> Response {
    let colors = theme::colors(ui);
    let (rect, response) = ui.allocate_exact_size(vec2(width, 8.0), Sense::hover());
    response.widget_info(|| WidgetInfo {
        value: Some(share * 100.0),
        ..WidgetInfo::labeled(Role::ProgressIndicator, true, format!("{name}: {:.0} %", share * 100.0))
    });
    let rounding = 4.0;
    ui.painter().rect_filled(rect, rounding, colors.field);
    ui.painter().rect_stroke(rect, rounding, Stroke::new(1.0, colors.line), StrokeKind::Inside);
    let full = Rect::from_min_size(rect.min, vec2(rect.width() * share.clamp(0.0, 1.0) as f32, rect.height()));
    ui.painter().rect_filled(full, rounding, color(outcome, colors));
    response
}

/// A square in the colour of a run.
pub fn swatch(ui: &mut Ui, color: Color32) {
    let (rect, _) = ui.allocate_exact_size(Vec2::splat(10.0), Sense::hover());
    ui.painter().rect_filled(rect, 2.0, color);
}

/// A time for people: `1:05 h`, `3:20 min`, `12 s`.
pub fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match whole {
        3600.. => format!("{}:{:02} h", whole / 3600, whole / 60 % 60),
        60.. => format!("{}:{:02} min", whole / 60, whole % 60),
        _ => format!("{whole} s"),
    }
}

/// A large number: `1.2 M`, `34 k`.
pub fn count(value: f64) -> String {
    match value {
        v if v >= 1e15 => format!("{:.2} P", v / 1e15),
        v if v >= 1e12 => format!("{:.2} T", v / 1e12),
        v if v >= 1e9 => format!("{:.2} G", v / 1e9),
        v if v >= 1e6 => format!("{:.2} M", v / 1e6),
        v if v >= 1e4 => format!("{:.1} k", v / 1e3),
        v => format!("{v:.0}"),
    }
}

/// A loss, or a dash.
pub fn loss(value: Option<f64>) -> String {
    value.map_or("–".into(), |value| if value.is_finite() { format!("{value:.4}") } else { "not finite".into() })
}

/// Draws the pictogram of a screen around a point, as lines in a square.
fn icon(screen: Screen, painter: &Painter, at: Pos2, color: Color32) {
    let stroke = Stroke::new(1.6, color);
    let p = |x: f32, y: f32| at + vec2(x, y);
    let line = |points: &[[f32; 2]]| {
        painter.add(Shape::line(points.iter().map(|point| p(point[0], point[1])).collect(), stroke));
    };
    let square = |x: f32, y: f32, side: f32, filled: bool| {
        let rect = Rect::from_min_size(p(x, y), Vec2::splat(side));
        if filled {
            painter.rect_filled(rect, 1.0, color);
        } else {
            painter.rect_stroke(rect, 1.0, stroke, StrokeKind::Inside);
        }
    };
    match screen {
        Screen::Start => {
            painter.add(Shape::closed_line(vec![p(-4.0, -7.0), p(7.0, 0.0), p(-4.0, 7.0)], stroke));
        }
        Screen::Setup => {
            for (y, knob) in [(-5.0, 3.0), (0.0, -3.0), (5.0, 1.0)] {
                line(&[[-8.0, y], [8.0, y]]);
                painter.circle_filled(p(knob, y), 2.6, color);
            }
        }
        Screen::Runs => {
            for y in [-6.0, 0.0, 6.0] {
                painter.circle_filled(p(-7.0, y), 1.6, color);
                line(&[[-3.0, y], [8.0, y]]);
            }
        }
        Screen::Curves => {
            line(&[[-8.0, -7.0], [-8.0, 7.0], [8.0, 7.0]]);
            line(&[[-6.0, -6.0], [-3.0, 0.0], [1.0, 3.0], [8.0, 4.0]]);
        }
        Screen::Experts => {
            for (i, x) in [-8.0, -2.5, 3.0].into_iter().enumerate() {
                for (j, y) in [-8.0, -2.5, 3.0].into_iter().enumerate() {
                    square(x, y, 4.6, (i + 2 * j) % 3 == 0);
                }
            }
        }
        Screen::Sample => {
            for (y, end) in [(-6.0, 8.0), (-2.0, 5.0), (2.0, 8.0), (6.0, -1.0)] {
                line(&[[-8.0, y], [end, y]]);
            }
        }
        Screen::Compare => {
            line(&[[0.0, -8.0], [0.0, 8.0]]);
            for (y, from, to) in [(-5.0, -7.0, -1.5), (0.0, -3.0, 4.0), (5.0, 2.0, 8.0)] {
                line(&[[from, y], [to, y]]);
                painter.circle_filled(p((from + to) / 2.0, y), 2.2, color);
            }
        }
        Screen::Audit => {
            painter.circle_stroke(p(-2.0, -2.0), 5.5, stroke);
            line(&[[2.0, 2.0], [8.0, 8.0]]);
            line(&[[-4.5, -2.0], [-2.5, 0.0], [1.0, -4.0]]);
        }
        Screen::Report => {
            line(&[[-6.0, -8.0], [2.0, -8.0], [6.0, -4.0], [6.0, 8.0], [-6.0, 8.0], [-6.0, -8.0]]);
            for (y, end) in [(-2.0, 3.0), (1.5, 3.0), (5.0, 0.0)] {
                line(&[[-3.0, y], [end, y]]);
            }
        }
        Screen::Machine => {
            square(-5.0, -5.0, 10.0, false);
            for k in [-3.0, 0.0, 3.0] {
                line(&[[k, -8.0], [k, -5.0]]);
                line(&[[k, 5.0], [k, 8.0]]);
                line(&[[-8.0, k], [-5.0, k]]);
                line(&[[5.0, k], [8.0, k]]);
            }
        }
    }
}

/// An entry of the rail: icon above word; the current one has a bar at its side, bold type and another colour.
pub fn rail_entry(ui: &mut Ui, screen: Screen, word: &str, is_current: bool, extent: Vec2, is_bottom: bool) -> Response {
    let colors = theme::colors(ui);
    let (rect, response) = ui.allocate_exact_size(extent, Sense::click());
    response.widget_info(|| WidgetInfo::selected(Role::RadioButton, true, is_current, word));
    let color = if is_current { colors.accent } else { colors.quiet };
    let painter = ui.painter();
    if response.hovered() || response.has_focus() {
        painter.rect_filled(rect.shrink(2.0), f32::from(RADIUS), colors.field);
    }
    if response.has_focus() {
        painter.rect_stroke(rect.shrink(2.0), f32::from(RADIUS), Stroke::new(2.0, colors.accent), StrokeKind::Inside);
    }
    if is_current {
        let side = match is_bottom {
            true => Rect::from_min_size(rect.min + vec2(8.0, 0.0), vec2(rect.width() - 16.0, 3.0)),
            false => Rect::from_min_size(rect.min + vec2(0.0, 8.0), vec2(3.0, rect.height() - 16.0)),
        };
        painter.rect_filled(side, 1.0, colors.accent);
    }
    icon(screen, painter, pos2(rect.center().x, rect.top() + rect.height() * 0.38), color);
    let font = if is_current { bold(size::SMALL) } else { plain(size::SMALL) };
    let ink = if is_current { colors.ink } else { colors.quiet };
    painter.text(pos2(rect.center().x, rect.bottom() - 6.0), Align2::CENTER_BOTTOM, word, font, ink);
    response
}
