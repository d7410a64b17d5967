//! What surrounds every screen: the rail, the bar above and the line below.

use egui::{Align, Layout, Margin, Panel, RichText, ScrollArea, Stroke, Ui, vec2};

use super::{
    Screen,
    live::{Live, Stage},
    state::{Outcome, State, Weight},
    theme::{self, APART, MARGIN, NEAR, bold, plain, size},
    widgets,
};
use crate::{
    lab::suite::SuiteCommand,
    run::{
        protocol::{Command, OpeningPhase},
        summary::ExitReason,
    },
};

/// Names that drivers give adapters that compute on the processor.
const SOFTWARE: [&str; 4] = ["llvmpipe", "swiftshader", "lavapipe", "basic render"];

/// Whether an adapter computes on the processor, so that its speed says nothing about a GPU.
pub fn is_software(adapter: &str) -> bool {
    let adapter = adapter.to_lowercase();
    SOFTWARE.iter().any(|name| adapter.contains(name))
}

/// What is open around the screens.
#[derive(Default)]
pub struct Frame {
    /// Whether the list of shortcuts is open.
    pub are_shortcuts_shown: bool,
    are_notes_shown: bool,
}

/// Screens of the bar at the bottom of a narrow window; the others are in its menu.
const BOTTOM: [Screen; 4] = [Screen::Start, Screen::Runs, Screen::Curves, Screen::Compare];

impl Frame {
    /// Draws rail, bar and line.
    pub fn bars(&mut self, ui: &mut Ui, state: &mut State, screen: &mut Screen, place: &str, is_narrow: bool) {
        let colors = theme::colors(ui);
        let bar = egui::Frame::new().fill(colors.panel).inner_margin(Margin::symmetric(APART as i8, 8)).stroke(Stroke::NONE);
        Panel::top("top").frame(bar).show(ui, |ui| top(ui, state, place, is_narrow));
        if is_narrow {
            Panel::bottom("rail").frame(bar.inner_margin(Margin::symmetric(4, 2))).show(ui, |ui| bottom_rail(ui, screen));
        }
        Panel::bottom("status").frame(bar.inner_margin(Margin::symmetric(APART as i8, 4))).show(ui, |ui| self.status(ui, state));
        if !is_narrow {
            let rail = egui::Frame::new().fill(colors.panel).inner_margin(Margin::symmetric(0, 8));
            Panel::left("rail").frame(rail).exact_size(76.0).resizable(false).show(ui, |ui| {
                ui.spacing_mut().item_spacing.y = 2.0;
                for (number, entry) in Screen::ALL.into_iter().enumerate() {
                    let response = widgets::rail_entry(ui, entry, entry.word(), *screen == entry, vec2(76.0, 56.0), false);
                    if response.on_hover_text(format!("{} ({})", entry.word(), (number + 1) % 10)).clicked() {
                        *screen = entry;
                    }
                }
            });
        }
        self.notes(ui, state);
        if self.are_shortcuts_shown {
            self.shortcuts(ui);
        }
    }

    /// The last incident with its age, and a button that lists all.
    fn status(&mut self, ui: &mut Ui, state: &State) {
        let colors = theme::colors(ui);
        ui.horizontal(|ui| {
            ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
                let problems = state.notes.iter().filter(|note| note.weight > Weight::Info).count();
                let words = if problems == 0 { "Log".to_string() } else { format!("Log (problems: {problems})") };
                if widgets::small_button(ui, &words, "Log").clicked() {
                    self.are_notes_shown ^= true;
                }
                if widgets::small_button(ui, "?", "Shortcuts").on_hover_text("Shortcuts (?)").clicked() {
                    self.are_shortcuts_shown ^= true;
                }
                ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                    let Some(note) = state.notes.back() else {
                        // Messages come here; what a run does stands above.
                        if state.live.as_ref().is_none_or(Live::is_over) && state.study.as_ref().is_none_or(|study| !study.is_running) {
                            widgets::quiet(ui, "Nothing is under way.");
                        }
                        return;
                    };
                    let color = match note.weight {
                        Weight::Info => colors.quiet,
                        Weight::Warning => colors.attention,
                        Weight::Problem => colors.bad,
                    };
                    let age = widgets::duration(state.now - note.at);
                    let text = format!("{age} ago  {}  {}", note.about, note.text.lines().next().unwrap_or_default());
                    ui.add(egui::Label::new(RichText::new(text).color(color)).truncate());
                });
            });
        });
    }

    fn notes(&mut self, ui: &Ui, state: &State) {
        let mut is_open = self.are_notes_shown;
        egui::Window::new("Log").open(&mut is_open).default_size(vec2(560.0, 320.0)).show(ui.ctx(), |ui| {
            ScrollArea::vertical().stick_to_bottom(true).show(ui, |ui| {
                if state.notes.is_empty() {
                    widgets::quiet(ui, "What happens to runs is listed here.");
                }
                for note in &state.notes {
                    let outcome = match note.weight {
                        Weight::Info => Outcome::Done,
                        Weight::Warning => Outcome::Attention,
                        Weight::Problem => Outcome::Failed,
                    };
                    widgets::state(ui, outcome, &format!("{} ago  {}", widgets::duration(state.now - note.at), note.about));
                    ui.label(&note.text);
                    ui.add_space(4.0);
                }
            });
        });
        self.are_notes_shown = is_open;
    }

    fn shortcuts(&mut self, ui: &Ui) {
        let mut is_open = true;
        egui::Window::new("Shortcuts").open(&mut is_open).collapsible(false).resizable(false).show(ui.ctx(), |ui| {
            egui::Grid::new("shortcuts").spacing(vec2(24.0, 4.0)).show(ui, |ui| {
                let rows = [
                    ("1 to 9, 0", "the screens, in the order of the rail"),
                    ("Space", "pause or continue the run"),
                    ("Tab", "the next control"),
                    ("← →", "move the crosshair of the chart with the focus"),
                    ("drag, double click", "zoom into a chart, show all of it"),
                    ("Ctrl + and −", "larger and smaller"),
                    ("?", "this list"),
                ];
                for (key, meaning) in rows {
                    ui.label(RichText::new(key).font(bold(size::BODY)));
                    ui.label(meaning);
                    ui.end_row();
                }
            });
        });
        self.are_shortcuts_shown = is_open;
    }
}

fn bottom_rail(ui: &mut Ui, screen: &mut Screen) {
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 0.0;
        let width = ui.available_width() / (BOTTOM.len() + 1) as f32;
        for entry in BOTTOM {
            if widgets::rail_entry(ui, entry, entry.word(), *screen == entry, vec2(width, 52.0), true).clicked() {
                *screen = entry;
            }
        }
        let others = Screen::ALL.into_iter().filter(|other| !BOTTOM.contains(other));
        let is_other = !BOTTOM.contains(screen);
        let (icon, word) = if is_other { (*screen, screen.word()) } else { (Screen::Runs, "More") };
        let more = widgets::rail_entry(ui, icon, word, is_other, vec2(width, 52.0), true);
        egui::Popup::menu(&more).show(|ui| {
            for entry in others {
                if ui.button(entry.word()).clicked() {
                    *screen = entry;
                }
            }
        });
    });
}

/// The bar above: what is under way, what can be done about it, and on which adapter.
fn top(ui: &mut Ui, state: &mut State, place: &str, is_narrow: bool) {
    let colors = theme::colors(ui);
    ui.horizontal(|ui| {
        ui.set_min_height(30.0);
        if !is_narrow {
            ui.label(RichText::new("moelab").font(bold(size::GROUP)).color(colors.ink));
            widgets::quiet(ui, place);
        }
        ui.with_layout(Layout::right_to_left(Align::Center), |ui| {
            theme_button(ui);
            if !is_narrow {
                badge(ui, state);
            }
            let is_of_study = state.study.as_ref().is_some_and(|study| study.is_running);
            if is_of_study {
                study_buttons(ui, state)
            } else {
                run_buttons(ui, state)
            }
            ui.with_layout(Layout::left_to_right(Align::Center), |ui| {
                if is_of_study { study_line(ui, state) } else { run_line(ui, state, is_narrow) }
            });
        });
    });
}

fn theme_button(ui: &mut Ui) {
    let is_dark = ui.visuals().dark_mode;
    let (word, other) = if is_dark { ("Light", egui::Theme::Light) } else { ("Dark", egui::Theme::Dark) };
    if widgets::small_button(ui, word, &format!("{word} theme")).clicked() {
        ui.ctx().set_theme(other);
    }
}

/// The adapter; software renderers are named so.
fn badge(ui: &mut Ui, state: &State) {
    let colors = theme::colors(ui);
    let Some(live) = state.live.as_ref().filter(|live| !live.adapter.is_empty()) else { return };
    let name = super::chart::short(live.adapter.split(" (").next().unwrap_or_default(), 28);
    let (words, color, hint) = match is_software(&live.adapter) {
        true => {
            (format!("{name}: software renderer"), colors.attention, "It computes on the processor: its speed says nothing about a GPU.")
        }
        false => (name, colors.quiet, "The adapter that trains."),
    };
    ui.label(RichText::new(words).font(plain(size::SMALL)).color(color)).on_hover_text(format!("{}\n{hint}", live.adapter));
}

/// The state of the run in a few words.
pub fn live_state(live: &Live) -> (Outcome, String) {
    match &live.stage {
        Stage::Asked => (Outcome::Running, "starting".into()),
        Stage::Opening { phase, done, total, .. } => (Outcome::Running, opening(*phase, *done, *total)),
        Stage::Training => (Outcome::Running, "training".into()),
        Stage::Paused => (Outcome::Attention, "paused".into()),
        Stage::Finishing { done, texts } if done < texts => (Outcome::Running, format!("generating text {} of {texts}", done + 1)),
        Stage::Finishing { .. } => (Outcome::Running, "writing the summary".into()),
        Stage::Stopping => (Outcome::Running, "stopping".into()),
        Stage::Inspected => (Outcome::Done, "open for reading".into()),
        Stage::Closed => (Outcome::Done, "closed".into()),
        Stage::Ended(summary) => match summary.exit {
            ExitReason::Completed => (Outcome::Done, "done".into()),
            ExitReason::EarlyStopped => (Outcome::Done, "stopped early".into()),
            ExitReason::StoppedByGate => (Outcome::Done, "stopped by a gate".into()),
            ExitReason::Interrupted => (Outcome::Attention, "stopped".into()),
            ExitReason::DeviceLost => (Outcome::Attention, "device lost".into()),
            ExitReason::Diverged => (Outcome::Failed, "diverged".into()),
            ExitReason::OutOfSpace | ExitReason::SaveFailed => (Outcome::Failed, "not saved".into()),
            ExitReason::Failed => (Outcome::Failed, "failed".into()),
        },
        Stage::Failed(_) => (Outcome::Failed, "failed".into()),
    }
}

/// A phase of opening in words.
pub fn opening(phase: OpeningPhase, done: u32, total: u32) -> String {
    match phase {
        OpeningPhase::Device => "looking for a GPU".into(),
        OpeningPhase::Data => "preparing the text".into(),
        OpeningPhase::Kernels if total > 0 => format!("compiling kernels, {done} of {total}"),
        OpeningPhase::Kernels => "compiling kernels".into(),
        OpeningPhase::Model => "setting up the model".into(),
        OpeningPhase::Baselines => "fitting the baselines".into(),
        OpeningPhase::Folder => "opening the folder".into(),
    }
}

fn run_line(ui: &mut Ui, state: &State, is_narrow: bool) {
    let colors = theme::colors(ui);
    let Some(live) = &state.live else {
        widgets::quiet(ui, if is_narrow { "moelab" } else { "No run is open." });
        return;
    };
    let (outcome, words) = live_state(live);
    if !is_narrow {
        ui.label(RichText::new(super::chart::short(&live.run, 32)).font(bold(size::BODY)).color(colors.ink));
    }
    widgets::state(ui, outcome, &words);
    if live.updates > 0 {
        let left = if live.is_over() { None } else { live.seconds_left() };
        let left = left.map_or(String::new(), |seconds| format!(", {} left", widgets::duration(seconds)));
        let loss = live.train_ce.filter(|_| !is_narrow).map_or(String::new(), |loss| format!("  training CE {loss:.3}"));
        let what = if is_narrow { "" } else { "update " };
        ui.add(egui::Label::new(format!("{what}{}/{}{left}{loss}", live.update, live.updates)).truncate());
    }
}

fn run_buttons(ui: &mut Ui, state: &mut State) {
    let Some(live) = &state.live else { return };
    let (run, stage) = (live.run.clone(), live.stage.clone());
    // From right to left.
    match stage {
        Stage::Training | Stage::Paused => {
            if ui.button("Stop").on_hover_text("Saves a checkpoint; the run can be resumed.").clicked() {
                state.command(Command::Stop);
            }
            if stage == Stage::Paused {
                if ui.button("Step").on_hover_text("Makes one update.").clicked() {
                    state.command(Command::Step);
                }
                if ui.button("Continue").clicked() {
                    state.command(Command::Continue);
                }
            } else if ui.button("Pause").on_hover_text("Space").clicked() {
                state.command(Command::Pause);
            }
        }
        Stage::Finishing { .. } => {
            if ui.button("Stop").on_hover_text("Generates no further text; the run can be resumed.").clicked() {
                state.command(Command::Stop);
            }
        }
        Stage::Asked | Stage::Opening { .. } => {
            if ui.button("Stop").clicked() {
                state.command(Command::Stop);
            }
        }
        Stage::Ended(summary) if summary.exit.is_resumable() => {
            if ui.button("Resume").on_hover_text("From its last checkpoint.").clicked() {
                state.resume(&run);
            }
        }
        Stage::Inspected => {
            if ui.button("Close").on_hover_text("Frees the memory of the model.").clicked() {
                state.close();
            }
        }
        Stage::Stopping | Stage::Closed | Stage::Ended(_) | Stage::Failed(_) => {}
    }
}

fn study_line(ui: &mut Ui, state: &State) {
    let colors = theme::colors(ui);
    let Some(study) = &state.study else { return };
    ui.label(RichText::new(super::chart::short(&study.name, 32)).font(bold(size::BODY)).color(colors.ink));
    let (outcome, words) = match (study.is_stopping, study.is_paused) {
        (true, _) => (Outcome::Running, "stopping"),
        (_, true) => (Outcome::Attention, "paused"),
        _ => (Outcome::Running, "running"),
    };
    widgets::state(ui, outcome, words);
    if let Some(progress) = &study.progress {
        let left = progress.seconds_left.map_or(String::new(), |seconds| format!(", {} left", widgets::duration(seconds)));
        ui.add(egui::Label::new(format!("{} of {} runs{left}", progress.over, progress.runs)).truncate());
    }
}

fn study_buttons(ui: &mut Ui, state: &mut State) {
    let Some(study) = &state.study else { return };
    let (is_paused, is_stopping) = (study.is_paused, study.is_stopping);
    if is_stopping {
        return;
    }
    if ui.button("Stop").on_hover_text("The run under way saves a checkpoint; the study can be continued.").clicked() {
        state.command_study(SuiteCommand::Stop);
    }
    if is_paused {
        if ui.button("Continue").clicked() {
            state.command_study(SuiteCommand::Continue);
        }
    } else if ui.button("Pause").clicked() {
        state.command_study(SuiteCommand::Pause);
    }
}

/// The area of a screen, which scrolls.
pub fn content(ui: &mut Ui, screen: Screen, is_narrow: bool, show: impl FnOnce(&mut Ui)) {
    let margin = if is_narrow { NEAR } else { MARGIN };
    let frame = egui::Frame::new().fill(theme::colors(ui).paper).inner_margin(Margin::same(margin as i8));
    egui::CentralPanel::no_frame().frame(frame).show(ui, |ui| {
        ScrollArea::vertical().id_salt(screen.word()).auto_shrink(false).show(ui, |ui| {
            ui.spacing_mut().item_spacing.y = NEAR;
            show(ui);
            ui.add_space(margin);
        });
    });
}
