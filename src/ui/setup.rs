//! The config of the next run: every key as a field, and what follows from it.
//!
//! Long because form, preview and start share the config as it was last read.

use std::collections::BTreeMap;

use egui::{Align, ComboBox, Layout, RichText, TextEdit, Ui, vec2};

use super::{
    Screen,
    chart::{Chart, Line, View},
    link::{VERSION, decoded, encoded},
    presets::{self, OWN, PRESETS},
    state::{Outcome, State},
    theme::{self, APART, NEAR, bold, size},
    widgets,
};
use crate::{
    config_file::{self, Class, Explanation, Problems},
    lab::{chart::Scale, workspace::Probed},
    run::{Config, config, model::cost, schedule::balance_coefficient},
};

/// The screen.
pub struct Setup {
    keys: Vec<Explanation>,
    /// The preset, by its place; none for a config of the user.
    preset: Option<usize>,
    /// Whether a published preset is reduced.
    is_reduced: bool,
    /// The config of the user.
    own: Option<String>,
    /// What differs from the preset, as TOML by key.
    sets: BTreeMap<String, String>,
    filter: String,
    only_changed: bool,
    name: String,
    toml: Option<String>,
    read: Option<Read>,
    view: View,
}

/// The config as it is now.
struct Read {
    config: Result<Config, Problems>,
    /// The config with every default filled in, TOML; empty if it has problems.
    text: String,
    /// The preset without the changes.
    base: BTreeMap<String, (String, bool)>,
    values: BTreeMap<String, (String, bool)>,
    /// Problems by key; those of no key have an empty one.
    problems: BTreeMap<String, Vec<String>>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            keys: config::explain(),
            preset: Some(0),
            is_reduced: false,
            own: None,
            sets: BTreeMap::new(),
            filter: String::new(),
            only_changed: false,
            name: String::new(),
            toml: None,
            read: None,
            view: View::default(),
        }
    }
}

impl Setup {
    /// Shows a preset with changes, each `key=value`.
    pub fn take(&mut self, path: &str, sets: &[String]) {
        self.preset = PRESETS.iter().position(|preset| preset.path == path);
        self.own = None;
        self.sets = sets.iter().filter_map(|set| set.split_once('=')).map(|(key, value)| (key.to_string(), value.to_string())).collect();
        self.read = None;
    }

    /// A link to this form: the preset and what differs from it, percent-encoded. None for a config of the user's own.
    fn link(&self) -> Option<String> {
        let preset = &PRESETS[self.preset.filter(|_| self.own.is_none())?];
        let size = if self.is_reduced && preset.is_published { "&size=reduced".to_string() } else { String::new() };
        let sets: String = self.sets.iter().map(|(key, value)| format!("&{key}={}", encoded(value))).collect();
        Some(format!("#v={VERSION}&preset={}{size}{sets}", encoded(preset.path)))
    }

    /// Fills the form from a link. Returns whether it is one.
    pub fn take_link(&mut self, fragment: &str) -> bool {
        let pairs: Vec<(&str, String)> = fragment
            .trim_start_matches('#')
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key, decoded(value)))
            .collect();
        let of = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
        let Some(preset) = of("preset").filter(|_| of("v") == Some(VERSION)) else { return false };
        let Some(place) = PRESETS.iter().position(|known| known.path == preset) else { return false };
        (self.preset, self.own, self.read) = (Some(place), None, None);
        self.is_reduced = of("size") == Some("reduced");
        let known = |key: &str| self.keys.iter().any(|known| known.key == key);
        self.sets = pairs.iter().filter(|(key, _)| known(key)).map(|(key, value)| ((*key).to_string(), value.clone())).collect();
        true
    }

    /// Shows the config of a run.
    pub fn take_config(&mut self, text: &str) {
        (self.own, self.preset, self.read) = (Some(text.to_string()), None, None);
        self.sets.clear();
    }

    /// Starts a run of the config, if it is one and no other run is under way.
    pub fn start(&mut self, state: &mut State, screen: &mut Screen) {
        let stem = stem(self.preset.map_or("run", |place| PRESETS[place].name));
        if let (Ok(config), false) = (&self.read().config, state.is_busy()) {
            state.start(&stem, config.to_effective_toml());
            *screen = Screen::Curves;
        }
    }

    fn sets(&self) -> Vec<String> {
        self.sets.iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    fn load(&self, sets: &[String]) -> Result<Config, Problems> {
        let preset = self.preset.map(|place| &PRESETS[place]);
        match (&self.own, preset) {
            (Some(text), _) => presets::load(OWN, Some(text), sets),
            (None, Some(preset)) if self.is_reduced && preset.is_published => {
                let text = presets::load(preset.path, None, &[])?.reduced().to_effective_toml();
                presets::load(OWN, Some(&text), sets)
            }
            (None, preset) => presets::load(preset.unwrap_or(&PRESETS[0]).path, None, sets),
        }
    }

    fn read(&mut self) -> &Read {
        if self.read.is_none() {
            let base = self.load(&[]).map(|config| config_file::values(&config)).unwrap_or_default();
            let config = self.load(&self.sets());
            let values = match &config {
                Ok(config) => config_file::values(config),
                Err(_) => {
                    // What cannot be read is shown as it was written.
                    let mut values = base.clone();
                    for (key, value) in &self.sets {
                        values.entry(key.clone()).and_modify(|known| known.0.clone_from(value));
                    }
                    values
                }
            };
            let mut problems: BTreeMap<String, Vec<String>> = BTreeMap::new();
            if let Err(found) = &config {
                for (problem, _) in found.iter() {
                    let notes: String = problem.notes.iter().map(|note| format!("; {note}")).collect();
                    let text = format!("{}{notes}", problem.message);
                    problems.entry(problem.key.clone().unwrap_or_default()).or_default().push(text);
                }
            }
            let text = config.as_ref().map_or(String::new(), Config::to_effective_toml);
            self.read = Some(Read { config, text, base, values, problems });
        }
        self.read.as_ref().expect("it was set above")
    }

    /// Draws the screen.
    pub fn show(&mut self, ui: &mut Ui, state: &mut State, screen: &mut Screen, is_narrow: bool, address: Option<String>) {
        widgets::heading(ui, "Setup", "The config of the next run. What you do not change is as the preset has it.");
        self.read();
        self.presets(ui, state, address);
        if is_narrow {
            self.consequences(ui, state, screen);
            self.form(ui);
            return;
        }
        let width = ui.available_width();
        let right = (width * 0.38).clamp(320.0, 460.0);
        ui.horizontal_top(|ui| {
            ui.allocate_ui_with_layout(vec2(width - right - APART, 10.0), Layout::top_down(Align::Min), |ui| {
                ui.set_width(width - right - APART);
                self.form(ui);
            });
            ui.add_space(NEAR);
            ui.allocate_ui_with_layout(vec2(right, 10.0), Layout::top_down(Align::Min), |ui| {
                ui.set_width(right);
                self.consequences(ui, state, screen);
            });
        });
    }

    fn presets(&mut self, ui: &mut Ui, state: &mut State, address: Option<String>) {
        ui.horizontal_wrapped(|ui| {
            let label = ui.label("Preset");
            let shown = self.preset.map_or("A config of mine", |place| PRESETS[place].name);
            let mut chosen = self.preset;
            let combo = ComboBox::from_id_salt("preset").selected_text(shown).width(220.0).show_ui(ui, |ui| {
                for (place, preset) in PRESETS.iter().enumerate() {
                    ui.selectable_value(&mut chosen, Some(place), preset.name).on_hover_text(preset.purpose);
                }
            });
            combo.response.labelled_by(label.id);
            if chosen != self.preset {
                (self.preset, self.own, self.read) = (chosen, None, None);
                self.is_reduced = chosen.is_some_and(|place| PRESETS[place].is_published);
                self.sets.clear();
            }
            if self.preset.is_some_and(|place| PRESETS[place].is_published)
                && ui
                    .checkbox(&mut self.is_reduced, "reduced size")
                    .on_hover_text("The same axes with small numbers, ten updates.")
                    .changed()
            {
                self.read = None;
            }
            if !self.sets.is_empty() && ui.button(format!("Reset {} changes", self.sets.len())).clicked() {
                self.sets.clear();
                self.read = None;
            }
            if ui.button("As TOML").clicked() {
                self.toml = match &self.toml {
                    Some(_) => None,
                    None => Some(self.read().config.as_ref().map_or(String::new(), Config::to_effective_toml)),
                };
            }
            if let (Some(address), Some(link)) = (address, self.link())
                && ui.button("Copy a link").on_hover_text("Opens this form with these values; it starts nothing.").clicked()
            {
                ui.ctx().copy_text(format!("{address}{link}"));
            }
        });
        if let Some(place) = self.preset {
            widgets::quiet(ui, PRESETS[place].purpose);
        }
        self.read();
        self.text(ui, state);
    }

    /// The config as text, to copy or to paste.
    fn text(&mut self, ui: &mut Ui, state: &mut State) {
        let Some(text) = &mut self.toml else { return };
        let mut is_taken = false;
        widgets::card(ui, |ui| {
            let label = ui.label("The config with every default filled in. Paste another one here to use it.");
            egui::ScrollArea::vertical().max_height(280.0).show(ui, |ui| {
                ui.add(TextEdit::multiline(text).code_editor().desired_width(f32::INFINITY)).labelled_by(label.id);
            });
            ui.horizontal(|ui| {
                is_taken = ui.button("Use this text").clicked();
                if ui.button("Copy").clicked() {
                    ui.ctx().copy_text(text.clone());
                }
                if ui.button("Save").clicked() {
                    state.save("configs", vec![(OWN.to_string(), text.clone())]);
                }
            });
        });
        if is_taken && let Some(text) = self.toml.take() {
            self.take_config(&text);
            self.read();
        }
    }

    fn form(&mut self, ui: &mut Ui) {
        ui.horizontal_wrapped(|ui| {
            let label = ui.label("Find");
            ui.add(TextEdit::singleline(&mut self.filter).hint_text("key or description").desired_width(220.0)).labelled_by(label.id);
            ui.checkbox(&mut self.only_changed, "only what is changed");
        });
        let mut sections: Vec<String> = Vec::new();
        for key in &self.keys {
            let section = section(&key.key).to_string();
            if !sections.contains(&section) {
                sections.push(section);
            }
        }
        for section in sections {
            let shown: Vec<usize> = (0..self.keys.len()).filter(|&at| self.is_shown(at, &section)).collect();
            if shown.is_empty() {
                continue;
            }
            let is_open = !self.filter.is_empty() || self.only_changed || ["general", "model", "train"].contains(&section.as_str());
            let has_problem = shown.iter().any(|&at| self.read.as_ref().is_some_and(|read| read.problems.contains_key(&self.keys[at].key)));
            let title = if has_problem { format!("{section} (has problems)") } else { section.clone() };
            egui::CollapsingHeader::new(RichText::new(title).font(bold(size::GROUP)))
                .id_salt(("section", &section, self.filter.is_empty() && !self.only_changed))
                .default_open(is_open || has_problem)
                .show(ui, |ui| {
                    for at in shown {
                        self.field(ui, at);
                    }
                });
        }
    }

    /// Whether a field is shown: one without effect under the current choices is not.
    fn is_shown(&self, at: usize, of: &str) -> bool {
        let key = &self.keys[at];
        let Some(read) = &self.read else { return false };
        let applies = read.values.get(&key.key).is_none_or(|(_, applies)| *applies);
        let filter = self.filter.to_lowercase();
        let is_found = filter.is_empty() || key.key.to_lowercase().contains(&filter) || key.doc.to_lowercase().contains(&filter);
        let is_changed = self.sets.contains_key(&key.key);
        section(&key.key) == of
            && is_found
            && (applies || is_changed || read.problems.contains_key(&key.key))
            && (!self.only_changed || is_changed)
    }

    fn field(&mut self, ui: &mut Ui, at: usize) {
        let colors = theme::colors(ui);
        let key = self.keys[at].clone();
        let Some(read) = &self.read else { return };
        let value = self.sets.get(&key.key).or(read.values.get(&key.key).map(|(value, _)| value)).cloned().unwrap_or_default();
        let base = read.base.get(&key.key).map(|(value, _)| value.clone()).unwrap_or_default();
        let problems = read.problems.get(&key.key).cloned().unwrap_or_default();
        let is_changed = self.sets.contains_key(&key.key);
        let mut new = None;
        ui.horizontal(|ui| {
            let name = key.key.strip_prefix(&format!("{}.", section(&key.key))).unwrap_or(&key.key);
            let text = RichText::new(name).color(if is_changed { colors.accent } else { colors.ink });
            let hint = format!("{}\n\n{}: {}\ndefault: {}{}", key.key, key.doc, key.allowed, key.default, class(key.class));
            let width = (ui.available_width() * 0.48).clamp(120.0, 280.0);
            let label = ui.allocate_ui_with_layout(vec2(width, 28.0), Layout::left_to_right(Align::Center), |ui| {
                ui.set_width(width);
                ui.add(egui::Label::new(text).truncate()).on_hover_text(&hint)
            });
            let width = (ui.available_width() - 110.0).clamp(80.0, 260.0);
            let response = control(ui, &key, &value, width, &mut new);
            response.labelled_by(label.inner.id).on_hover_text(&hint);
            if is_changed {
                let words = format!("was {base}");
                if widgets::small_button(ui, "Reset", &format!("Reset {}", key.key)).on_hover_text(&words).clicked() {
                    new = Some(base.clone());
                }
                widgets::quiet(ui, super::chart::short(&words, 18));
            }
        });
        for problem in problems {
            ui.label(RichText::new(problem).color(colors.bad));
        }
        if let Some(new) = new {
            if new == base {
                self.sets.remove(&key.key);
            } else {
                self.sets.insert(key.key, new);
            }
            self.read = None;
            self.read();
        }
    }

    /// What follows from the config: sizes, costs, the schedule, problems; and the button that starts it.
    fn consequences(&mut self, ui: &mut Ui, state: &mut State, screen: &mut Screen) {
        let colors = theme::colors(ui);
        let Some(read) = &self.read else { return };
        let mut start = None;
        let view = &mut self.view;
        let name = &mut self.name;
        let preset = self.preset.map_or("run", |place| PRESETS[place].name);
        widgets::card(ui, |ui| match &read.config {
            Err(problems) => {
                let count = problems.iter().count();
                let words = if count == 1 { "1 problem".to_string() } else { format!("{count} problems") };
                ui.label(RichText::new(words).font(bold(size::GROUP)).color(colors.bad));
                for (key, found) in &read.problems {
                    for problem in found {
                        ui.label(
                            RichText::new(if key.is_empty() { problem.clone() } else { format!("{key}: {problem}") }).color(colors.bad),
                        );
                    }
                }
            }
            Ok(config) => {
                let label = ui.label("Name of the run");
                let hint = state.free_name(&stem(preset));
                ui.add(TextEdit::singleline(name).hint_text(&hint).desired_width(f32::INFINITY)).labelled_by(label.id);
                let is_busy = state.is_busy();
                let text = &read.text;
                let other = state.live.as_ref().filter(|live| !live.is_over() && !live.config.is_empty() && live.config != *text);
                match other.map(|live| live.run.clone()) {
                    Some(run) => {
                        let hint = format!("Stops `{run}`, which can be resumed later, and starts a run of this config.");
                        if widgets::primary(ui, "Restart with changes").on_hover_text(hint).clicked() {
                            start = Some((text.clone(), true));
                        }
                    }
                    None => {
                        ui.add_enabled_ui(!is_busy, |ui| {
                            if widgets::primary(ui, "Start the run").clicked() {
                                start = Some((text.clone(), false));
                            }
                        });
                    }
                }
                if is_busy {
                    widgets::quiet(ui, "A run is under way; this config is for the next one.");
                }
                facts(ui, config, text, state);
                preview(ui, config, view);
            }
        });
        if let Some((text, is_restart)) = start {
            let stem = if name.trim().is_empty() { stem(preset) } else { name.trim().to_string() };
            if is_restart {
                state.restart(&stem, text);
            } else {
                state.start(&stem, text);
            }
            *screen = Screen::Curves;
        }
    }
}

/// The control of a key. What the user enters is TOML, except for text.
fn control(ui: &mut Ui, key: &Explanation, value: &str, width: f32, new: &mut Option<String>) -> egui::Response {
    if !key.choices.is_empty() {
        let plain = value.trim_matches('"');
        let combo = ComboBox::from_id_salt(&key.key).selected_text(plain).width(width).show_ui(ui, |ui| {
            for (name, doc) in &key.choices {
                if ui.selectable_label(name == plain, name).on_hover_text(doc).clicked() {
                    *new = Some(format!("\"{name}\""));
                }
            }
        });
        return combo.response;
    }
    if let Ok(mut is_on) = value.parse::<bool>() {
        let word = if is_on { "yes" } else { "no" };
        let response = ui.checkbox(&mut is_on, word);
        if response.changed() {
            *new = Some(is_on.to_string());
        }
        return response;
    }
    // The text is taken when the field loses the focus, so that an unfinished number is no problem.
    let id = ui.scope_id().with(("field", &key.key));
    let mut text = ui.data(|data| data.get_temp::<String>(id)).unwrap_or_else(|| value.to_string());
    let response = ui.add(TextEdit::singleline(&mut text).desired_width(width).id_salt(&key.key));
    if response.changed() {
        ui.data_mut(|data| data.insert_temp(id, text.clone()));
    }
    if response.lost_focus() {
        ui.data_mut(|data| data.remove::<String>(id));
        if text != value {
            *new = Some(text);
        }
    }
    response
}

/// A valid name of a folder.
fn stem(name: &str) -> String {
    let name: String = name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let parts: Vec<&str> = name.split('-').filter(|part| !part.is_empty()).collect();
    parts.join("-")
}

/// The section of a key in the form.
fn section(key: &str) -> &str {
    key.split_once('.').map_or("general", |(section, _)| section)
}

fn class(class: Class) -> &'static str {
    match class {
        Class::Model => "\n\nPart of the model: another value is another model.",
        Class::Data => "\n\nPart of the data: another value is another text or order.",
        Class::Optimisation => "",
        Class::Length => "\n\nMay be changed when a run is resumed.",
        Class::Bookkeeping => "\n\nDoes not affect training.",
    }
}

fn facts(ui: &mut Ui, config: &Config, text: &str, state: &mut State) {
    widgets::group(ui, "What it will be");
    let specs = config.parameters();
    let counts = cost::counts(&config.model, &specs);
    let costs = cost::cost(&config.model, &specs, config.data.sequence_length);
    let tokens = config.tokens_per_update() as f64 * f64::from(config.train.updates);
    let flop = (costs.forward_flops_per_token + costs.backward_flops_per_token) as f64;
    widgets::fact(ui, "parameters, total", &widgets::count(counts.total as f64));
    let share = 100.0 * counts.active as f64 / counts.total.max(1) as f64;
    widgets::fact(ui, "parameters, active per token", &format!("{} ({share:.0} %)", widgets::count(counts.active as f64)));
    let bytes = (costs.weight_bytes + costs.gradient_bytes + costs.optimizer_bytes) as f64 / (1 << 20) as f64;
    widgets::fact(ui, "weights, gradients, moments", &format!("{bytes:.1} MiB"));
    widgets::fact(ui, "tokens per update", &widgets::count(config.tokens_per_update() as f64));
    widgets::fact(ui, "tokens in the run", &widgets::count(tokens));
    widgets::fact(ui, "FLOP per token, trained", &widgets::count(flop));
    if let Some(probed) = state.probed(text) {
        let seconds = probed.seconds_to_open + probed.seconds_per_update * f64::from(config.train.updates);
        widgets::fact(ui, "time on this machine, measured", &widgets::duration(seconds));
        memory(ui, probed);
        return;
    }
    // The speed of the last run of the same cost per token, if there is one.
    let known = state.runs.iter().rev().find(|run| run.tokens_per_second.is_some() && is_similar(run, config));
    if let Some(speed) = known.and_then(|run| run.tokens_per_second) {
        widgets::fact(ui, "time, as the last run of this model", &widgets::duration(tokens / speed));
    }
    let is_probing = state.probing.as_deref() == Some(text);
    ui.add_enabled_ui(state.probing.is_none() && !state.is_busy(), |ui| {
        let button = ui.button("Measure time and memory").on_hover_text("Makes a few updates on this machine, which leave no trace.");
        if button.clicked() {
            state.probe(text.to_string());
        }
    });
    match &state.probe_problem {
        _ if is_probing => {
            widgets::quiet(ui, "Measuring …");
        }
        Some(problem) => {
            ui.label(RichText::new(problem).color(theme::colors(ui).bad));
        }
        None => {}
    }
}

/// The buffers of a run against the limits of the adapter.
fn memory(ui: &mut Ui, probed: &Probed) {
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1 << 20) as f64);
    widgets::fact(ui, "memory of the buffers", &mebibytes(probed.buffers.total()));
    let Some((name, largest)) = probed.buffers.tensors.first() else { return };
    let most = probed.adapter.max_binding_bytes;
    widgets::fact(ui, "largest tensor, of what the adapter allows", &format!("{} of {}", mebibytes(*largest), mebibytes(most)));
    let outcome = if *largest > most { Outcome::Failed } else { Outcome::Done };
    widgets::bar(ui, *largest as f64 / most.max(1) as f64, ui.available_width().min(320.0), outcome, &format!("share of {name}"));
}

/// Whether a run has the same model and batch.
fn is_similar(run: &crate::lab::workspace::RunEntry, config: &Config) -> bool {
    let settings: BTreeMap<String, String> = config_file::settings(config).into_values().flatten().collect();
    let of_speed = |key: &&String| key.starts_with("model.") || key.starts_with("data.");
    let pick = |settings: &BTreeMap<String, String>| -> Vec<(String, String)> {
        settings.iter().filter(|(key, _)| of_speed(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    pick(&run.settings) == pick(&settings)
}

fn preview(ui: &mut Ui, config: &Config, view: &mut View) {
    let colors = theme::colors(ui);
    let schedule = config.learning_rates();
    let updates = config.train.updates;
    let step = (updates / 200).max(1);
    let at = |value: &dyn Fn(u32) -> f64| -> Vec<[f64; 2]> {
        (0..updates).step_by(step as usize).map(|update| [f64::from(update + 1), value(update)]).collect()
    };
    let mut lines = vec![Line {
        name: "learning rates".into(),
        color: colors.run(0),
        points: at(&|update| schedule.at_update(update)),
        ..Line::default()
    }];
    let peak =
        (0..updates).step_by(step as usize).map(|update| balance_coefficient(&config.model.balance, update, updates)).fold(0.0, f64::max);
    if peak > 0.0 {
        lines.push(Line {
            name: "balance coefficient".into(),
            color: colors.run(1),
            points: at(&|update| balance_coefficient(&config.model.balance, update, updates) / peak),
            ..Line::default()
        });
    }
    ui.add_space(NEAR);
    let chart = Chart {
        title: "Schedules".into(),
        unit: "share of the peak".into(),
        x_title: "update".into(),
        y_scale: Scale::Linear,
        lines: lines.into(),
        height: 190.0,
        ..Chart::default()
    };
    chart.show(ui, view);
}

#[cfg(test)]
mod tests {
    use super::Setup;

    #[test]
    fn a_link_fills_the_form_with_what_differs_and_with_nothing_else() {
        let mut setup = Setup::default();
        setup.take("exp8/baseline.toml", &["model.router.top_k=1".into(), "sample.prompts=[\"a & b = ü\"]".into()]);
        setup.is_reduced = true;
        let link = setup.link().unwrap();
        assert_eq!(
            link,
            "#v=1&preset=exp8/baseline.toml&size=reduced&model.router.top_k=1&sample.prompts=%5B%22a%20%26%20b%20%3D%20%C3%BC%22%5D"
        );
        let mut other = Setup::default();
        assert!(other.take_link(&link) && other.is_reduced);
        assert_eq!((other.preset, &other.sets), (setup.preset, &setup.sets));
        assert_eq!(other.read().config.as_ref().unwrap().model.router.top_k, 1);
        // Hostile or foreign fragments do nothing.
        for text in ["", "#", "#v=2&preset=quickstart.toml", "#v=1&preset=../../etc/passwd", "#preset=quickstart.toml"] {
            assert!(!Setup::default().take_link(text), "{text}");
        }
        assert!(other.take_link("#v=1&preset=quickstart.toml&run=1&no.such.key=2") && other.sets.is_empty());
    }
}
