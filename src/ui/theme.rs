//! Colours, type and spacing, in light and dark.
//!
//! Nothing else names a colour or a size. Text has a contrast of at least 4.5 to its background, and what carries meaning at least 3
//! (tested); no meaning is carried by colour alone.

use std::{collections::BTreeMap, sync::Arc};

use egui::{
    Color32, Context, CornerRadius, FontData, FontDefinitions, FontFamily, FontId, Margin, Shadow, Stroke, Style, TextStyle, Theme, Ui,
    Vec2, Visuals,
    style::{ScrollStyle, Selection, WidgetVisuals, Widgets},
};

use crate::lab::chart::ARM_COLORS;

/// The colours of a theme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Colors {
    /// Behind everything.
    pub paper: Color32,
    /// Panels and cards.
    pub panel: Color32,
    /// Behind a field, and a row under the pointer.
    pub field: Color32,
    /// Lines between areas.
    pub line: Color32,
    /// Outlines of fields and buttons, and axes, which carry meaning.
    pub outline: Color32,
    /// Text.
    pub ink: Color32,
    /// Text of less weight.
    pub quiet: Color32,
    /// What can be acted on, and nothing else.
    pub accent: Color32,
    /// Text on the accent.
    pub on_accent: Color32,
    /// Done.
    pub good: Color32,
    /// Needs attention.
    pub attention: Color32,
    /// Failed.
    pub bad: Color32,
    is_dark: bool,
}

const fn rgb(hex: u32) -> Color32 {
    Color32::from_rgb((hex >> 16) as u8, (hex >> 8) as u8, hex as u8)
}

/// The light theme.
pub const LIGHT: Colors = Colors {
    paper: rgb(0xfbfbfa),
    panel: rgb(0xffffff),
    field: rgb(0xf3f3f1),
    line: rgb(0xe3e3e0),
    outline: rgb(0x858a8f),
    ink: rgb(0x1b1d1f),
    quiet: rgb(0x5e6468),
    accent: rgb(0x0b6bcb),
    on_accent: rgb(0xffffff),
    good: rgb(0x1a7f4f),
    attention: rgb(0x9a5b00),
    bad: rgb(0xc0362c),
    is_dark: false,
};

/// The dark theme.
pub const DARK: Colors = Colors {
    paper: rgb(0x151719),
    panel: rgb(0x1c1f22),
    field: rgb(0x24282c),
    line: rgb(0x2e3337),
    outline: rgb(0x767e84),
    ink: rgb(0xe8eaeb),
    quiet: rgb(0x9aa1a6),
    accent: rgb(0x6cb2ff),
    on_accent: rgb(0x0c1116),
    good: rgb(0x4cc38a),
    attention: rgb(0xe5a53d),
    bad: rgb(0xff8077),
    is_dark: true,
};

/// The colours of the theme in use.
pub fn colors(ui: &Ui) -> Colors {
    of(ui.visuals().dark_mode)
}

fn of(is_dark: bool) -> Colors {
    if is_dark { DARK } else { LIGHT }
}

impl Colors {
    /// The colour of a run or arm, by its place among those that are shown: it has the same on every screen.
    pub fn run(&self, index: usize) -> Color32 {
        let color = rgb(ARM_COLORS[index % ARM_COLORS.len()].0);
        // The darkest of them would be lost on a dark page.
        if self.is_dark { mix(color, Color32::WHITE, 0.25) } else { color }
    }

    /// The colour of a load, in shares of a fair one: blue below, the page's at 1, orange from there to 2.
    pub fn load(&self, load: f64) -> Color32 {
        let share = (load.clamp(0.0, 2.0) - 1.0) as f32;
        let end = match (share < 0.0, self.is_dark) {
            (true, false) => rgb(0x2166ac),
            (true, true) => rgb(0x4b9cf0),
            (false, false) => rgb(0xcc6808),
            (false, true) => rgb(0xf39a3e),
        };
        let middle = if self.is_dark { rgb(0x2a2e32) } else { rgb(0xf1f1ee) };
        mix(middle, end, share.abs())
    }
}

/// A colour between two.
pub fn mix(from: Color32, to: Color32, share: f32) -> Color32 {
    let channel = |a: u8, b: u8| (f32::from(a) + (f32::from(b) - f32::from(a)) * share).round() as u8;
    Color32::from_rgb(channel(from.r(), to.r()), channel(from.g(), to.g()), channel(from.b(), to.b()))
}

/// Sizes of type, in points.
pub mod size {
    /// Captions, axes.
    pub const SMALL: f32 = 12.0;
    /// Text.
    pub const BODY: f32 = 13.0;
    /// Headings of groups.
    pub const GROUP: f32 = 15.0;
    /// Headings of screens, and answers.
    pub const TITLE: f32 = 20.0;
}

/// Within groups.
pub const NEAR: f32 = 8.0;
/// Between groups.
pub const APART: f32 = 16.0;
/// Around a screen.
pub const MARGIN: f32 = 24.0;
/// Corners.
pub const RADIUS: u8 = 4;
/// Below this width of the window the layout is that of a phone.
pub const NARROW: f32 = 720.0;

const BOLD: &str = "bold";

/// The font of headings.
pub fn bold(size: f32) -> FontId {
    FontId::new(size, FontFamily::Name(BOLD.into()))
}

/// The font of text.
pub fn plain(size: f32) -> FontId {
    FontId::proportional(size)
}

/// The font of code and hashes.
pub fn mono(size: f32) -> FontId {
    FontId::monospace(size)
}

/// Sets fonts and styles.
pub fn install(context: &Context) {
    context.set_fonts(fonts());
    for theme in [Theme::Light, Theme::Dark] {
        context.set_style_of(theme, style(of(theme == Theme::Dark)));
    }
}

/// Subsets of IBM Plex (`src/ui/fonts`).
fn fonts() -> FontDefinitions {
    let files: [(&str, &'static [u8]); 3] = [
        ("sans", include_bytes!("fonts/Moelab-Sans.ttf")),
        (BOLD, include_bytes!("fonts/Moelab-Sans-SemiBold.ttf")),
        ("mono", include_bytes!("fonts/Moelab-Mono.ttf")),
    ];
    let data = files.into_iter().map(|(name, bytes)| (name.to_string(), Arc::new(FontData::from_static(bytes)))).collect();
    let family = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    let families = BTreeMap::from([
        (FontFamily::Proportional, family(&["sans"])),
        (FontFamily::Monospace, family(&["mono", "sans"])),
        (FontFamily::Name(BOLD.into()), family(&[BOLD, "sans"])),
    ]);
    FontDefinitions { font_data: data, families }
}

fn style(colors: Colors) -> Style {
    let mut style = Style {
        text_styles: BTreeMap::from([
            (TextStyle::Small, plain(size::SMALL)),
            (TextStyle::Body, plain(size::BODY)),
            (TextStyle::Button, plain(size::BODY)),
            (TextStyle::Heading, bold(size::TITLE)),
            (TextStyle::Monospace, mono(size::SMALL)),
        ]),
        visuals: visuals(colors),
        animation_time: 0.0,
        ..Style::default()
    };
    style.spacing.item_spacing = Vec2::new(NEAR, NEAR);
    style.spacing.button_padding = Vec2::new(12.0, 6.0);
    style.spacing.interact_size = Vec2::new(32.0, 28.0);
    style.spacing.icon_width = 16.0;
    style.spacing.icon_spacing = 6.0;
    style.spacing.combo_height = 360.0;
    style.spacing.window_margin = Margin::same(16);
    style.spacing.menu_margin = Margin::same(8);
    style.spacing.scroll = ScrollStyle::thin();
    style.spacing.tooltip_width = 420.0;
    style
}

fn visuals(colors: Colors) -> Visuals {
    let radius = CornerRadius::same(RADIUS);
    let widget = |fill: Color32, stroke: Color32, ink: Color32, width: f32| WidgetVisuals {
        // Rails of sliders and boxes; buttons have the weak one.
        bg_fill: colors.line,
        weak_bg_fill: fill,
        bg_stroke: Stroke::new(width, stroke),
        corner_radius: radius,
        fg_stroke: Stroke::new(1.0, ink),
        expansion: 0.0,
    };
    let base = if colors.is_dark { Visuals::dark() } else { Visuals::light() };
    Visuals {
        widgets: Widgets {
            noninteractive: widget(colors.panel, colors.line, colors.ink, 1.0),
            inactive: widget(colors.panel, colors.outline, colors.ink, 1.0),
            hovered: widget(colors.field, colors.accent, colors.ink, 1.0),
            active: widget(colors.field, colors.accent, colors.ink, 2.0),
            open: widget(colors.field, colors.accent, colors.ink, 1.0),
        },
        selection: Selection {
            bg_fill: mix(colors.panel, colors.accent, if colors.is_dark { 0.35 } else { 0.2 }),
            stroke: Stroke::new(1.0, colors.accent),
        },
        slider_trailing_fill: true,
        hyperlink_color: colors.accent,
        weak_text_color: Some(colors.quiet),
        faint_bg_color: colors.field,
        extreme_bg_color: colors.panel,
        text_edit_bg_color: Some(colors.panel),
        code_bg_color: colors.field,
        warn_fg_color: colors.attention,
        error_fg_color: colors.bad,
        window_corner_radius: radius,
        menu_corner_radius: radius,
        window_fill: colors.panel,
        panel_fill: colors.paper,
        window_stroke: Stroke::new(1.0, colors.line),
        window_shadow: Shadow::NONE,
        popup_shadow: Shadow { offset: [0, 2], blur: 8, spread: 0, color: Color32::from_black_alpha(40) },
        ..base
    }
}

#[cfg(test)]
mod tests {
    use super::{Color32, Colors, DARK, LIGHT};

    /// WCAG 2.2, <https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio>.
    fn contrast(a: Color32, b: Color32) -> f64 {
        let luminance = |color: Color32| {
            let linear = |channel: u8| {
                let value = f64::from(channel) / 255.0;
                if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * linear(color.r()) + 0.7152 * linear(color.g()) + 0.0722 * linear(color.b())
        };
        let [low, high] = [luminance(a).min(luminance(b)), luminance(a).max(luminance(b))];
        (high + 0.05) / (low + 0.05)
    }

    #[test]
    fn text_and_lines_with_meaning_stand_out() {
        for colors in [LIGHT, DARK] {
            let Colors { paper, panel, field, outline, ink, quiet, accent, on_accent, good, attention, bad, .. } = colors;
            for text in [ink, quiet, accent, good, attention, bad] {
                for ground in [paper, panel, field] {
                    assert!(contrast(text, ground) >= 4.5, "{text:?} on {ground:?}: {}", contrast(text, ground));
                }
            }
            assert!(contrast(on_accent, accent) >= 4.5);
            assert!(contrast(outline, panel) >= 3.0 && contrast(outline, paper) >= 3.0, "{}", contrast(outline, paper));
            for end in [0.0, 2.0] {
                assert!(contrast(colors.load(end), colors.load(1.0)) >= 3.0, "{end}: {}", contrast(colors.load(end), colors.load(1.0)));
            }
        }
    }
}
