//! What the window remembers from one start to the next: its size, the theme, the zoom and the screen.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use eframe::egui::{self, Theme, ThemePreference, Vec2};
use moelab::ui::Screen;
use moelab_native::{atomic, err, print};
use serde::{Deserialize, Serialize};

/// The smallest and the largest side of the window, in points.
const SIDES: [f32; 2] = [360.0, 8192.0];
/// The smallest and the largest zoom.
const ZOOMS: [f32; 2] = [0.5, 3.0];

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Layout {
    /// Width and height in points without zoom.
    pub size: [f32; 2],
    /// `light` or `dark`; the system's choice by default.
    pub theme: Option<String>,
    /// The zoom.
    pub zoom: f32,
    /// The word of the screen on the rail.
    pub screen: String,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout { size: [1280.0, 800.0], theme: None, zoom: 1.0, screen: Screen::Start.word().into() }
    }
}

impl Layout {
    /// What is remembered in a file; the defaults if there is none, or for values that make no sense.
    pub fn read(file: &Path) -> Layout {
        let Ok(text) = fs::read_to_string(file) else { return Layout::default() };
        let layout: Layout = serde_json::from_str(&text).unwrap_or_else(|error| {
            err!("warning: {}: {error}: the window opens as it does at first", print::path(file));
            Layout::default()
        });
        let Layout { size, zoom, .. } = layout;
        let within = |value: f32, [least, most]: [f32; 2], other: f32| if value.is_finite() { value.clamp(least, most) } else { other };
        Layout { size: size.map(|side| within(side, SIDES, 800.0)), zoom: within(zoom, ZOOMS, 1.0), ..layout }
    }

    /// Writes it to a file.
    pub fn write(&self, file: &Path) {
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        let written = file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| atomic::write(file, text.as_bytes()));
        if let Err(error) = written {
            err!("warning: {}: {error}: the layout of the window is not remembered", print::path(file));
        }
    }

    /// As the window is now, on a screen.
    pub fn of(context: &egui::Context, screen: Screen) -> Layout {
        let zoom = context.zoom_factor();
        let size = context.input(|input| input.viewport().inner_rect).map_or(Vec2::from(Layout::default().size), |rect| rect.size() * zoom);
        let theme = match context.options(|options| options.theme_preference) {
            ThemePreference::Light => Some("light".into()),
            ThemePreference::Dark => Some("dark".into()),
            ThemePreference::System => None,
        };
        Layout { size: size.into(), theme, zoom, screen: screen.word().into() }
    }

    /// Applies theme and zoom.
    pub fn apply(&self, context: &egui::Context) {
        match self.theme.as_deref() {
            Some("light") => context.set_theme(Theme::Light),
            Some("dark") => context.set_theme(Theme::Dark),
            _ => {}
        }
        context.set_zoom_factor(self.zoom);
    }

    /// The screen.
    pub fn screen(&self) -> Screen {
        Screen::ALL.into_iter().find(|screen| screen.word() == self.screen).unwrap_or_default()
    }
}

/// The file of this user; none if the system names no folder for such files.
pub fn file() -> Option<PathBuf> {
    let of = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = match env::consts::OS {
        "windows" => of("APPDATA"),
        "macos" => of("HOME").map(|home| home.join("Library/Application Support")),
        _ => of("XDG_CONFIG_HOME").or_else(|| of("HOME").map(|home| home.join(".config"))),
    };
    folder.map(|folder| folder.join("moelab/window.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_survives_and_a_damaged_one_is_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("moelab/window.json");
        assert_eq!(Layout::read(&file), Layout::default());
        let layout = Layout { size: [900.0, 700.0], theme: Some("dark".into()), zoom: 1.5, screen: "Experts".into() };
        layout.write(&file);
        assert_eq!(Layout::read(&file), layout);
        assert_eq!(Layout::read(&file).screen(), Screen::Experts);
        for (text, expected) in [
            ("{", Layout::default()),
            ("{\"size\": [1e30, 1.0], \"zoom\": 100}", Layout { size: [8192.0, 360.0], zoom: 3.0, ..Layout::default() }),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(Layout::read(&file), expected, "{text}");
        }
        fs::write(&file, "{\"screen\": \"None\"}").unwrap();
        assert_eq!(Layout::read(&file).screen(), Screen::Start);
    }
}
