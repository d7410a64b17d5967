//! Three ways to begin, each one click from something that runs.

use egui::{RichText, Ui};

use super::{
    Screen,
    chart::short,
    presets::{self, Offer, PRESETS},
    runs,
    setup::Setup,
    state::{State, Weight},
    theme::{self, APART, NEAR, bold, size},
    widgets,
};

/// The screen.
#[derive(Default)]
pub struct Start {
    path: String,
    problem: Option<String>,
}

/// The text that comes with the page, beside it.
pub const BOOK: &str = "shakespeare.txt";

/// Recent runs that are listed.
const RECENT: usize = 6;

impl Start {
    /// Fills in the path of a text.
    pub fn take_path(&mut self, path: &str) {
        self.path = path.into();
    }

    /// Draws the screen.
    pub fn show(&mut self, ui: &mut Ui, state: &mut State, screen: &mut Screen, setup: &mut Setup, has_files: bool) {
        widgets::heading(
            ui,
            "Train a small mixture of experts",
            "On this machine's GPU, or on its processor: choose one, and it starts. Nothing leaves this machine.",
        );
        if ui.available_width() < theme::NARROW {
            quickstart(ui, state, screen);
            ablation(ui, state, screen);
            self.own_text(ui, state, screen, setup, has_files);
        } else {
            ui.spacing_mut().item_spacing.x = APART;
            ui.columns(3, |columns| {
                quickstart(&mut columns[0], state, screen);
                ablation(&mut columns[1], state, screen);
                self.own_text(&mut columns[2], state, screen, setup, has_files);
            });
            ui.spacing_mut().item_spacing.x = NEAR;
        }
        self.recent(ui, state, screen);
        probe(state);
    }

    fn own_text(&mut self, ui: &mut Ui, state: &mut State, screen: &mut Screen, setup: &mut Setup, has_files: bool) {
        card(ui, "Train on my text", |ui| {
            if !has_files {
                ui.label("A text of yours, or eight plays of Shakespeare (1 MB), one token per byte. It stays in this browser. Documents are separated by blank lines.");
                ui.add_space(NEAR);
                let is_busy = state.is_busy();
                ui.add_enabled_ui(!is_busy, |ui| {
                    ui.horizontal_wrapped(|ui| {
                        if ui.button("Choose a text").clicked() {
                            state.is_choosing = true;
                        }
                        if ui.button("Shakespeare").clicked() {
                            state.fetches.push(BOOK.into());
                        }
                    });
                });
                busy(ui, is_busy);
                return;
            }
            ui.label(
                "A text file, JSON lines, or a folder of them. It is split by document, and a tokenizer of 4,096 tokens is trained on it.",
            );
            let label = ui.label("Path");
            let field = egui::TextEdit::singleline(&mut self.path).hint_text("book.txt").desired_width(f32::INFINITY);
            ui.add(field).labelled_by(label.id);
            ui.add_space(NEAR);
            if ui.add_enabled(!self.path.trim().is_empty(), egui::Button::new("Train on it")).clicked() {
                let path = toml::Value::String(self.path.trim().into());
                let sets = [
                    "data.kind=text".to_string(),
                    format!("data.paths=[{path}]"),
                    "data.tokenizer.kind=bpe".to_string(),
                    "model.vocabulary=4096".to_string(),
                ];
                match presets::load(PRESETS[0].path, None, &sets) {
                    Ok(config) => {
                        self.problem = None;
                        state.start("text", config.to_effective_toml());
                        *screen = Screen::Curves;
                    }
                    Err(problems) => {
                        self.problem = Some(problems.to_string());
                        setup.take(PRESETS[0].path, &sets);
                    }
                }
            }
            if let Some(problem) = &self.problem {
                ui.label(RichText::new(problem).color(theme::colors(ui).bad).monospace());
            }
        });
    }

    fn recent(&mut self, ui: &mut Ui, state: &mut State, screen: &mut Screen) {
        if state.runs.is_empty() {
            return;
        }
        widgets::group(ui, "Runs here");
        let names: Vec<String> = state.studies.iter().rev().take(RECENT).map(|study| study.name.clone()).collect();
        for name in names {
            let Some(study) = state.studies.iter().find(|study| study.name == name) else { continue };
            let text = format!("{}  {} of {} runs  {}", study.name, study.over, study.runs, study.question);
            if ui.link(text).clicked() {
                state.open_study(&name);
                *screen = Screen::Compare;
            }
        }
        let singles: Vec<String> =
            state.runs.iter().rev().filter(|run| run.study.is_none()).take(RECENT).map(|run| run.name.clone()).collect();
        for name in singles {
            ui.horizontal(|ui| {
                let Some(entry) = state.entry(&name) else { return };
                let (words, outcome) = super::state::status(entry, state.is_under_way(&name));
                let text = format!("{name}  {}", runs::difference(entry, None));
                let loss = widgets::loss(entry.val_ce);
                let clicked = ui.link(short(&text, 80)).clicked();
                widgets::state(ui, outcome, words);
                widgets::quiet(ui, format!("validation CE {loss}"));
                if clicked {
                    state.show_only(&name);
                    state.focus = Some(name.clone());
                    *screen = Screen::Curves;
                }
            });
        }
    }
}

fn card(ui: &mut Ui, title: &str, content: impl FnOnce(&mut Ui)) {
    widgets::card(ui, |ui| {
        ui.set_width(ui.available_width());
        // Beside each other they are equally high; on a phone they are as high as they need to be.
        if ui.ctx().content_rect().width() >= theme::NARROW {
            ui.set_min_height(190.0);
        }
        ui.vertical(|ui| {
            ui.label(RichText::new(title).font(bold(size::GROUP)).color(theme::colors(ui).ink));
            content(ui);
        });
    });
}

/// Asks how long what the cards start takes, one config after the other.
fn probe(state: &mut State) {
    // A run of another process would be slowed down.
    let is_disturbing = state.is_busy() || state.runs.iter().any(|run| run.process.is_some());
    if !state.is_listed || is_disturbing || state.probing.is_some() || state.probe_problem.is_some() {
        return;
    }
    let offers = [presets::quickstart(), presets::study()];
    if let Some(offer) = offers.into_iter().flatten().find(|offer| state.probed(&offer.text).is_none()) {
        state.probe(offer.text.clone());
    }
}

/// Seconds that the runs of an offer take on this machine, without their evaluations.
fn seconds(state: &State, offer: &Offer) -> Option<f64> {
    let probed = state.probed(&offer.text)?;
    Some(probed.seconds_to_open + probed.seconds_per_update * f64::from(offer.config.train.updates) * offer.runs as f64)
}

/// How long something takes on this machine.
fn estimate(ui: &mut Ui, state: &State, seconds: Option<f64>) {
    match (seconds, state.probes.last(), &state.probing) {
        (Some(seconds), Some(probed), _) => {
            // What stands in brackets after a name is for the screen Machine.
            let name = probed.adapter.name.split(" (").next().filter(|name| !name.is_empty()).unwrap_or("this machine");
            widgets::quiet(ui, format!("About {} on {}.", widgets::duration(seconds), short(name, 40)));
        }
        (_, _, Some(_)) => {
            widgets::quiet(ui, "Measuring how long it takes on this machine …");
        }
        _ => {}
    }
}

fn quickstart(ui: &mut Ui, state: &mut State, screen: &mut Screen) {
    card(ui, "Train the quickstart", |ui| {
        ui.label("Four experts learn an embedded language. Its entropy is known, so you see how close the model comes.");
        estimate(ui, state, presets::quickstart().and_then(|offer| seconds(state, offer)));
        ui.add_space(NEAR);
        let is_busy = state.is_busy();
        ui.add_enabled_ui(!is_busy, |ui| {
            if widgets::primary(ui, "Train").clicked() {
                train(state, screen);
            }
        });
        busy(ui, is_busy);
    });
}

fn busy(ui: &mut Ui, is_busy: bool) {
    if is_busy {
        widgets::quiet(ui, "Something is under way: stop it first.");
    }
}

fn ablation(ui: &mut Ui, state: &mut State, screen: &mut Screen) {
    card(ui, "Run an ablation", |ui| {
        ui.label("Does a token need two experts, and is the load-balancing loss needed? Three arms, at least four seeds each, and a verdict with error bars: better, worse, equivalent, or not clear.");
        estimate(ui, state, presets::study().and_then(|offer| seconds(state, offer)));
        ui.add_space(NEAR);
        let is_busy = state.is_busy();
        ui.add_enabled_ui(!is_busy, |ui| {
            if ui.button("Run the ablation").clicked() {
                run_study(state, screen);
            }
        });
        busy(ui, is_busy);
    });
}

/// Trains the model of the quickstart on a text that is kept.
pub fn train_on(state: &mut State, screen: &mut Screen, text: &str) {
    let path = toml::Value::String(text.into());
    let sets = ["data.kind=text".to_string(), format!("data.paths=[{path}]")];
    match presets::load(PRESETS[0].path, None, &sets) {
        Ok(config) => {
            let stem: String = text.split('.').next().unwrap_or_default().to_string();
            state.start(&stem, config.to_effective_toml());
            *screen = Screen::Curves;
        }
        Err(problems) => state.note(Weight::Problem, text, problems.to_string()),
    }
}

/// Trains the quickstart.
pub fn train(state: &mut State, screen: &mut Screen) {
    if let Some(offer) = presets::quickstart() {
        state.start("quickstart", offer.text.clone());
        *screen = Screen::Curves;
    }
}

/// Runs the example study.
pub fn run_study(state: &mut State, screen: &mut Screen) {
    state.start_study("example", "suite.toml", presets::study_files());
    *screen = Screen::Compare;
}
