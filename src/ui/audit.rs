//! What the audit checks in a study, and what it found.

use egui::{CollapsingHeader, RichText, Ui};

use super::{
    Screen, compare,
    experts::choose_run,
    state::{Outcome, State},
    study::Study,
    theme::{self, NEAR, bold, size},
    widgets,
};
use crate::lab::audit::{CHECKS, Finding, Severity};

/// The findings in a study, refusals first.
pub fn findings(study: &Study) -> Vec<&Finding> {
    let of_judged = study.judged.as_ref().map(|judged| judged.findings.as_slice()).unwrap_or_default();
    let mut all: Vec<&Finding> = study.findings.iter().chain(of_judged).collect();
    all.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let mut seen = Vec::new();
    all.retain(|finding| {
        let text = finding.to_string();
        !seen.contains(&text) && {
            seen.push(text);
            true
        }
    });
    all
}

/// The screen.
#[derive(Default)]
pub struct Audit {
    /// Whether it is about a run by itself instead of a study; by default if no study is open.
    is_of_run: Option<bool>,
}

impl Audit {
    /// Draws the screen.
    pub fn show(&mut self, ui: &mut Ui, state: &mut State, screen: &mut Screen) {
        widgets::heading(ui, "Audit", "Mistakes that make a conclusion worthless are looked for before the first run and after the last.");
        let mut is_of_run = self.is_of_run.unwrap_or(state.study.is_none() && state.studies.is_empty());
        ui.horizontal(|ui| {
            for (value, name) in [(false, "A study"), (true, "A run by itself")] {
                if ui.selectable_value(&mut is_of_run, value, name).clicked() {
                    self.is_of_run = Some(value);
                }
            }
        });
        ui.add_space(NEAR);
        if is_of_run { of_run(ui, state, screen) } else { of_study(ui, state, screen) }
    }
}

fn of_run(ui: &mut Ui, state: &mut State, screen: &mut Screen) {
    let Some(run) = choose_run(ui, state, "audit") else {
        if widgets::empty(ui, "No run is chosen", "Start a run, or choose one from the list.", Some("Choose a run")) {
            *screen = Screen::Runs;
        }
        return;
    };
    match state.audit(&run).cloned() {
        None => {
            widgets::quiet(ui, "Reading the run …");
        }
        Some(Err(problem)) => compare::sentence(ui, Outcome::Failed, &format!("The run cannot be audited: {problem}")),
        Some(Ok(findings)) => {
            let is_over = state.entry(&run).is_some_and(|entry| entry.exit.is_some());
            show(ui, &findings.iter().collect::<Vec<_>>(), is_over);
            widgets::quiet(ui, "From its config and what it has logged. `moelab audit` also probes its data and its model on the GPU.");
        }
    }
}

fn of_study(ui: &mut Ui, state: &mut State, screen: &mut Screen) {
    compare::choose_study(ui, state);
    let Some(study) = state.study.clone() else {
        if widgets::empty(ui, "No study is open", "The checks and what they found are shown for a study.", Some("Compare")) {
            *screen = Screen::Compare;
        }
        return;
    };
    let found = findings(&study);
    show(ui, &found, study.judged.is_some());
    let quiet: Vec<_> = CHECKS.iter().filter(|check| found.iter().all(|finding| finding.check != check.id)).collect();
    CollapsingHeader::new(format!("{} checks without a finding", quiet.len())).default_open(found.is_empty()).show(ui, |ui| {
        for check in quiet {
            compare::sentence(ui, Outcome::Done, &format!("{}: {}", check.id, check.claim));
        }
    });
}

/// The result in a sentence, and the findings. `is_complete` if there are results.
fn show(ui: &mut Ui, found: &[&Finding], is_complete: bool) {
    let refusals = found.iter().filter(|finding| finding.is_unresolved()).count();
    let (outcome, text) =
        match (refusals, found.iter().filter(|finding| finding.severity > Severity::Note && finding.overridden.is_none()).count()) {
            (0, 0) if !is_complete => (Outcome::Running, "Nothing was found before the runs; they are checked when they end.".into()),
            (0, 0) => (Outcome::Done, "Nothing was found that prevents a conclusion.".into()),
            (0, 1) => (Outcome::Attention, "1 finding that a reader should know.".into()),
            (0, n) => (Outcome::Attention, format!("{n} findings that a reader should know.")),
            (1, _) => (Outcome::Failed, "1 finding refuses a conclusion.".into()),
            (n, _) => (Outcome::Failed, format!("{n} findings refuse a conclusion.")),
        };
    ui.add_space(NEAR);
    compare::sentence(ui, outcome, &text);
    let (aside, open): (Vec<&Finding>, Vec<&Finding>) = found.iter().partition(|finding| finding.overridden.is_some());
    open.into_iter().for_each(|finding| card(ui, finding));
    if !aside.is_empty() {
        CollapsingHeader::new(format!("{} findings that the study sets aside, with its reasons", aside.len())).show(ui, |ui| {
            aside.into_iter().for_each(|finding| card(ui, finding));
        });
    }
}

fn card(ui: &mut Ui, finding: &Finding) {
    let colors = theme::colors(ui);
    ui.add_space(NEAR);
    widgets::card(ui, |ui| {
        ui.set_width(ui.available_width());
        let (outcome, word) = severity(finding);
        widgets::state(ui, outcome, word);
        ui.add(egui::Label::new(RichText::new(&finding.message).font(bold(size::BODY)).color(colors.ink)).wrap());
        let claim = CHECKS.iter().find(|check| check.id == finding.check).map_or("", |check| check.claim);
        widgets::quiet(ui, format!("About {}. What should hold ({}): {claim}.", finding.subject, finding.check));
        if let Some(reason) = &finding.overridden {
            widgets::quiet(ui, format!("The study sets it aside: {reason}."));
        }
    });
}

fn severity(finding: &Finding) -> (Outcome, &'static str) {
    match finding.severity {
        _ if finding.overridden.is_some() => (Outcome::Waiting, "set aside"),
        Severity::Refuse => (Outcome::Failed, "refuses a conclusion"),
        Severity::Note => (Outcome::Done, "note"),
        _ => (Outcome::Attention, "warning"),
    }
}
