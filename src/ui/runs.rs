//! All runs and studies: what differs, what has become of them, and what can be done with them.

use std::collections::BTreeMap;

use egui::{Align, Layout, RichText, ScrollArea, Sense, TextEdit, Ui, UiBuilder, pos2, vec2};

use super::{
    Screen,
    chart::{number, short},
    setup::Setup,
    state::{State, status},
    theme::{self, NEAR, bold, size},
    widgets,
};
use crate::lab::workspace::{Request, RunEntry, StudyEntry};

/// The screen.
#[derive(Default)]
pub struct Runs {
    filter: String,
    /// What is about to be removed.
    removing: Option<String>,
}

/// Height of a row, and of one in a narrow window, which has two lines.
const ROW: f32 = 32.0;
const TALL: f32 = 56.0;

/// A row of the table.
enum Row {
    Study(String),
    Run(String),
}

/// What differs between a run and another, in words; without one, from the defaults.
pub fn difference(run: &RunEntry, other: Option<&RunEntry>) -> String {
    let defaults = BTreeMap::new();
    let before = other.map_or(&defaults, |other| &other.settings);
    let keys: std::collections::BTreeSet<&String> = run.settings.keys().chain(before.keys()).filter(|key| *key != "seed").collect();
    let short_key = |key: &str| key.rsplit('.').take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join(".");
    let of = |key: &&String| {
        let (now, then) = (run.settings.get(*key), before.get(*key));
        if now == then {
            return None;
        }
        Some(match (then, now) {
            (Some(then), Some(now)) => format!("{} {then} → {now}", short_key(key)),
            (None, Some(now)) => format!("{} {now}", short_key(key)),
            (Some(then), None) => format!("{} {then} → default", short_key(key)),
            (None, None) => String::new(),
        })
    };
    keys.iter().filter_map(of).collect::<Vec<_>>().join(", ")
}

impl Runs {
    /// Draws the screen.
    pub fn show(&mut self, ui: &mut Ui, state: &mut State, screen: &mut Screen, setup: &mut Setup) {
        widgets::heading(ui, "Runs", "Each row names what differs from the baseline. Choose runs to see their curves.");
        if !state.is_listed {
            widgets::quiet(ui, "Reading the runs …");
            return;
        }
        if state.runs.is_empty() {
            if widgets::empty(
                ui,
                "No runs yet",
                "Runs and studies of this folder are listed here, those of the command line too.",
                Some("Start one"),
            ) {
                *screen = Screen::Start;
            }
            add_button(ui, state);
            return;
        }
        ui.horizontal_wrapped(|ui| {
            let label = ui.label("Find");
            let field =
                ui.add(TextEdit::singleline(&mut self.filter).hint_text("name or setting").desired_width(220.0)).labelled_by(label.id);
            if ui.input(|input| input.key_pressed(egui::Key::Slash)) && ui.memory(|memory| memory.focused().is_none()) {
                field.request_focus();
            }
            if ui.button("Read again").clicked() {
                state.list();
            }
            add_button(ui, state);
            if !state.shown.is_empty() && ui.button(format!("Curves of {}", state.shown.len())).clicked() {
                *screen = Screen::Curves;
            }
            if !state.shown.is_empty() && ui.button("Choose none").clicked() {
                state.shown.clear();
            }
        });
        let is_narrow = ui.available_width() < theme::NARROW;
        if !is_narrow {
            header(ui);
        }
        let height = if is_narrow { TALL } else { ROW };
        let rows = self.rows(state);
        let baseline = state.baseline.as_ref().and_then(|run| state.entry(run)).cloned();
        ScrollArea::both()
            .auto_shrink([false, true])
            .max_height((ui.clip_rect().bottom() - ui.cursor().top() - 40.0).max(240.0))
            .show_rows(ui, height - NEAR, rows.len(), |ui, range| {
                for row in &rows[range] {
                    match row {
                        Row::Study(name) => study_row(ui, state, screen, name, is_narrow),
                        Row::Run(name) if is_narrow => self.short_row(ui, state, screen, setup, name),
                        Row::Run(name) => self.run_row(ui, state, screen, setup, name, baseline.as_ref()),
                    }
                }
            });
        self.confirm(ui, state);
    }

    fn rows(&self, state: &State) -> Vec<Row> {
        let filter = self.filter.to_lowercase();
        let matches = |run: &&RunEntry| {
            filter.is_empty() || run.name.to_lowercase().contains(&filter) || difference(run, None).to_lowercase().contains(&filter)
        };
        let mut rows: Vec<Row> =
            state.runs.iter().filter(|run| run.study.is_none()).filter(matches).map(|run| Row::Run(run.name.clone())).collect();
        for study in &state.studies {
            let of: Vec<Row> = state
                .runs
                .iter()
                .filter(|run| run.study.as_ref() == Some(&study.name))
                .filter(matches)
                .map(|run| Row::Run(run.name.clone()))
                .collect();
            if !of.is_empty() || filter.is_empty() {
                rows.push(Row::Study(study.name.clone()));
                rows.extend(of);
            }
        }
        rows
    }

    fn run_row(&mut self, ui: &mut Ui, state: &mut State, screen: &mut Screen, setup: &mut Setup, name: &str, baseline: Option<&RunEntry>) {
        let colors = theme::colors(ui);
        let Some(entry) = state.entry(name).cloned() else { return };
        let is_live = is_live(state, &entry);
        let color = colors.run(state.color_index(name));
        let width = ui.available_width().max(820.0);
        let (rect, _) = ui.allocate_exact_size(vec2(width, ROW - NEAR), Sense::hover());
        if ui.rect_contains_pointer(rect) {
            ui.painter().rect_filled(rect.expand2(vec2(0.0, 4.0)), 2.0, colors.field);
        }
        let mut row = ui.new_child(UiBuilder::new().max_rect(rect).layout(Layout::left_to_right(Align::Center)).id_salt(("run", name)));
        let ui = &mut row;
        ui.spacing_mut().interact_size.y = ROW - NEAR;
        show_box(ui, state, name);
        widgets::swatch(ui, color);
        let column = |ui: &mut Ui, from: f32, to: f32| {
            let area = egui::Rect::from_min_max(pos2(rect.left() + from, rect.top()), pos2(rect.left() + to, rect.bottom()));
            let mut cell = ui.new_child(UiBuilder::new().max_rect(area).layout(Layout::left_to_right(Align::Center)).id_salt((
                "cell",
                name,
                from as i32,
            )));
            cell.spacing_mut().interact_size.y = ROW - NEAR;
            cell
        };
        let label = match &entry.arm {
            Some(arm) => format!("{arm}, seed {}", entry.seed),
            None => {
                let differs = difference(&entry, baseline.filter(|baseline| baseline.name != entry.name));
                if differs.is_empty() { entry.name.clone() } else { format!("{}: {differs}", entry.name) }
            }
        };
        let mut cell = column(ui, 56.0, width - 520.0);
        let link = cell.add(egui::Link::new(short(&label, 90))).on_hover_text(format!("{}\n{}", entry.name, difference(&entry, None)));
        link.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Link, true, format!("Open {name}")));
        if link.clicked() {
            open(state, screen, name);
        }
        let mut cell = column(ui, width - 512.0, width - 400.0);
        let (words, outcome) = status(&entry, is_live);
        let shown = widgets::state(&mut cell, outcome, words);
        if let Some(problem) = &entry.problem {
            shown.on_hover_text(problem);
        }
        let mut cell = column(ui, width - 396.0, width - 290.0);
        let share = f64::from(entry.made) / f64::from(entry.updates.max(1));
        widgets::bar(&mut cell, share, 48.0, outcome, &format!("{name} progress"));
        cell.label(RichText::new(format!("{}/{}", entry.made, entry.updates)).font(theme::plain(size::SMALL)).color(colors.quiet));
        let mut cell = column(ui, width - 286.0, width - 130.0);
        let other = baseline.filter(|baseline| baseline.name != entry.name);
        let mut hint = "Validation cross-entropy, nats per token".to_string();
        let mut text = RichText::new(widgets::loss(entry.val_ce));
        if let Some((other, difference)) = other.and_then(|other| Some((other, entry.val_ce? - other.val_ce?))) {
            let noise = state.noise(other);
            let band = noise.map_or(String::new(), |noise| format!(" ±{}", number(noise)));
            text = RichText::new(format!(
                "{} ({}{}{band})",
                widgets::loss(entry.val_ce),
                if difference >= 0.0 { "+" } else { "" },
                number(difference)
            ));
            hint += &match noise {
                Some(noise) if difference.abs() <= noise => {
                    format!(
                        "\nThe difference to the baseline is no larger than between two seeds of it, {} typically: it says nothing.",
                        number(noise)
                    )
                }
                Some(noise) => format!("\nTwo seeds of the baseline differ by {} typically. A study tells what follows.", number(noise)),
                None => "\nHow much seeds differ is not known: the baseline was trained with one. A study tells what follows.".to_string(),
            };
            if noise.is_some_and(|noise| difference.abs() <= noise) {
                text = text.color(colors.quiet);
            }
        }
        cell.label(text).on_hover_text(hint);
        let mut cell = column(ui, width - 126.0, width);
        self.actions(&mut cell, state, screen, setup, &entry);
    }

    /// A run in two lines, for a narrow window.
    fn short_row(&mut self, ui: &mut Ui, state: &mut State, screen: &mut Screen, setup: &mut Setup, name: &str) {
        let colors = theme::colors(ui);
        let Some(entry) = state.entry(name).cloned() else { return };
        let color = colors.run(state.color_index(name));
        let (words, outcome) = status(&entry, is_live(state, &entry));
        let (rect, _) = ui.allocate_exact_size(vec2(ui.available_width(), TALL - NEAR), Sense::hover());
        let mut row = ui.new_child(UiBuilder::new().max_rect(rect).id_salt(("run", name)));
        row.spacing_mut().interact_size.y = 20.0;
        row.spacing_mut().item_spacing.y = 2.0;
        row.horizontal(|ui| {
            show_box(ui, state, name);
            widgets::swatch(ui, color);
            let label = entry.arm.as_ref().map_or(entry.name.clone(), |arm| format!("{arm}, seed {}", entry.seed));
            let link = ui.add(egui::Link::new(short(&label, 34)));
            link.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Link, true, format!("Open {name}")));
            if link.clicked() {
                open(state, screen, name);
            }
        });
        row.horizontal(|ui| {
            ui.add_space(26.0);
            widgets::state(ui, outcome, words);
            widgets::quiet(ui, format!("{}/{}  CE {}", entry.made, entry.updates, widgets::loss(entry.val_ce)));
            self.actions(ui, state, screen, setup, &entry);
        });
    }

    fn actions(&mut self, ui: &mut Ui, state: &mut State, screen: &mut Screen, setup: &mut Setup, entry: &RunEntry) {
        let name = &entry.name;
        let is_busy = state.is_busy();
        if is_resumable(entry) && !is_busy && widgets::small_button(ui, "Resume", &format!("Resume {name}")).clicked() {
            state.resume(name);
            *screen = Screen::Curves;
        }
        let more = widgets::small_button(ui, "More", &format!("More about {name}"));
        egui::Popup::menu(&more).show(|ui| {
            if ui.button("Make it the baseline").clicked() {
                state.baseline = Some(name.clone());
            }
            if ui.button("Experts").clicked() {
                state.focus = Some(name.clone());
                *screen = Screen::Experts;
            }
            if ui.button("Texts").clicked() {
                state.focus = Some(name.clone());
                *screen = Screen::Sample;
            }
            if state.look(name).is_some() && ui.button("Change its config").clicked() {
                let text = state.look(name).map(|facts| facts.config.clone()).unwrap_or_default();
                setup.take_config(&text);
                *screen = Screen::Setup;
            }
            if state.has_archives
                && ui.button("Download").on_hover_text("One file that `moelab resume` continues once it is unpacked.").clicked()
            {
                state.ask(Request::Export { run: name.clone() });
            }
            if entry.study.is_none() && ui.button("Remove …").clicked() {
                self.removing = Some(name.clone());
            }
        });
        if state.baseline.as_deref() == Some(name) {
            widgets::quiet(ui, "baseline");
        }
    }

    /// Asks before anything is removed.
    fn confirm(&mut self, ui: &Ui, state: &mut State) {
        let Some(name) = self.removing.clone() else { return };
        egui::Window::new("Remove").collapsible(false).resizable(false).show(ui.ctx(), |ui| {
            ui.label(format!("Remove `{name}` with its checkpoints and results? This cannot be undone."));
            ui.horizontal(|ui| {
                if ui.button("Keep it").clicked() {
                    self.removing = None;
                }
                if ui.button(RichText::new("Remove").color(theme::colors(ui).bad)).clicked() {
                    state.shown.retain(|shown| *shown != name && !shown.starts_with(&format!("{name}/")));
                    state.ask(Request::Remove { name: name.clone() });
                    self.removing = None;
                }
            });
        });
    }
}

/// The names of the columns, from the right edge.
const COLUMNS: [(&str, f32); 3] = [("state", 512.0), ("updates", 396.0), ("validation CE", 286.0)];

fn header(ui: &mut Ui) {
    let colors = theme::colors(ui);
    let width = ui.available_width().max(820.0);
    let (rect, _) = ui.allocate_exact_size(vec2(width, 18.0), Sense::hover());
    let painter = ui.painter_at(rect);
    let names = std::iter::once(("run", width - 56.0)).chain(COLUMNS);
    for (name, from_right) in names {
        let at = pos2(rect.right() - from_right, rect.center().y);
        painter.text(at, egui::Align2::LEFT_CENTER, name, theme::plain(size::SMALL), colors.quiet);
    }
}

/// Whether a run makes updates now, in this app, by its study or in another process.
fn is_live(state: &State, entry: &RunEntry) -> bool {
    let of_study = || {
        state.study.as_ref().is_some_and(|study| {
            study.is_running && study.rows.iter().any(|row| entry.name.ends_with(&format!("/{}", row[0])) && row[4] == "training")
        })
    };
    entry.process.is_some() || state.live.as_ref().is_some_and(|live| live.run == entry.name && !live.is_over()) || of_study()
}

/// Whether a run can go on by itself, one that has not ended because its process did among them.
pub fn is_resumable(entry: &RunEntry) -> bool {
    entry.study.is_none() && entry.process.is_none() && entry.exit.map_or(entry.made > 0, |exit| exit.is_resumable())
}

/// Where the user has no folders, a run comes as a file.
fn add_button(ui: &mut Ui, state: &mut State) {
    if state.has_archives && ui.button("Add a run from a file …").on_hover_text("Or drop it onto the window: RUN.tar").clicked() {
        state.is_choosing = true;
    }
}

/// The box that chooses a run for the curves.
fn show_box(ui: &mut Ui, state: &mut State, name: &str) {
    let mut is_shown = state.shown.iter().any(|shown| shown == name);
    let check = ui.checkbox(&mut is_shown, "");
    check.widget_info(|| egui::WidgetInfo::selected(egui::Role::CheckBox, true, is_shown, format!("show {name}")));
    if check.changed() {
        state.shown.retain(|shown| shown != name);
        if is_shown {
            state.shown.push(name.to_string());
        }
    }
}

/// Shows the curves of a run.
fn open(state: &mut State, screen: &mut Screen, name: &str) {
    state.show_only(name);
    state.focus = Some(name.to_string());
    state.watch(name);
    *screen = Screen::Curves;
}

fn study_row(ui: &mut Ui, state: &mut State, screen: &mut Screen, name: &str, is_narrow: bool) {
    let colors = theme::colors(ui);
    let Some(study) = state.studies.iter().find(|study| study.name == name).cloned() else { return };
    let extent = if is_narrow { vec2(ui.available_width(), TALL - NEAR) } else { vec2(ui.available_width().max(820.0), ROW - NEAR) };
    let (rect, _) = ui.allocate_exact_size(extent, Sense::hover());
    let layout = if is_narrow { Layout::top_down(Align::Min) } else { Layout::left_to_right(Align::Center) };
    let mut row = ui.new_child(UiBuilder::new().max_rect(rect).layout(layout).id_salt(("study", name)));
    let ui = &mut row;
    ui.spacing_mut().interact_size.y = 20.0;
    ui.add(egui::Label::new(RichText::new(&study.name).font(bold(size::BODY)).color(colors.ink)).truncate());
    if let Some(problem) = &study.problem {
        ui.label(RichText::new(short(problem, 90)).color(colors.bad)).on_hover_text(problem);
        return;
    }
    if is_narrow {
        ui.horizontal(|ui| study_facts(ui, state, screen, &study));
    } else {
        ui.add(egui::Label::new(RichText::new(short(&study.question, 80)).color(colors.quiet)).truncate());
        study_facts(ui, state, screen, &study);
    }
}

/// How far a study is, and what can be done with it.
fn study_facts(ui: &mut Ui, state: &mut State, screen: &mut Screen, study: &StudyEntry) {
    let name = &study.name;
    widgets::quiet(ui, format!("{} of {} runs", study.over, study.runs));
    if widgets::small_button(ui, "Verdict", &format!("Verdict of {name}")).clicked() {
        state.open_study(name);
        *screen = Screen::Compare;
    }
    if widgets::small_button(ui, "Choose all", &format!("Choose all runs of {name}")).clicked() {
        let of_study = |run: &&RunEntry| run.study.as_ref() == Some(name) && run.made > 0;
        state.shown = state.runs.iter().filter(of_study).map(|run| run.name.clone()).collect();
    }
}
