//! Which tokens go to which expert: a text coloured by expert, the loads by kind of token and by domain, and the most typical tokens of each.

use std::collections::BTreeMap;

use egui::{ComboBox, Grid, RichText, ScrollArea, TextEdit, TextFormat, Ui, text::LayoutJob};

use super::{
    heat::{Heat, legend},
    live::Stage,
    state::State,
    theme::{self, NEAR, bold, mono, size},
    widgets,
};
use crate::run::protocol::{Command, Routed};

/// Tokens of a text that are drawn.
const DRAWN: usize = 1500;
/// Typical tokens of an expert, and how often one must occur to be listed.
const TYPICAL: usize = 8;
const LEAST: usize = 3;

/// Kinds of tokens, by their text.
const KINDS: [&str; 5] = ["letters", "digits", "spaces", "punctuation", "other"];

/// The part of the screen.
#[derive(Default)]
pub struct Tokens {
    text: String,
    /// The expert whose tokens are marked; all by default.
    marked: Option<u32>,
    tables: Option<Tables>,
}

/// What is counted of the routes of a layer.
struct Tables {
    update: u32,
    layer: usize,
    tokens: usize,
    /// By kind of token and by domain: name, tokens, and the load of each expert in shares of a fair one.
    loads: Vec<(String, usize, Vec<f64>)>,
    /// For each expert, its typical tokens with how much more often they go to it than tokens do in general.
    typical: Vec<Vec<(String, f64)>>,
}

impl Tokens {
    /// Draws it, for a layer of E experts.
    pub fn show(&mut self, ui: &mut Ui, state: &mut State, run: &str, layer: usize, label: &str, experts: usize) {
        widgets::group(ui, &format!("Tokens and experts, {label}"));
        self.ask(ui, state, run);
        let routed = state.live.as_ref().filter(|live| live.run == run).and_then(|live| live.routed.clone());
        let Some(routed) = routed.filter(|routed| layer < routed.experts.len()) else { return };
        let is_old = self
            .tables
            .as_ref()
            .is_none_or(|tables| (tables.update, tables.layer, tables.tokens) != (routed.update, layer, routed.ids.len()));
        if is_old {
            self.tables = Some(Tables::of(&routed, layer, experts));
        }
        self.marks(ui, experts);
        self.coloured(ui, &routed, layer);
        if let Some(tables) = &self.tables {
            tables.show(ui);
        }
    }

    /// What asks for routes: a text of the user, or the validation set.
    fn ask(&mut self, ui: &mut Ui, state: &mut State, run: &str) {
        let live = state.live.as_ref().filter(|live| live.run == run && !live.is_remote);
        let is_open = live.is_some_and(|live| matches!(live.stage, Stage::Training | Stage::Paused | Stage::Inspected));
        let is_opening = live.is_some_and(|live| matches!(live.stage, Stage::Asked | Stage::Opening { .. }));
        if is_opening {
            widgets::quiet(ui, "opening the model …");
            return;
        }
        if !is_open {
            ui.horizontal_wrapped(|ui| {
                widgets::quiet(ui, "The model tells which tokens go to which expert.");
                if state.is_busy() {
                    widgets::quiet(ui, "Another run is under way: only its model can be asked now.");
                } else if ui.button("Open the model").on_hover_text("Its best checkpoint, for reading.").clicked() {
                    state.inspect(run);
                }
            });
            return;
        }
        ui.horizontal_wrapped(|ui| {
            let mut text = None;
            if ui.button("Ask with the validation text").clicked() {
                text = Some(None);
            }
            let label = ui.label("or with");
            let field = TextEdit::singleline(&mut self.text).hint_text("a text of yours").desired_width(220.0);
            ui.add(field).labelled_by(label.id);
            if ui.add_enabled(!self.text.is_empty(), egui::Button::new("Ask with this text")).clicked() {
                text = Some(Some(self.text.clone()));
            }
            if let Some(text) = text {
                state.command(Command::Route { text });
            }
        });
    }

    fn marks(&mut self, ui: &mut Ui, experts: usize) {
        ui.horizontal(|ui| {
            let label = ui.label("Mark the tokens of");
            let name = |expert: &Option<u32>| expert.map_or("each first choice".to_string(), |expert| format!("expert {expert}"));
            let combo = ComboBox::from_id_salt("marked expert").selected_text(name(&self.marked)).show_ui(ui, |ui| {
                for expert in std::iter::once(None).chain((0..experts as u32).map(Some)) {
                    ui.selectable_value(&mut self.marked, expert, name(&expert));
                }
            });
            combo.response.labelled_by(label.id);
        });
    }

    /// The text, each token on the colour of its first expert, or marked where it goes to the chosen one.
    fn coloured(&self, ui: &mut Ui, routed: &Routed, layer: usize) {
        let colors = theme::colors(ui);
        let (k, all) = (routed.experts_per_token.max(1) as usize, &routed.experts[layer]);
        let mut job = LayoutJob::default();
        let mut ends = Vec::new();
        for (place, id) in routed.ids.iter().take(DRAWN).enumerate() {
            let chosen = &all[place * k..][..k];
            let mut format = TextFormat { font_id: mono(size::BODY), color: colors.ink, ..TextFormat::default() };
            match self.marked {
                None => format.background = colors.run(chosen[0] as usize).gamma_multiply(0.3),
                Some(expert) if chosen.contains(&expert) => {
                    format.background = colors.accent.gamma_multiply(0.25);
                    format.underline = egui::Stroke::new(1.0, colors.accent);
                }
                Some(_) => format.color = colors.quiet,
            }
            job.append(&spelled(routed, *id), 0.0, format);
            ends.push(job.text.chars().count());
        }
        ui.add_space(NEAR);
        let area = ScrollArea::vertical().id_salt("coloured").max_height(220.0);
        area.show(ui, |ui| {
            job.wrap.max_width = ui.available_width();
            let galley = ui.fonts_mut(|fonts| fonts.layout_job(job));
            let (rect, response) = ui.allocate_exact_size(galley.size(), egui::Sense::hover());
            response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, "Text coloured by expert"));
            let under = response.hover_pos().map(|at| galley.cursor_from_pos(at - rect.min).index);
            ui.painter().galley(rect.min, galley, colors.ink);
            let place = under.map(|index| ends.partition_point(|end| *end <= usize::from(index))).filter(|place| *place < ends.len());
            if let Some(place) = place {
                let experts: Vec<String> = all[place * k..][..k].iter().map(u32::to_string).collect();
                let domain = routed.domains.get(place).map_or(String::new(), |domain| format!("\ndomain {domain}"));
                let plural = if k == 1 { "" } else { "s" };
                let token = routed.text(routed.ids[place]).unwrap_or_default();
                response.on_hover_text_at_pointer(format!("token {token:?}\nexpert{plural} {}{domain}", experts.join(", ")));
            }
        });
        let more = if routed.ids.len() > DRAWN { format!(", the first {DRAWN} shown") } else { String::new() };
        widgets::quiet(ui, format!("{} tokens{more}, with the weights after update {}", routed.ids.len(), routed.update));
    }
}

/// The text of a token as it is drawn.
fn spelled(routed: &Routed, id: u32) -> String {
    routed.text(id).map_or("\u{fffd}".into(), |text| text.replace('\n', "↵\n"))
}

/// The place of a token's kind.
fn kind(text: &str) -> usize {
    let inner = text.trim();
    match inner.chars().next() {
        None => 2,
        Some(_) if inner.chars().all(char::is_alphabetic) => 0,
        Some(_) if inner.chars().all(char::is_numeric) => 1,
        Some(_) if inner.chars().all(|c| c.is_ascii_punctuation() || ['–', '—', '…', '“', '”', '‘', '’'].contains(&c)) => 3,
        Some(_) => 4,
    }
}

impl Tables {
    fn of(routed: &Routed, layer: usize, experts: usize) -> Tables {
        let (k, all) = (routed.experts_per_token.max(1) as usize, &routed.experts[layer]);
        // Groups in order: kinds, then domains. For each: tokens, assignments by expert.
        let mut groups: BTreeMap<(bool, u32), (usize, Vec<f64>)> = BTreeMap::new();
        let mut by_token: BTreeMap<u32, (usize, Vec<usize>)> = BTreeMap::new();
        let mut totals = vec![0_usize; experts];
        let kinds: BTreeMap<u32, u32> = routed.tokens.iter().map(|(id, text)| (*id, kind(text) as u32)).collect();
        for (place, (id, chosen)) in routed.ids.iter().zip(all.chunks(k)).enumerate() {
            let of_kind = (false, kinds.get(id).copied().unwrap_or(4));
            let of_domain = routed.domains.get(place).map(|domain| (true, *domain));
            for group in std::iter::once(of_kind).chain(of_domain) {
                let (tokens, loads) = groups.entry(group).or_insert_with(|| (0, vec![0.0; experts]));
                *tokens += 1;
                for expert in chosen {
                    loads.get_mut(*expert as usize).into_iter().for_each(|load| *load += 1.0);
                }
            }
            let (tokens, counts) = by_token.entry(*id).or_insert_with(|| (0, vec![0; experts]));
            *tokens += 1;
            for expert in chosen.iter().map(|expert| *expert as usize).filter(|expert| *expert < experts) {
                counts[expert] += 1;
                totals[expert] += 1;
            }
        }
        let name =
            |(is_domain, number): (bool, u32)| if is_domain { format!("domain {number}") } else { KINDS[number as usize].to_string() };
        let share = |tokens: usize, loads: Vec<f64>| loads.iter().map(|load| load * experts as f64 / (tokens * k) as f64).collect();
        let loads = groups.into_iter().map(|(group, (tokens, loads))| (name(group), tokens, share(tokens, loads))).collect();
        let all_tokens = routed.ids.len().max(1) as f64;
        let typical = (0..experts).map(|expert| {
            let general = totals[expert] as f64 / all_tokens;
            let of = |(id, (tokens, counts)): (&u32, &(usize, Vec<usize>))| {
                let lift = counts[expert] as f64 / *tokens as f64 / general;
                (counts[expert] >= LEAST && lift > 1.0).then(|| (routed.text(*id).unwrap_or_default().to_string(), lift, counts[expert]))
            };
            let mut found: Vec<(String, f64, usize)> = by_token.iter().filter_map(of).collect();
            found.sort_by(|a, b| b.1.total_cmp(&a.1).then(b.2.cmp(&a.2)));
            found.into_iter().take(TYPICAL).map(|(token, lift, _)| (token, lift)).collect()
        });
        Tables { update: routed.update, layer, tokens: routed.ids.len(), loads, typical: typical.collect() }
    }

    fn show(&self, ui: &mut Ui) {
        let experts = self.typical.len();
        let has_domains = self.loads.iter().any(|(name, ..)| name.starts_with("domain"));
        widgets::group(ui, if has_domains { "Load by kind of token and by domain" } else { "Load by kind of token" });
        let heat = Heat {
            name: "Load by kind of token",
            about: format!("update {}, {} tokens", self.update, self.tokens),
            rows: self.loads.iter().map(|(name, tokens, _)| format!("{name} ({tokens})")).collect(),
            columns: (0..experts).step_by(experts.div_ceil(24).max(1)).map(|expert| (expert, expert.to_string())).collect(),
            heads: ("kind", &|expert| format!("expert {expert}")),
            loads: self.loads.iter().map(|(_, _, loads)| loads.clone()).collect(),
            marked: None,
            row_height: 22.0,
            has_values: true,
        };
        let (response, cell) = heat.show(ui);
        if let Some((row, expert)) = cell
            && let Some((name, tokens, loads)) = self.loads.get(row)
        {
            response.on_hover_text(format!("{name}, {tokens} tokens\nexpert {expert}: {:.2} of a fair share", loads[expert]));
        }
        legend(ui);
        widgets::group(ui, "Most typical tokens of each expert");
        widgets::quiet(ui, "How many times as often they go to it as a token does in general.");
        Grid::new("typical").striped(true).spacing([16.0, 6.0]).show(ui, |ui| {
            for (expert, tokens) in self.typical.iter().enumerate() {
                ui.label(RichText::new(format!("expert {expert}")).font(bold(size::BODY)));
                let words: Vec<String> = tokens.iter().map(|(token, lift)| format!("{token:?} {lift:.1}×")).collect();
                let text = if words.is_empty() { "none occurs often enough".to_string() } else { words.join("   ") };
                ui.add(egui::Label::new(RichText::new(text).font(mono(size::SMALL))).wrap());
                ui.end_row();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{Routed, Tables, kind};

    #[test]
    fn tokens_are_of_one_kind() {
        let kinds = ["a", " the", "12", " ", "\n", ".", " —", "a1", ""].map(kind);
        assert_eq!(kinds, [0, 0, 1, 2, 2, 3, 3, 4, 2]);
    }

    #[test]
    fn loads_and_typical_tokens_are_counted_by_hand() {
        // Token 0 is a letter and always goes to expert 1; token 1 is a digit and goes to expert 0 three times of four.
        let routed = Routed {
            ids: vec![0, 0, 0, 0, 1, 1, 1, 1],
            tokens: vec![(0, "a".to_string()), (1, "7".to_string())],
            domains: vec![5, 5, 5, 5, 5, 5, 6, 6],
            experts_per_token: 1,
            experts: vec![vec![1, 1, 1, 1, 0, 0, 0, 1]],
            ..Routed::default()
        };
        let tables = Tables::of(&routed, 0, 2);
        let expected =
            [("letters", 4, [0.0, 2.0]), ("digits", 4, [1.5, 0.5]), ("domain 5", 6, [2.0 / 3.0, 4.0 / 3.0]), ("domain 6", 2, [1.0, 1.0])];
        assert_eq!(tables.loads.len(), expected.len());
        for ((name, tokens, loads), found) in expected.iter().zip(&tables.loads) {
            assert_eq!((found.0.as_str(), found.1), (*name, *tokens));
            assert!(found.2.iter().zip(loads).all(|(found, expected)| (found - expected).abs() < 1e-12), "{name}: {:?}", found.2);
        }
        // Expert 0 takes 3 of 8 tokens; of the digits 3 of 4: twice as often.
        assert_eq!(tables.typical[0], [("7".to_string(), 2.0)]);
        assert_eq!(tables.typical[1], [("a".to_string(), 1.6)]);
    }
}
