//! Texts that a model generates.

use egui::{Slider, TextEdit, Ui};

use super::{
    Screen,
    experts::choose_run,
    live::Stage,
    state::State,
    theme::{self, NEAR, mono, size},
    widgets,
};
use crate::run::{
    protocol::{Command, SampleRequest},
    records::SampleRecord,
};

/// The screen.
pub struct Sample {
    prompt: String,
    tokens: u32,
    temperature: f64,
    top_p: f64,
    number: u32,
}

impl Default for Sample {
    fn default() -> Sample {
        Sample { prompt: String::new(), tokens: 96, temperature: 0.8, top_p: 0.95, number: 0 }
    }
}

impl Sample {
    /// Draws the screen.
    pub fn show(&mut self, ui: &mut Ui, state: &mut State, screen: &mut Screen) {
        widgets::heading(ui, "Sample", "Texts of the model, also while it is trained.");
        let Some(run) = choose_run(ui, state, "sample") else {
            if widgets::empty(ui, "No run is chosen", "Start a run, or choose one from the list.", Some("Choose a run")) {
                *screen = Screen::Runs;
            }
            return;
        };
        let live = state.live.as_ref().filter(|live| live.run == run && !live.is_remote);
        let is_open = live.is_some_and(|live| matches!(live.stage, Stage::Training | Stage::Paused | Stage::Inspected));
        let is_sampling = live.is_some_and(|live| live.is_sampling);
        let is_busy = state.is_busy();
        let is_opening = live.is_some_and(|live| matches!(live.stage, Stage::Asked | Stage::Opening { .. }));
        let asked = live.map(|live| live.samples.clone()).unwrap_or_default();
        widgets::card(ui, |ui| {
            let label = ui.label("Prompt");
            ui.add(TextEdit::multiline(&mut self.prompt).desired_rows(2).desired_width(f32::INFINITY).hint_text("empty starts a document"))
                .labelled_by(label.id);
            let is_narrow = ui.available_width() < 560.0;
            let mut sliders = |ui: &mut Ui| {
                let hint = "Divides the logits; 0 picks the most likely token.";
                slider(ui, "Tokens", "", Slider::new(&mut self.tokens, 8..=512).logarithmic(true));
                slider(ui, "Temperature", hint, Slider::new(&mut self.temperature, 0.0..=2.0).fixed_decimals(2));
                let hint = "Samples from the fewest most likely tokens with this total probability.";
                slider(ui, "Top-p", hint, Slider::new(&mut self.top_p, 0.05..=1.0).fixed_decimals(2));
            };
            if is_narrow {
                sliders(ui)
            } else {
                ui.horizontal(sliders).inner
            }
            ui.horizontal(|ui| {
                ui.add_enabled_ui(is_open && !is_sampling, |ui| {
                    if widgets::primary(ui, "Generate").clicked() {
                        self.number += 1;
                        let request = SampleRequest {
                            prompt: self.prompt.clone(),
                            tokens: Some(self.tokens),
                            temperature: Some(self.temperature),
                            top_p: Some(self.top_p),
                            number: self.number,
                        };
                        if let Some(live) = &mut state.live {
                            live.is_sampling = true;
                        }
                        state.command(Command::Sample(request));
                    }
                });
                if is_sampling {
                    widgets::quiet(ui, "generating …");
                } else if is_opening {
                    widgets::quiet(ui, "opening the model …");
                } else if !is_open && is_busy {
                    widgets::quiet(ui, "Another run is under way: only its model generates texts now.");
                } else if !is_open && ui.button("Open the model").on_hover_text("Its newest checkpoint, for reading.").clicked() {
                    state.inspect(&run);
                }
            });
        });
        let logged = state.look(&run).map(|facts| facts.samples.clone()).unwrap_or_default();
        if asked.is_empty() && logged.is_empty() {
            widgets::quiet(ui, "No text yet.");
        }
        asked.iter().rev().for_each(|record| text(ui, record));
        if !logged.is_empty() {
            widgets::group(ui, "Texts in the log of the run");
            logged.iter().rev().for_each(|record| text(ui, record));
        }
    }
}

fn slider(ui: &mut Ui, name: &str, hint: &str, slider: Slider<'_>) {
    ui.horizontal(|ui| {
        let label = ui.label(name);
        let label = if hint.is_empty() { label } else { label.on_hover_text(hint) };
        ui.add(slider).labelled_by(label.id);
    });
}

fn text(ui: &mut Ui, record: &SampleRecord) {
    let colors = theme::colors(ui);
    widgets::card(ui, |ui| {
        ui.set_width(ui.available_width());
        widgets::quiet(ui, format!("update {}, temperature {}, top-p {}", record.update, record.temperature, record.top_p));
        let mut job = egui::text::LayoutJob::default();
        job.wrap.max_width = ui.available_width();
        let format = |color| egui::TextFormat { font_id: mono(size::BODY), color, ..Default::default() };
        job.append(&record.prompt, 0.0, format(colors.quiet));
        job.append(&record.text, 0.0, format(colors.ink));
        ui.label(job);
        if widgets::small_button(ui, "Copy", &format!("Copy the text of update {}", record.update)).clicked() {
            ui.ctx().copy_text(format!("{}{}", record.prompt, record.text));
        }
    });
    ui.add_space(NEAR);
}
