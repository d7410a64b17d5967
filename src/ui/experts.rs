//! What the experts of a run take: by layer and expert at a moment, of one layer over time, and the measures of both.

use egui::{ComboBox, RichText, Ui};

use super::{
    Screen,
    chart::{Chart, Line, View},
    heat::{Heat, legend},
    state::{Outcome, State},
    theme::{self, APART, NEAR, bold, size},
    tokens::Tokens,
    widgets,
};
use crate::{lab::workspace::Curve, run::series::Series};

/// Measures by layer that are offered.
const MEASURES: [&str; 8] =
    ["expert_diversity", "load_imbalance", "load_cv", "dead_expert_frac", "load_max", "router_entropy", "router_z", "router_grad_norm"];

/// The screen.
#[derive(Default)]
pub struct Experts {
    /// The share of the run at which loads are shown; the end by default.
    moment: Option<f32>,
    layer: usize,
    measure: usize,
    view: View,
    tokens: Tokens,
}

impl Experts {
    /// Draws the screen.
    pub fn show(&mut self, ui: &mut Ui, state: &mut State, screen: &mut Screen) {
        widgets::heading(ui, "Experts", "The share of tokens that each expert takes, against a fair share.");
        let Some(run) = choose_run(ui, state, "experts") else {
            if widgets::empty(ui, "No run is chosen", "Start a run, or choose one from the list.", Some("Choose a run")) {
                *screen = Screen::Runs;
            }
            return;
        };
        let labels = state.look(&run).is_some().then(|| state.config(&run)).flatten().map(|config| config.model.router_labels());
        let Some(load) = state.curve(&run, "expert_load").cloned() else {
            let text = match &labels {
                Some(labels) if labels.is_empty() => "This model has no router.",
                _ => "Nothing is measured yet.",
            };
            widgets::quiet(ui, text);
            return;
        };
        let [layers, experts] = load.shape[..] else { return };
        let labels = labels.filter(|labels| labels.len() == layers).unwrap_or_else(|| (1..=layers).map(|n| format!("layer {n}")).collect());
        let columns = load.updates.len();
        let at = self.moment.map_or(columns - 1, |share| ((share * (columns - 1) as f32).round() as usize).min(columns - 1));
        let of = |column: usize, layer: usize, expert: usize| share(&load, column, layer, expert);
        self.answer(ui, &load, &labels, at);
        self.slider(ui, &load, at);
        widgets::group(ui, &format!("By layer and expert at update {}", load.updates[at]));
        let heat = Heat {
            name: "Load by layer and expert",
            about: format!("{run}, update {}", load.updates[at]),
            rows: labels.clone(),
            columns: (0..experts).step_by(experts.div_ceil(24)).map(|expert| (expert, expert.to_string())).collect(),
            heads: ("router call", &|expert| format!("expert {expert}")),
            loads: (0..layers).map(|layer| (0..experts).map(|expert| of(at, layer, expert)).collect()).collect(),
            marked: None,
            row_height: if layers > 16 { 16.0 } else { 26.0 },
            has_values: true,
        };
        let (response, cell) = heat.show(ui);
        if let Some((layer, expert)) = cell {
            if response.clicked() {
                self.layer = layer;
            }
            let mut ranked: Vec<usize> = (0..experts).collect();
            ranked.sort_by(|a, b| of(at, layer, *b).total_cmp(&of(at, layer, *a)));
            let rank = ranked.iter().position(|other| *other == expert).map_or(0, |rank| rank + 1);
            let history = (0..columns).map(|column| of(column, layer, expert)).filter(|load| load.is_finite());
            let (least, most) = history.fold((f64::INFINITY, 0.0_f64), |(least, most), load| (least.min(load), most.max(load)));
            response.on_hover_text(format!(
                "{}, expert {expert}\n{:.3} of a fair share, rank {rank} of {experts}\nover the run: {least:.2} to {most:.2}",
                labels[layer],
                of(at, layer, expert)
            ));
        }
        legend(ui);
        self.layer = self.layer.min(layers - 1);
        self.over_time(ui, &run, &load, &labels, at);
        self.measures(ui, state, &run, &labels);
        alarms(ui, state, &run);
        self.tokens.show(ui, state, &run, self.layer, &labels[self.layer], experts);
    }

    /// The answer first: whether tokens are spread.
    fn answer(&self, ui: &mut Ui, load: &Curve, labels: &[String], at: usize) {
        let [layers, experts] = load.shape[..] else { return };
        let all = (0..layers).flat_map(|layer| (0..experts).map(move |expert| (layer, expert)));
        let values: Vec<((usize, usize), f64)> =
            all.map(|(layer, expert)| ((layer, expert), share(load, at, layer, expert))).filter(|(_, load)| load.is_finite()).collect();
        let dead = values.iter().filter(|(_, load)| *load == 0.0).count();
        let Some(((layer, expert), most)) = values.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)) else { return };
        let colors = theme::colors(ui);
        let (outcome, words) = match dead {
            0 if most <= 2.0 => (Outcome::Done, format!("Tokens are spread: no expert takes more than {most:.2} of a fair share.")),
            0 => (Outcome::Attention, format!("Expert {expert} of {} takes {most:.2} of a fair share.", labels[layer])),
            n => (Outcome::Attention, format!("{n} of {} experts take no token.", values.len())),
        };
        ui.horizontal_top(|ui| {
            let (rect, _) = ui.allocate_exact_size(egui::vec2(14.0, 20.0), egui::Sense::hover());
            widgets::shape(ui.painter(), rect.center(), outcome, colors);
            ui.add(egui::Label::new(RichText::new(words).font(bold(size::GROUP)).color(colors.ink)).wrap());
        });
    }

    fn slider(&mut self, ui: &mut Ui, load: &Curve, at: usize) {
        ui.horizontal(|ui| {
            let label = ui.label("Update");
            let mut column = at;
            ui.spacing_mut().slider_width = (ui.available_width() - 160.0).clamp(80.0, 560.0);
            let last = load.updates.len() - 1;
            let slider = egui::Slider::new(&mut column, 0..=last).show_value(false);
            if ui.add(slider).labelled_by(label.id).changed() {
                self.moment = if column == last { None } else { Some(column as f32 / last.max(1) as f32) };
            }
            ui.label(load.updates[at].to_string());
            if self.moment.is_some() && ui.button("Newest").clicked() {
                self.moment = None;
            }
        });
    }

    fn over_time(&mut self, ui: &mut Ui, run: &str, load: &Curve, labels: &[String], at: usize) {
        let [_, experts] = load.shape[..] else { return };
        ui.add_space(APART);
        ui.horizontal(|ui| {
            ui.label(RichText::new("Over the run").font(bold(size::GROUP)));
            let combo = ComboBox::from_id_salt("layer").selected_text(&labels[self.layer]).show_ui(ui, |ui| {
                for (layer, label) in labels.iter().enumerate() {
                    ui.selectable_value(&mut self.layer, layer, label);
                }
            });
            combo.response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::ComboBox, true, "Layer"));
        });
        let columns = load.updates.len();
        let middle = columns / 2;
        let heat = Heat {
            name: "Load by expert over updates",
            about: format!("{run}, {}", labels[self.layer]),
            rows: (0..experts).map(|expert| format!("expert {expert}")).collect(),
            columns: [0, middle, columns - 1].into_iter().map(|column| (column, load.updates[column].to_string())).collect(),
            heads: ("expert", &|column| format!("update {}", load.updates[column])),
            loads: (0..experts).map(|expert| (0..columns).map(|column| share(load, column, self.layer, expert)).collect()).collect(),
            marked: Some(at),
            row_height: if experts > 16 { 10.0 } else { 20.0 },
            has_values: false,
        };
        let (response, cell) = heat.show(ui);
        if let Some((expert, column)) = cell {
            if response.clicked() {
                self.moment = Some(column as f32 / (columns - 1).max(1) as f32);
            }
            let value = share(load, column, self.layer, expert);
            response.on_hover_text(format!("update {}, expert {expert}: {value:.3} of a fair share", load.updates[column]));
        }
    }

    fn measures(&mut self, ui: &mut Ui, state: &mut State, run: &str, labels: &[String]) {
        ui.add_space(APART);
        ui.horizontal(|ui| {
            ui.label(RichText::new("Measures by layer").font(bold(size::GROUP)));
            let combo = ComboBox::from_id_salt("measure").selected_text(MEASURES[self.measure]).width(170.0).show_ui(ui, |ui| {
                for (place, key) in MEASURES.iter().enumerate() {
                    let response = ui.selectable_value(&mut self.measure, place, *key);
                    if let Some(series) = Series::find(key) {
                        response.on_hover_text(series.doc());
                    }
                }
            });
            combo.response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::ComboBox, true, "Measure"));
        });
        let key = MEASURES[self.measure];
        let Some(series) = Series::find(key) else { return };
        widgets::quiet(ui, series.doc());
        let colors = theme::colors(ui);
        let Some(curve) = state.curve(run, key) else { return };
        let layers = curve.shape.first().copied().unwrap_or(1);
        let line = |layer: usize| Line {
            name: labels.get(layer).cloned().unwrap_or_default(),
            color: colors.run(layer),
            points: curve
                .updates
                .iter()
                .enumerate()
                .map(|(at, update)| [f64::from(*update), curve.mean.get(at * layers + layer).and_then(|value| value.0).unwrap_or(f64::NAN)])
                .collect(),
            ..Line::default()
        };
        let chart = Chart {
            title: key.replace('_', " "),
            unit: series.unit.into(),
            x_title: "updates".into(),
            lines: (0..layers.min(24)).map(line).collect(),
            height: 260.0,
            ..Chart::default()
        };
        chart.show(ui, &mut self.view);
    }
}

/// The load of an expert, in shares of a fair one.
fn share(load: &Curve, column: usize, layer: usize, expert: usize) -> f64 {
    let [layers, experts] = load.shape[..] else { return f64::NAN };
    let value = load.mean.get((column * layers + layer) * experts + expert).and_then(|value| value.0);
    value.map_or(f64::NAN, |value| value * experts as f64)
}

/// The run that a screen is about: the one in focus, or the first that is shown.
pub fn choose_run(ui: &mut Ui, state: &mut State, id: &str) -> Option<String> {
    let current = state.focus.clone().or(state.shown.first().cloned()).or(state.live.as_ref().map(|live| live.run.clone()));
    let names: Vec<String> = state.runs.iter().filter(|run| run.made > 0).map(|run| run.name.clone()).collect();
    if names.is_empty() && current.is_none() {
        return None;
    }
    let mut chosen = current.clone();
    ui.horizontal(|ui| {
        let label = ui.label("Run");
        let text = current.clone().unwrap_or_else(|| "choose".into());
        let combo = ComboBox::from_id_salt(("run", id)).selected_text(text).width(260.0).show_ui(ui, |ui| {
            for name in names {
                ui.selectable_value(&mut chosen, Some(name.clone()), &name);
            }
        });
        combo.response.labelled_by(label.id);
    });
    ui.add_space(NEAR);
    state.focus.clone_from(&chosen);
    chosen
}

/// Alarms of the routers, with the update at which they began.
fn alarms(ui: &mut Ui, state: &mut State, run: &str) {
    let found: Vec<(u32, String)> = state
        .look(run)
        .map(|facts| facts.incidents.iter().filter(|record| record.incident.is_of_routing()))
        .into_iter()
        .flatten()
        .map(|record| (record.since.unwrap_or(record.update), format!("{}: {}", record.incident.words(), record.detail)))
        .collect();
    widgets::group(ui, "Alarms");
    if found.is_empty() {
        widgets::quiet(ui, "None: no router collapsed, no expert died or starved.");
    }
    for (since, text) in found {
        widgets::state(ui, Outcome::Attention, &format!("since update {since}"));
        ui.label(text);
    }
}
