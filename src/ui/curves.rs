//! Series over updates, of one run or several.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    rc::Rc,
};

use egui::{ComboBox, RichText, Ui};

use super::{
    Screen,
    along::{Along, Place},
    chart::{Chart, Line, View, smoothed},
    frame,
    live::Stage,
    state::State,
    theme::{self, NEAR, bold, size},
    widgets,
};
use crate::{
    lab::chart::{Scale, curves::ArmCurves},
    run::series::{RecordKind, Series},
};

/// Most runs that are shown one by one without smoothing traces of their own.
const FEW: usize = 12;

/// The screen.
pub struct Curves {
    series: Vec<String>,
    along: Along,
    is_x_log: bool,
    is_y_log: bool,
    smoothing: f32,
    are_seeds_joined: bool,
    view: View,
    /// By series: a hash of what its lines follow from, and the lines.
    drawn: HashMap<String, (u64, Rc<[Line]>)>,
}

impl Default for Curves {
    fn default() -> Curves {
        Curves {
            series: ["train_ce", "eval.val_ce", "grad_norm"].map(String::from).to_vec(),
            along: Along::Updates,
            is_x_log: false,
            is_y_log: false,
            smoothing: 0.6,
            are_seeds_joined: true,
            view: View::default(),
            drawn: HashMap::new(),
        }
    }
}

/// The group of a run, its colour, its points and its gaps.
type Measured = (String, usize, Vec<[f64; 2]>, Vec<f64>);

/// Reference lines with their values, and positions with a word.
type References = (Vec<(String, f64)>, Vec<(f64, String)>);

impl Curves {
    /// Draws the screen.
    pub fn show(&mut self, ui: &mut Ui, state: &mut State, screen: &mut Screen) {
        if state.shown.is_empty() {
            widgets::heading(ui, "Curves", "");
            if widgets::empty(ui, "No run is chosen", "Choose runs from the list, or start one.", Some("Choose runs")) {
                *screen = Screen::Runs;
            }
            return;
        }
        self.head(ui, state);
        self.controls(ui);
        if !opening(ui, state, screen) {
            self.charts(ui, state);
        }
    }

    /// What is shown: the run and its newest numbers, or the runs.
    fn head(&self, ui: &mut Ui, state: &mut State) {
        let colors = theme::colors(ui);
        if let [run] = &state.shown[..] {
            let run = run.clone();
            let entry = state.entry(&run).cloned().unwrap_or_default();
            let live = state.live.as_ref().filter(|live| live.run == run).cloned();
            let val = live.as_ref().and_then(|live| live.val_ce).or(entry.val_ce);
            let speed = live.as_ref().and_then(|live| live.tokens_per_second).or(entry.tokens_per_second);
            let title = match val {
                Some(loss) => format!("{run}: validation cross-entropy {loss:.4}"),
                None => run.clone(),
            };
            ui.label(RichText::new(title).font(bold(size::TITLE)).color(colors.ink));
            let of_live = live.as_ref().and_then(|live| live.baselines);
            let known = state.look(&run).and_then(|facts| facts.summary.as_ref()?.baselines).or(of_live);
            let known = known.and_then(|baselines| baselines.entropy);
            let mut parts = Vec::new();
            if let (Some(loss), Some(entropy)) = (val, known) {
                parts.push(format!("{:.3} above the entropy of the data ({entropy:.3})", loss - entropy));
            }
            parts.extend(speed.map(|speed| format!("{} tokens per second", widgets::count(speed))));
            if let Some(problem) = &entry.problem {
                ui.label(RichText::new(problem).color(colors.bad));
            }
            widgets::quiet(ui, parts.join("  ·  "));
            return;
        }
        widgets::heading(ui, &format!("Curves of {} runs", state.shown.len()), "");
    }

    fn controls(&mut self, ui: &mut Ui) {
        let width = ui.available_width();
        let is_narrow = width < theme::NARROW;
        ui.horizontal_wrapped(|ui| {
            let label = ui.label("Along");
            ComboBox::from_id_salt("along")
                .selected_text(self.along.words())
                .width(90.0)
                .show_ui(ui, |ui| {
                    for along in Along::ALL {
                        if ui.selectable_value(&mut self.along, along, along.words()).clicked() {
                            self.view = View::default();
                        }
                    }
                })
                .response
                .labelled_by(label.id);
            ui.checkbox(&mut self.is_x_log, "log x");
            ui.checkbox(&mut self.is_y_log, "log y");
            // A group that would be cut is moved to the next row as a whole.
            let extent = egui::vec2(if is_narrow { width } else { 260.0 }, 30.0);
            ui.allocate_ui_with_layout(extent, egui::Layout::left_to_right(egui::Align::Center), |ui| {
                let label = ui.label("Smoothing");
                ui.add(egui::Slider::new(&mut self.smoothing, 0.0..=0.98).fixed_decimals(2)).labelled_by(label.id);
            });
            ui.checkbox(&mut self.are_seeds_joined, "seeds as a band");
            let extent = egui::vec2(if is_narrow { width } else { 200.0 }, 30.0);
            ui.allocate_ui_with_layout(extent, egui::Layout::left_to_right(egui::Align::Center), |ui| self.choose_series(ui));
            if self.view.range.is_some() && ui.button("Show all").clicked() {
                self.view.range = None;
            }
        });
    }

    fn choose_series(&mut self, ui: &mut Ui) {
        let label = ui.label("Series");
        let text = format!("{} chosen", self.series.len());
        let combo =
            ComboBox::from_id_salt("series").selected_text(text).width(120.0).close_behavior(egui::PopupCloseBehavior::CloseOnClickOutside);
        let combo = combo.show_ui(ui, |ui| {
            for series in Series::all().filter(|series| !series.is_array()) {
                let key = series.key();
                let mut is_on = self.series.contains(&key);
                if ui.checkbox(&mut is_on, &key).on_hover_text(series.doc()).changed() {
                    self.series.retain(|known| *known != key);
                    if is_on {
                        self.series.push(key);
                    }
                }
            }
        });
        combo.response.labelled_by(label.id);
    }

    fn charts(&mut self, ui: &mut Ui, state: &mut State) {
        let runs = state.shown.clone();
        // What a run counts besides updates follows from its config.
        let needs_facts = self.along != Along::Updates;
        let places: Vec<Place> = runs
            .iter()
            .enumerate()
            .map(|(at, run)| {
                let facts = if needs_facts || at == 0 { state.look(run).cloned() } else { None };
                Place::new(self.along, state.config(run).as_deref(), facts.as_ref())
            })
            .collect();
        // Training and validation loss stand in one chart if a single run is shown.
        let is_joined = runs.len() == 1 && ["train_ce", "eval.val_ce"].iter().all(|key| self.series.iter().any(|known| known == key));
        let (levels, marks) = references(state, &runs[0], &places[0]);
        let width = ui.available_width();
        // Two charts fill a window.
        let tall = (0.4 * ui.ctx().content_rect().height()).clamp(240.0, 480.0);
        let height = if width < theme::NARROW { 240.0 } else { tall };
        let mut view = self.view;
        for key in self.series.clone() {
            if is_joined && key == "eval.val_ce" {
                continue;
            }
            let Some(series) = Series::find(&key) else { continue };
            let mut lines = self.lines(ui, state, &runs, &places, series);
            let is_loss = ["train_ce", "eval.val_ce"].contains(&key.as_str());
            let mut title = title(series);
            if is_joined && key == "train_ce" {
                title = "Cross-entropy".into();
                let mut joined: Vec<Line> = lines.iter().map(|line| Line { name: "training".into(), ..line.clone() }).collect();
                if let Some(series) = Series::find("eval.val_ce") {
                    let colors = theme::colors(ui);
                    let validation = self.lines(ui, state, &runs, &places, series);
                    let line = |line: &Line| Line { name: "validation".into(), color: colors.run(1), is_dotted: true, ..line.clone() };
                    joined.extend(validation.iter().map(line));
                }
                lines = joined.into();
            }
            let chart = Chart {
                title,
                unit: series.unit.into(),
                x_title: self.along.words().into(),
                x_scale: if self.is_x_log { Scale::Log } else { Scale::Linear },
                y_scale: if self.is_y_log { Scale::Log } else { Scale::Linear },
                lines,
                levels: if is_loss { levels.clone() } else { Vec::new() },
                marks: marks.clone(),
                is_reading: runs.iter().any(|run| state.is_reading(run, &key)),
                height: if is_loss { height } else { 220.0 },
            };
            ui.add_space(NEAR);
            ui.push_id(&key, |ui| chart.show(ui, &mut view));
        }
        self.view = view;
    }

    /// The lines of a series, computed once for what they follow from.
    fn lines(&mut self, ui: &Ui, state: &mut State, runs: &[String], places: &[Place], series: &Series) -> Rc<[Line]> {
        let key = series.key();
        let mut hasher = DefaultHasher::new();
        (self.smoothing.to_bits(), self.are_seeds_joined, ui.visuals().dark_mode).hash(&mut hasher);
        for (run, place) in runs.iter().zip(places) {
            // Asks for it, too.
            state.curve(run, &key);
            (run, state.color_index(run), state.reading(run, &key)).hash(&mut hasher);
            place.hash(&mut hasher);
        }
        let hash = hasher.finish();
        if let Some((_, lines)) = self.drawn.get(&key).filter(|(known, _)| *known == hash) {
            return lines.clone();
        }
        let lines: Rc<[Line]> = self.compute(ui, state, runs, places, series).into();
        self.drawn.insert(key, (hash, lines.clone()));
        lines
    }

    /// The lines of a series: one for each run, or for each arm with a band over its seeds.
    fn compute(&self, ui: &Ui, state: &mut State, runs: &[String], places: &[Place], series: &Series) -> Vec<Line> {
        let colors = theme::colors(ui);
        let mut found: Vec<Measured> = Vec::new();
        for (run, place) in runs.iter().zip(places) {
            let index = state.color_index(run);
            let group = state.entry(run).and_then(|entry| entry.arm.clone()).unwrap_or_else(|| run.clone());
            let Some(curve) = state.curve(run, &series.key()) else { continue };
            let points = curve.updates.iter().zip(&curve.mean).map(|(update, value)| [place.of(*update), value.0.unwrap_or(f64::NAN)]);
            found.push((group, index, points.collect(), curve.not_finite.iter().map(|update| place.of(*update)).collect()));
        }
        let is_eval = series.record == RecordKind::Eval;
        let weight = if is_eval { 0.0 } else { f64::from(self.smoothing) };
        let mut groups: Vec<String> = Vec::new();
        found.iter().for_each(|(group, ..)| {
            if !groups.contains(group) {
                groups.push(group.clone());
            }
        });
        if !self.are_seeds_joined || found.len() == groups.len() {
            let is_few = found.len() <= FEW;
            let name = |at: usize, group: &String| if groups.len() == found.len() { group.clone() } else { runs[at].clone() };
            return found
                .iter()
                .enumerate()
                .map(|(at, (group, index, points, gaps))| Line {
                    name: name(at, group),
                    color: colors.run(*index),
                    raw: if weight > 0.0 && is_few { points.clone() } else { Vec::new() },
                    points: if weight > 0.0 { smoothed(points, weight) } else { points.clone() },
                    gaps: gaps.clone(),
                    is_dotted: is_eval,
                    ..Line::default()
                })
                .collect();
        }
        let of_group = |group: &String| {
            let of: Vec<_> = found.iter().filter(|(of, ..)| of == group).collect();
            let seeds: Vec<Vec<[f64; 2]>> = of.iter().map(|(_, _, points, _)| smoothed(points, weight)).collect();
            let band = ArmCurves { name: group.clone(), index: 0, seeds }.band();
            Line {
                name: if of.len() > 1 { format!("{group} ({})", of.len()) } else { group.clone() },
                color: colors.run(of.first().map_or(0, |(_, index, ..)| *index)),
                points: band.iter().map(|[x, mean, ..]| [*x, *mean]).collect(),
                band: band.iter().map(|[x, _, low, high]| [*x, *low, *high]).collect(),
                is_dotted: is_eval,
                ..Line::default()
            }
        };
        groups.iter().map(of_group).collect()
    }
}

/// The name of a series in a heading.
fn title(series: &Series) -> String {
    match series.key().as_str() {
        "train_ce" => "Training cross-entropy".into(),
        "eval.val_ce" => "Validation cross-entropy".into(),
        "grad_norm" => "Gradient norm".into(),
        key => key.replace(['_', '.'], " "),
    }
}

/// Reference lines and marks of a run: baselines, epochs, corners of the schedule.
fn references(state: &mut State, run: &str, place: &Place) -> References {
    let of_live = state.live.as_ref().filter(|live| live.run == run).and_then(|live| live.baselines);
    let config = state.config(run);
    let (Some(facts), Some(config)) = (state.look(run), config) else { return (Vec::new(), Vec::new()) };
    let mut levels = Vec::new();
    levels.push(("ln V".to_string(), f64::from(config.model.vocabulary).ln()));
    let mut marks = Vec::new();
    if let Some(baselines) = facts.summary.as_ref().and_then(|summary| summary.baselines).or(of_live) {
        levels.extend([("unigram".to_string(), baselines.unigram), ("bigram".to_string(), baselines.bigram)]);
        levels.extend(baselines.entropy.map(|entropy| ("entropy".to_string(), entropy)));
    }
    if let Some(epoch) = facts.summary.as_ref().and_then(|summary| summary.epoch) {
        let updates = epoch.tokens as f64 / config.tokens_per_update().max(1) as f64;
        let count = (f64::from(config.train.updates) / updates.max(1.0)) as u32;
        marks.extend((1..=count.min(8)).map(|number| (place.of((updates * f64::from(number)) as u32), format!("epoch {number}"))));
    }
    let updates = config.train.updates;
    let corners = config.learning_rates().corners().into_iter().filter(|(update, _)| *update < updates);
    marks.extend(corners.map(|(update, word)| (place.of(update), word.to_string())));
    (levels, marks)
}

/// The opening of a run, or its failure, in place of charts. Returns whether it was shown.
fn opening(ui: &mut Ui, state: &mut State, screen: &mut Screen) -> bool {
    let colors = theme::colors(ui);
    let Some(live) = state.live.as_ref().filter(|live| state.shown == [live.run.clone()]) else { return false };
    match &live.stage {
        Stage::Asked | Stage::Opening { .. } => {
            ui.add_space(NEAR);
            let (words, share, detail) = match &live.stage {
                Stage::Opening { phase, done, total, detail } => {
                    let share = if *total > 0 { f64::from(*done) / f64::from(*total) } else { 0.0 };
                    (frame::opening(*phase, *done, *total), share, detail.clone().unwrap_or_default())
                }
                _ => ("starting".into(), 0.0, String::new()),
            };
            widgets::card(ui, |ui| {
                ui.label(RichText::new(words).font(bold(size::GROUP)));
                widgets::bar(ui, share, 320.0, super::state::Outcome::Running, "opening");
                widgets::quiet(ui, detail);
            });
            true
        }
        Stage::Failed(problem) => {
            let text = problem.what.clone();
            widgets::card(ui, |ui| {
                ui.label(RichText::new("The run could not be made").font(bold(size::GROUP)).color(colors.bad));
                ui.label(RichText::new(text).monospace());
                if ui.button("Change the config").clicked() {
                    *screen = Screen::Setup;
                }
            });
            true
        }
        _ => false,
    }
}
