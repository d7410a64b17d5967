//! What a study shows: its answer in words, its intervals, its runs, and what the audit found.

use egui::{Align2, ComboBox, Rect, RichText, Role, Sense, Stroke, Ui, WidgetInfo, pos2, vec2};

use super::{
    Screen, audit,
    chart::short,
    presets,
    state::{Outcome, State},
    study::Study,
    theme::{self, APART, NEAR, bold, plain, size},
    widgets,
};
use crate::lab::{
    audit::Severity,
    chart::{
        Scale,
        axis::{Axis, tick_names},
        signed,
    },
    gates::Verdict as GateVerdict,
    suite::{Judged, SuiteCommand},
    verdict::{ArmJudgement, Judgement, Verdict},
};

/// The screen.
#[derive(Default)]
pub struct Compare {
    is_log_open: bool,
}

impl Compare {
    /// Draws the screen.
    pub fn show(&mut self, ui: &mut Ui, state: &mut State, screen: &mut Screen) {
        choose_study(ui, state);
        let Some(study) = state.study.clone() else {
            widgets::heading(ui, "Compare", "");
            let text = "A study compares arms over several seeds and says what follows: better, worse, equivalent, or not clear.";
            let is_busy = state.is_busy();
            if widgets::empty(ui, "No study is open", text, (!is_busy).then_some("Run the example study")) {
                state.start_study("example", "suite.toml", presets::study_files());
            }
            if is_busy {
                widgets::quiet(ui, "Something is under way: stop it first.");
            }
            return;
        };
        let colors = theme::colors(ui);
        let question = if study.question.is_empty() { study.name.clone() } else { study.question.clone() };
        ui.label(RichText::new(question).font(bold(size::TITLE)).color(colors.ink));
        buttons(ui, state, screen, &study);
        if let Some(problem) = &study.problem {
            widgets::card(ui, |ui| {
                ui.label(RichText::new("The study cannot go on").font(bold(size::GROUP)).color(colors.bad));
                ui.label(&problem.what);
            });
        }
        progress(ui, &study);
        match &study.judged {
            Some(judged) => verdict(ui, state, judged),
            None if study.is_running => {
                widgets::quiet(ui, "The verdict follows once the runs that it needs are made.");
            }
            None => {}
        }
        findings(ui, screen, &study);
        gates(ui, &study);
        table(ui, state, &study);
        self.log(ui, &study);
    }

    fn log(&mut self, ui: &mut Ui, study: &Study) {
        if study.lines.is_empty() {
            return;
        }
        egui::CollapsingHeader::new(format!("What happened ({} lines)", study.lines.len())).default_open(self.is_log_open).show(ui, |ui| {
            for line in &study.lines {
                ui.label(RichText::new(line).font(theme::mono(size::SMALL)));
            }
        });
    }
}

/// The choice of the study that is shown.
pub fn choose_study(ui: &mut Ui, state: &mut State) {
    if state.studies.is_empty() {
        return;
    }
    let is_running = state.study.as_ref().is_some_and(|study| study.is_running);
    let mut chosen = None;
    ui.horizontal(|ui| {
        let label = ui.label("Study");
        let text = state.study.as_ref().map_or("choose", |study| study.name.as_str());
        ui.add_enabled_ui(!is_running, |ui| {
            let combo = ComboBox::from_id_salt("study").selected_text(text).width(220.0).show_ui(ui, |ui| {
                for study in &state.studies {
                    if ui.selectable_label(false, &study.name).on_hover_text(&study.question).clicked() {
                        chosen = Some(study.name.clone());
                    }
                }
            });
            combo.response.labelled_by(label.id);
        });
    });
    if let Some(name) = chosen {
        state.open_study(&name);
    }
}

fn buttons(ui: &mut Ui, state: &mut State, screen: &mut Screen, study: &Study) {
    ui.horizontal_wrapped(|ui| {
        let failed = study.progress.as_ref().map_or(0, |progress| progress.failed);
        let is_complete = study.progress.as_ref().is_some_and(|progress| progress.over == progress.runs);
        let is_new = study.progress.as_ref().is_some_and(|progress| progress.over == 0);
        if !study.is_running
            && study.problem.is_none()
            && !is_complete
            && !study.rows.is_empty()
            && widgets::primary(ui, if is_new { "Start the study" } else { "Continue the study" }).clicked()
        {
            state.command_study(SuiteCommand::Run { retry_failed: false });
        }
        if !study.is_running && failed > 0 && ui.button(format!("Try {failed} failed runs again")).clicked() {
            state.command_study(SuiteCommand::Run { retry_failed: true });
        }
        if !study.arms.is_empty() && ui.button("Curves of all arms").clicked() {
            let of_study = |run: &&crate::lab::workspace::RunEntry| run.study.as_deref() == Some(&study.name) && run.made > 0;
            state.shown = state.runs.iter().filter(of_study).map(|run| run.name.clone()).collect();
            *screen = Screen::Curves;
        }
        if study.judged.is_some() && ui.button("Make the report").clicked() {
            state.command_study(SuiteCommand::Report);
            *screen = Screen::Report;
        }
    });
}

fn progress(ui: &mut Ui, study: &Study) {
    let Some(progress) = &study.progress else {
        if study.is_running || study.problem.is_none() {
            widgets::quiet(ui, "Opening the study …");
        }
        return;
    };
    ui.horizontal(|ui| {
        let outcome = if study.is_running { Outcome::Running } else { Outcome::Done };
        let width = (ui.available_width() * 0.4).min(360.0);
        widgets::bar(ui, progress.done, width, outcome, "Study");
        let left =
            progress.seconds_left.filter(|_| study.is_running).map_or(String::new(), |left| format!(", {} left", widgets::duration(left)));
        let failed = if progress.failed > 0 { format!(", {} failed", progress.failed) } else { String::new() };
        ui.label(format!("{} of {} runs{failed}{left}", progress.over, progress.runs));
    });
}

/// The answer in words, then the intervals that it follows from.
fn verdict(ui: &mut Ui, state: &mut State, judged: &Judged) {
    let colors = theme::colors(ui);
    for outcome in &judged.outcomes {
        let judgement = &outcome.judgement;
        ui.add_space(NEAR);
        widgets::card(ui, |ui| {
            ui.set_width(ui.available_width());
            if judged.without_verdict.contains(&judgement.control.name) {
                ui.label(RichText::new("The audit refuses a conclusion, see below.").font(bold(size::GROUP)).color(colors.bad));
                return;
            }
            let withheld: Vec<&str> = judged.without_verdict.iter().map(String::as_str).collect();
            let shown = judgement.without(&withheld);
            let answer = if shown.arms.is_empty() { shown.control.sentence(&shown.spec) } else { shown.sentence() };
            ui.label(RichText::new(answer).font(bold(size::GROUP)).color(colors.ink));
            ui.add_space(NEAR);
            intervals(ui, state, &shown);
            for arm in &shown.arms {
                sentence(ui, words(arm).0, &arm.sentence(&shown.spec, &shown.control.name));
            }
            for arm in judgement.arms.iter().filter(|arm| withheld.contains(&arm.name.as_str())) {
                sentence(ui, Outcome::Failed, &format!("{}: the audit refuses a conclusion about it, see below.", arm.name));
            }
            sentence(ui, Outcome::Waiting, &shown.control.sentence(&shown.spec));
            for finding in &shown.findings {
                sentence(ui, Outcome::Attention, &format!("{}  {}", finding.title(), finding.message()));
            }
        });
    }
}

/// A sentence after the shape of a state.
pub fn sentence(ui: &mut Ui, outcome: Outcome, text: &str) {
    ui.horizontal_top(|ui| {
        let (rect, _) = ui.allocate_exact_size(vec2(14.0, 16.0), Sense::hover());
        widgets::shape(ui.painter(), rect.center(), outcome, theme::colors(ui));
        ui.add(egui::Label::new(text).wrap());
    });
}

/// A verdict in a few words.
fn words(arm: &ArmJudgement) -> (Outcome, &'static str) {
    match arm.verdict {
        Verdict::Better => (Outcome::Done, "clearly better"),
        Verdict::BetterAndEquivalent => (Outcome::Done, "better, by less than matters"),
        Verdict::Worse => (Outcome::Failed, "clearly worse"),
        Verdict::WorseAndEquivalent => (Outcome::Done, "worse, by less than matters"),
        Verdict::Equivalent => (Outcome::Done, "equivalent"),
        Verdict::NotClear => (Outcome::Attention, "not clear"),
        Verdict::Unknown => (Outcome::Waiting, "too few pairs yet"),
        Verdict::Identical => (Outcome::Attention, "identical runs"),
    }
}

/// Intervals of the differences to the control around 0, with the margin shaded and each pair as a dot.
fn intervals(ui: &mut Ui, state: &State, judgement: &Judgement) {
    let colors = theme::colors(ui);
    let arms: Vec<(usize, &ArmJudgement)> = judgement.arms.iter().enumerate().filter(|(_, arm)| arm.mean.is_some()).collect();
    if arms.is_empty() {
        return;
    }
    let margin = judgement.spec.margin;
    let row = 40.0;
    let width = ui.available_width();
    let (rect, response) = ui.allocate_exact_size(vec2(width, row * arms.len() as f32 + 52.0), Sense::hover());
    let text: Vec<String> = arms.iter().map(|(_, arm)| format!("{} {}", arm.name, numbers(arm))).collect();
    response.widget_info(|| WidgetInfo::labeled(Role::Image, true, format!("Differences to the control: {}", text.join("; "))));
    let painter = ui.painter_at(rect);
    let names = (width * 0.2).clamp(118.0, 180.0);
    let right = if width > 640.0 { 250.0 } else { 8.0 };
    let plot = Rect::from_min_max(rect.min + vec2(names, 18.0), rect.max - vec2(right, 34.0));
    // The axis holds all pairs, and intervals up to a multiple of them: a wide one ends in an arrow.
    let pairs = || arms.iter().flat_map(|(_, arm)| arm.pairs.iter().map(|pair| pair.difference).chain(arm.mean));
    let largest = pairs().filter(|value| value.is_finite()).fold(1.5 * margin, |largest, value| largest.max(value.abs()));
    let ends = arms.iter().filter_map(|(_, arm)| arm.interval).flatten().filter(|end| end.is_finite());
    let limit = ends.fold(largest, |limit, end| limit.max(end.abs().min(2.5 * largest))) * 1.05;
    let x = Axis::new(Scale::Linear, [-limit, limit], [plot.left().into(), plot.right().into()]);
    let shaded = Rect::from_x_y_ranges(x.place(-margin) as f32..=x.place(margin) as f32, plot.y_range());
    painter.rect_filled(shaded, 0.0, colors.quiet.gamma_multiply(0.16));
    painter.text(pos2(plot.center().x, rect.top()), Align2::CENTER_TOP, format!("margin ±{margin}"), plain(size::SMALL), colors.quiet);
    painter.vline(x.place(0.0) as f32, plot.y_range(), Stroke::new(1.0, colors.ink));
    let ticks = x.ticks(f64::from(plot.width() / 110.0).clamp(2.0, 8.0));
    for (value, name) in ticks.iter().zip(tick_names(&ticks, true)) {
        let at = x.place(*value) as f32;
        painter.vline(at, plot.bottom()..=plot.bottom() + 4.0, Stroke::new(1.0, colors.outline));
        painter.text(pos2(at, plot.bottom() + 5.0), Align2::CENTER_TOP, name, plain(size::SMALL), colors.quiet);
    }
    painter.hline(plot.x_range(), plot.bottom(), Stroke::new(1.0, colors.outline));
    let title = format!("difference in {}, lower is better", judgement.spec.metric);
    painter.text(pos2(plot.right(), rect.bottom()), Align2::RIGHT_BOTTOM, title, plain(size::SMALL), colors.quiet);
    let order = state.study.as_ref().map(|study| study.arms.clone()).unwrap_or_default();
    for (place, (index, arm)) in arms.iter().enumerate() {
        let middle = plot.top() + row * (place as f32 + 0.5);
        let color = colors.run(order.iter().position(|name| *name == arm.name).unwrap_or(index + 1));
        painter.text(
            pos2(plot.left() - 10.0, middle),
            Align2::RIGHT_CENTER,
            short(&arm.name, if width > 640.0 { 22 } else { 16 }),
            plain(size::BODY),
            colors.ink,
        );
        for pair in arm.pairs.iter().filter(|pair| pair.difference.is_finite()) {
            painter.circle_stroke(pos2(x.place(pair.difference) as f32, middle + 11.0), 2.5, Stroke::new(1.0, color));
        }
        if let Some([low, high]) = arm.interval {
            let (from, to) = (x.place(low) as f32, x.place(high) as f32);
            painter.hline(from..=to, middle, Stroke::new(3.0, color));
            for (end, at, inward) in [(low, from, 1.0), (high, to, -1.0)] {
                let stroke = Stroke::new(1.5, color);
                if x.contains(end) {
                    painter.vline(at, middle - 5.0..=middle + 5.0, stroke);
                } else {
                    painter.line_segment([pos2(at + 7.0 * inward, middle - 5.0), pos2(at, middle)], stroke);
                    painter.line_segment([pos2(at + 7.0 * inward, middle + 5.0), pos2(at, middle)], stroke);
                }
            }
        }
        if let Some(mean) = arm.mean.filter(|mean| mean.is_finite()) {
            painter.circle_filled(pos2(x.place(mean) as f32, middle), 4.5, color);
        }
        if right > 100.0 {
            let at = pos2(plot.right() + 14.0, middle);
            painter.text(at, Align2::LEFT_BOTTOM, words(arm).1, bold(size::BODY), colors.ink);
            painter.text(at, Align2::LEFT_TOP, numbers(arm), plain(size::SMALL), colors.quiet);
        }
    }
}

/// Mean, interval and number of pairs.
fn numbers(arm: &ArmJudgement) -> String {
    let pairs = if arm.pairs.len() == 1 { "1 pair".to_string() } else { format!("{} pairs", arm.pairs.len()) };
    match (arm.mean, arm.interval) {
        (Some(mean), Some([low, high])) if low.is_finite() && high.is_finite() => {
            format!("{} ({} to {}), {pairs}", signed(mean, 4), signed(low, 4), signed(high, 4))
        }
        (Some(mean), _) => format!("{} (no interval), {pairs}", signed(mean, 4)),
        _ => pairs,
    }
}

/// What the audit found, in a line that leads to it.
fn findings(ui: &mut Ui, screen: &mut Screen, study: &Study) {
    let found = audit::findings(study);
    let refusals = found.iter().filter(|finding| finding.is_unresolved()).count();
    let others = found.iter().filter(|finding| finding.severity > Severity::Note).count() - refusals;
    let (outcome, text) = match (refusals, others) {
        (0, 0) => return,
        (0, n) => (Outcome::Attention, format!("The audit has {n} findings that a reader should know.")),
        (n, _) => (Outcome::Failed, format!("The audit refuses a conclusion for {n} reasons.")),
    };
    widgets::group(ui, "Audit");
    sentence(ui, outcome, &text);
    for finding in found.iter().filter(|finding| finding.is_unresolved()) {
        sentence(ui, Outcome::Failed, &finding.to_string());
    }
    if ui.link("All checks and findings").clicked() {
        *screen = Screen::Audit;
    }
}

/// What the gates have decided, and why.
fn gates(ui: &mut Ui, study: &Study) {
    if study.decisions.is_empty() {
        return;
    }
    widgets::group(ui, "Gates");
    for record in &study.decisions {
        let (outcome, word) = match record.decision.verdict {
            GateVerdict::Stop => (Outcome::Failed, "stopped"),
            GateVerdict::Promote => (Outcome::Done, "goes on"),
            GateVerdict::Wait => (Outcome::Waiting, "undecided"),
        };
        sentence(ui, outcome, &format!("{} after stage {}: {word}. {}", record.run, record.stage, record.decision.reason));
    }
}

fn table(ui: &mut Ui, state: &mut State, study: &Study) {
    if study.rows.is_empty() {
        return;
    }
    let colors = theme::colors(ui);
    widgets::group(ui, "Runs");
    ui.add_space(NEAR);
    egui::ScrollArea::horizontal().show(ui, |ui| {
        egui::Grid::new("rows").striped(true).spacing(vec2(APART, 6.0)).show(ui, |ui| {
            for head in ["run", "updates", "training CE", "validation CE", "status"] {
                ui.label(RichText::new(head).color(colors.quiet));
            }
            ui.end_row();
            for row in &study.rows {
                ui.horizontal(|ui| {
                    let index = state.color_index(&format!("{}/{}", study.name, row[0]));
                    widgets::swatch(ui, colors.run(index));
                    ui.label(&row[0]);
                });
                for cell in &row[1..4] {
                    ui.label(cell);
                }
                let outcome = match row[4].as_str() {
                    "done" | "stopped early" | "stopped by a gate" => Outcome::Done,
                    "training" => Outcome::Running,
                    "waiting" => Outcome::Waiting,
                    text if text.starts_with("failed") || text == "diverged" => Outcome::Failed,
                    _ => Outcome::Attention,
                };
                widgets::state(ui, outcome, &short(&row[4], 60)).on_hover_text(&row[4]);
                ui.end_row();
            }
        });
    });
}
