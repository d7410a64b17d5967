//! The report of a study: the files that `moelab report` writes, to read and to save.

use egui::{RichText, ScrollArea, Ui};

use super::{
    Screen, compare,
    state::State,
    theme::{self, NEAR, mono, size},
    widgets,
};
use crate::lab::suite::SuiteCommand;

/// The screen.
#[derive(Default)]
pub struct Report {
    /// The file that is shown, by its name.
    chosen: Option<String>,
}

impl Report {
    /// Draws the screen.
    pub fn show(&mut self, ui: &mut Ui, state: &mut State, screen: &mut Screen) {
        widgets::heading(ui, "Report", "A study as files for people and machines: what follows, its figures, every number.");
        compare::choose_study(ui, state);
        let Some(study) = state.study.clone() else {
            if widgets::empty(ui, "No study is open", "The report of a study is shown here, to read and to save.", Some("Compare")) {
                *screen = Screen::Compare;
            }
            return;
        };
        ui.add_space(NEAR);
        if study.report.is_empty() {
            let text = "It is made from what the runs have logged; figures are drawn, nothing is trained.";
            if study.judged.is_none() {
                widgets::quiet(ui, "A report is made once the study is judged.");
            } else if widgets::empty(ui, "No report was made yet", text, Some("Make the report")) {
                state.command_study(SuiteCommand::Report);
            }
            return;
        }
        ui.horizontal_wrapped(|ui| {
            if widgets::primary(ui, &format!("Save the report, {} files", study.report.len())).clicked() {
                state.save(&study.name, study.report.clone());
            }
            if ui.button("Make it again").clicked() {
                state.command_study(SuiteCommand::Report);
            }
        });
        ui.add_space(NEAR);
        let is_text = |name: &str| name.ends_with(".md");
        let chosen = self.chosen.clone().filter(|chosen| study.report.iter().any(|(name, _)| name == chosen));
        let chosen = chosen.or_else(|| study.report.iter().map(|(name, _)| name).find(|name| is_text(name)).cloned());
        ui.horizontal_wrapped(|ui| {
            for (name, text) in &study.report {
                let label = format!("{name} ({:.1} KB)", text.len() as f64 / 1e3);
                if ui.selectable_label(chosen.as_ref() == Some(name), label).clicked() {
                    self.chosen = Some(name.clone());
                }
            }
        });
        let Some((name, text)) = study.report.iter().find(|(name, _)| Some(name) == chosen.as_ref()) else { return };
        ui.horizontal(|ui| {
            if ui.button(format!("Copy {name}")).clicked() {
                ui.ctx().copy_text(text.clone());
            }
        });
        let colors = theme::colors(ui);
        widgets::card(ui, |ui| {
            ui.set_width(ui.available_width());
            ScrollArea::horizontal().id_salt("report").show(ui, |ui| {
                ui.add(egui::Label::new(RichText::new(text).font(mono(size::SMALL)).color(colors.ink)).extend());
            });
        });
    }
}
