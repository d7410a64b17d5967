//! `report.md`: what was run, how it ended, and how good the result is.
//!
//! The first sentence is the result. Losses are compared with the baselines and, if it is known, with the entropy of the source.
//! Untrusted text (names, samples, adapter, config) is escaped or fenced, so a sample cannot become a heading or an image.

use super::chart::thousands;
use super::overview::{INCIDENTS, Overview, Recent};
use crate::run::records::SampleRecord;
use crate::run::routing::gate_load_distance;
use crate::run::series::{Axis, Series};
use crate::run::summary::{Baselines, Summary};
use std::fmt::Write;

/// An expert with less than this fraction of its fair share counts as starved.
const STARVED: f64 = 0.1;

/// The inputs of a report.
pub struct Report<'a> {
    /// How it ended.
    pub summary: &'a Summary,
    /// The data from its log.
    pub overview: &'a Overview,
    /// The effective config, as TOML.
    pub config: &'a str,
    /// File name of the loss plot next to the report.
    pub plot: Option<&'a str>,
}

impl Report<'_> {
    /// The report as Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("writing to a String cannot fail");
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let (summary, overview) = (self.summary, self.overview);
        writeln!(text, "# {}\n\n{}\n", inline(&summary.name), verdict(summary))?;
        let routers = Routers::of(self.config);
        let warnings = self.warnings(&routers);
        if !warnings.is_empty() {
            writeln!(text, "## Warnings\n\n- {}\n", warnings.join("\n- "))?;
        }
        write_losses(text, summary, overview)?;
        if let Some(plot) = self.plot {
            writeln!(text, "![Training and validation loss by update]({plot})\n")?;
        }
        write_series(text, overview)?;
        self.write_routing(text, &routers)?;
        self.write_experts(text, &routers)?;
        write_samples(text, overview)?;
        if !overview.incidents.is_empty() {
            writeln!(text, "## Incidents\n")?;
            for incident in &overview.incidents {
                writeln!(text, "- after update {}, {}: {}", incident.update, incident.incident.words(), inline(&incident.detail))?;
            }
            if let Some(more) = overview.incident_count.checked_sub(INCIDENTS + 1) {
                writeln!(text, "- and {} more in `metrics.jsonl`", more + 1)?;
            }
            writeln!(text)?;
        }
        write_origin(text, summary)?;
        writeln!(text, "## Config\n\n{}", fenced("toml", self.config))
    }

    /// Reasons to doubt the result.
    fn warnings(&self, routers: &Routers) -> Vec<String> {
        let (summary, overview) = (self.summary, self.overview);
        let mut warnings = Vec::new();
        if summary.skipped_updates > 0 {
            let at: Vec<String> = overview.not_finite.iter().map(u32::to_string).collect();
            let skipped = summary.skipped_updates;
            warnings.push(format!("Updates skipped for a non-finite loss or gradient: {skipped} (first: {}).", at.join(", ")));
        }
        if summary.rollbacks > 0 {
            warnings.push(format!("The run rolled back to a checkpoint {} times.", summary.rollbacks));
        }
        if !summary.changes.is_empty() {
            let changes: Vec<String> =
                summary.changes.iter().map(|change| format!("{} (after update {})", inline(&change.to_string()), change.update)).collect();
            warnings.push(format!("Settings were changed during the run, so it is not a run of a single config: {}.", changes.join("; ")));
        }
        if overview.evals_not_finite > 0 {
            warnings.push(format!("{} of {} evaluations were not finite.", overview.evals_not_finite, overview.evals));
        }
        match (summary.final_val_ce, summary.best_val_ce, summary.best_update) {
            (None, ..) => warnings.push("The final validation loss is unknown.".to_string()),
            (Some(ce), ..) if summary.baselines.is_some_and(|baselines| ce >= baselines.bigram) => {
                warnings.push("The model is no better than counting pairs of tokens.".to_string());
            }
            (Some(ce), Some(best), Some(update)) if ce > best + 0.02 => {
                warnings.push(format!("The final loss is {:.4} above the best, at update {update}: the loss rose again.", ce - best));
            }
            _ => {}
        }
        if let (Some(best), Some(entropy)) = (summary.best_val_ce, summary.baselines.and_then(|baselines| baselines.entropy))
            && best < entropy - 0.01
        {
            warnings.push("The loss is below the entropy of the source: the validation text leaked, or is too short.".to_string());
        }
        for (incident, update) in &summary.routing_alarms {
            warnings.push(format!("From update {update} on: {} (see the incidents below).", incident.words()));
        }
        for (layer, load) in rows(overview, "expert_load").enumerate() {
            let starved = load.iter().filter(|share| **share * (load.len() as f64) < STARVED).count();
            if starved > 0 {
                let fair = 100.0 * STARVED;
                let (router, experts) = (capitalized(&routers.name(layer, rows(overview, "expert_load").count())), load.len());
                warnings.push(format!("{router}: {starved} of {experts} experts received less than {fair:.0} % of a fair share."));
            }
        }
        warnings
    }

    /// The state of each router at the last evaluation: one row for each call, one column for each series of layers.
    fn write_routing(&self, text: &mut String, routers: &Routers) -> std::fmt::Result {
        let columns = routing_columns(self.overview);
        let Some((eval, calls)) = self.overview.last_eval.as_ref().zip(columns.first().map(|(.., values)| values.len())) else {
            return Ok(());
        };
        writeln!(
            text,
            "## Routing\n\nAt the evaluation after update {}, with one row for each router call of a forward pass.",
            eval.update
        )?;
        for (index, (incident, update)) in self.summary.routing_alarms.iter().enumerate() {
            let before = if index == 0 { "\n" } else { "" };
            writeln!(text, "{before}- **Alarm: {} from update {update} on.**", incident.words())?;
        }
        let names: Vec<String> = columns.iter().map(|(name, ..)| format!("`{name}`")).collect();
        writeln!(text, "\n| router | {} |\n|---|{}", names.join(" | "), "---:|".repeat(names.len()))?;
        for call in 0..calls {
            let cell = |values: &Vec<f64>| {
                values.get(call).map_or(String::new(), |value| if value.is_nan() { String::new() } else { short(*value) })
            };
            let cells: Vec<String> = columns.iter().map(|(.., values)| cell(values)).collect();
            writeln!(text, "| {} | {} |", routers.name(call, calls), cells.join(" | "))?;
        }
        writeln!(text)?;
        for (name, doc, _) in &columns {
            writeln!(text, "- `{name}`: {doc}")?;
        }
        writeln!(text)
    }

    /// One table for each series of experts, with a column for each series of layers in the first.
    fn write_experts(&self, text: &mut String, routers: &Routers) -> std::fmt::Result {
        let overview = self.overview;
        let with_axes = |axes: &'static [Axis]| overview.recent.iter().filter(move |(series, _)| series.axes == axes);
        let mut columns: Vec<&(&Series, Recent)> = with_axes(&[Axis::Layer]).collect();
        let mut is_first = true;
        for (series, recent) in with_axes(&[Axis::Layer, Axis::Expert]) {
            let experts = recent.shape.last().copied().unwrap_or_default();
            if experts < 2 {
                continue;
            }
            if is_first {
                writeln!(text, "## Experts\n")?;
                is_first = false;
            }
            let is_share = series.unit.starts_with("share");
            let (title, scale) = match is_share {
                true => ("in percent of a fair share (100 is balanced)".to_string(), 100.0 * experts as f64),
                false => (format!("in {}", series.unit), 1.0),
            };
            writeln!(text, "`{}` {title}, mean over the last tenth of the updates.", series.name)?;
            writeln!(text, "{}", series.doc())?;
            for (column, _) in &columns {
                let unit = if column.unit.is_empty() { String::new() } else { format!("in {}, ", column.unit) };
                writeln!(text, "`{}` {unit}in the last update: {}", column.name, column.doc())?;
            }
            let names: Vec<String> = (0..experts).map(|expert| expert.to_string()).collect();
            let names = names.into_iter().chain(columns.iter().map(|(column, _)| format!("`{}`", column.name)));
            let names: Vec<String> = names.collect();
            writeln!(text, "\n| router | {} |\n|---|{}", names.join(" | "), "---:|".repeat(names.len()))?;
            let layers = by_layer(recent).len();
            for (layer, row) in by_layer(recent).enumerate() {
                let cell = |value: &f64| if is_share { format!("{:.0}", value * scale) } else { format!("{value:.3}") };
                let of_layer =
                    columns.iter().map(|(_, column)| column.last.get(layer).map_or(String::new(), |value| format!("{value:.3}")));
                let cells: Vec<String> = row.iter().map(cell).chain(of_layer).collect();
                writeln!(text, "| {} | {} |", routers.name(layer, layers), cells.join(" | "))?;
            }
            writeln!(text)?;
            columns.clear();
        }
        Ok(())
    }
}

/// A name, its definition, and a value for each router call at the last evaluation.
type RoutingColumn = (&'static str, &'static str, Vec<f64>);

/// The series of evaluations with a value per router call, the gradient norms of the last update, and the distance of gate mass and load.
fn routing_columns(overview: &Overview) -> Vec<RoutingColumn> {
    let by_call = overview.routing.iter().filter(|(series, _)| series.axes == [Axis::Layer]);
    let mut columns: Vec<RoutingColumn> = by_call.map(|(series, values)| (series.name, series.doc(), values.clone())).collect();
    let Some(calls) = columns.first().map(|(.., values)| values.len().max(1)) else { return columns };
    let gradient = overview.recent.iter().find(|(series, _)| series.name == "router_grad_norm");
    columns.extend(gradient.map(|(series, recent)| (series.name, series.doc(), recent.last.clone())));
    let of_experts = |name: &str| overview.routing.iter().find(|(series, _)| series.name == name).map(|(_, values)| values);
    if let Some((mass, load)) = of_experts("gate_mass").zip(of_experts("expert_load")) {
        let rows = |values: &'_ [f64]| values.chunks((values.len() / calls).max(1)).map(<[f64]>::to_vec).collect::<Vec<_>>();
        let distances = rows(mass).iter().zip(rows(load)).map(|(mass, load)| gate_load_distance(mass, &load)).collect();
        columns.push((
            "gate_load_distance",
            "Half the sum over experts of |gate mass - load|; 0 if every expert weighs as much as it is used.",
            distances,
        ));
    }
    columns
}

/// The names of the router calls of a model.
struct Routers(Vec<String>);

impl Routers {
    /// Those of an effective config; none if it cannot be read.
    fn of(config: &str) -> Routers {
        let config = crate::run::config::load(&|_| Ok(config.to_string()), "config", &[]);
        Routers(config.map(|config| config.model.router_labels()).unwrap_or_default())
    }

    /// The name of a call, one of so many.
    fn name(&self, call: usize, calls: usize) -> String {
        self.0.get(call).filter(|_| self.0.len() == calls).cloned().unwrap_or_else(|| format!("layer {call}"))
    }
}

/// The result of the run, in a sentence or two; a blow-up comes first.
fn verdict(summary: &Summary) -> String {
    let mut text = String::new();
    if summary.forced_balance {
        let _ = write!(
            text,
            "**Tokens were assigned to experts in turn (`model.router.force_balance`): this run measures throughput, its losses are no result.** "
        );
    }
    if let Some(update) = summary.blew_up_at {
        let _ = write!(text, "**The run blew up: from update {update} on its loss was far too high** (see the incidents below). ");
    }
    let _ = write!(text, "The run {}", summary.exit.words());
    if let Some(detail) = &summary.detail {
        let _ = write!(text, " ({})", inline(detail));
    }
    let Some(ce) = summary.final_val_ce else {
        return text + ". There is no evaluation after its last update.";
    };
    let _ = write!(
        text,
        ". After {} updates ({} tokens) its validation cross-entropy is **{ce:.4} nats per token**",
        thousands(u64::from(summary.updates)),
        thousands(summary.tokens)
    );
    if let Some(Baselines { bigram, entropy, .. }) = summary.baselines {
        let side = if ce < bigram { "below" } else { "above" };
        let _ = write!(text, ", {:.4} {side} the bigram baseline", (ce - bigram).abs());
        if let Some(entropy) = entropy {
            let _ = write!(text, " and {:.4} above the entropy of the source", ce - entropy);
            if bigram > entropy && ce < bigram {
                let share = 100.0 * (bigram - ce) / (bigram - entropy);
                let _ = write!(text, ": {share:.0} % of the distance between the two");
            }
        }
    }
    text + "."
}

fn write_losses(text: &mut String, summary: &Summary, overview: &Overview) -> std::fmt::Result {
    let reference = summary.final_val_ce;
    writeln!(text, "## Losses\n\n| | nats per token | perplexity | final loss minus this |\n|---|---:|---:|---:|")?;
    let mut row = |name: &str, ce: Option<f64>, compare: bool| match ce {
        None => Ok(()),
        Some(ce) => {
            let difference = reference.filter(|_| compare).map_or(String::new(), |f| format!("{:+.4}", f - ce));
            writeln!(text, "| {name} | {ce:.4} | {:.2} | {difference} |", ce.exp())
        }
    };
    for (name, ce) in summary.baselines.iter().flat_map(Baselines::named) {
        row(name, Some(ce), true)?;
    }
    let best = summary.best_update.map_or("best".to_string(), |update| format!("best, at update {update}"));
    row(&best, summary.best_val_ce, true)?;
    row("**final**", summary.final_val_ce, false)?;
    row("entropy of the source", summary.baselines.and_then(|baselines| baselines.entropy), true)?;
    writeln!(text)?;
    if let Some(eval) = &overview.last_eval {
        let (targets, accuracy) = (thousands(eval.targets), 100.0 * eval.accuracy);
        writeln!(text, "Validation: {targets} targets, accuracy {accuracy:.1} % (at update {}).\n", eval.update)?;
    }
    Ok(())
}

/// The mean of each layer's experts over the last tenth of the updates.
fn rows<'a>(overview: &'a Overview, key: &str) -> impl Iterator<Item = &'a [f64]> {
    let recent = overview.recent.iter().find(|(series, _)| series.key() == key).map(|(_, recent)| recent);
    recent.into_iter().flat_map(by_layer)
}

fn by_layer(recent: &Recent) -> std::slice::Chunks<'_, f64> {
    recent.mean.chunks(recent.shape.last().copied().unwrap_or(1).max(1))
}

/// One row for each series without axes, summarised as the table of series says.
fn write_series(text: &mut String, overview: &Overview) -> std::fmt::Result {
    if overview.recent.is_empty() {
        return Ok(());
    }
    writeln!(text, "## Series\n\n| of updates | unit | value | |\n|---|---|---:|---|")?;
    for (series, recent) in overview.recent.iter().filter(|(series, _)| !series.is_array()) {
        let value = recent.summary(series.summarized).first().map_or(String::new(), |value| short(*value));
        writeln!(text, "| `{}` | {} | {value} | {} |", series.name, series.unit, series.summarized.words())?;
    }
    writeln!(text)
}

/// A number with five digits, or all digits of an integer.
fn short(value: f64) -> String {
    match value {
        value if !value.is_finite() => "not finite".to_string(),
        value if value.fract() == 0.0 && value.abs() < 1e15 => format!("{value}"),
        value if (1e-3..1e6).contains(&value.abs()) => {
            format!("{:.*}", (4 - value.abs().log10().floor() as i32).clamp(0, 8) as usize, value)
        }
        value => format!("{value:.4e}"),
    }
}

fn write_samples(text: &mut String, overview: &Overview) -> std::fmt::Result {
    if overview.samples.is_empty() {
        return Ok(());
    }
    writeln!(text, "## Samples\n")?;
    for sample in &overview.samples {
        let SampleRecord { update, temperature, top_p, .. } = sample;
        let prompt = if sample.prompt.is_empty() { "no prompt".to_string() } else { format!("prompt {}", inline(&sample.prompt)) };
        writeln!(text, "After update {update}, temperature {temperature}, top-p {top_p}, {prompt}:\n")?;
        writeln!(text, "{}", fenced("text", &sample.text))?;
    }
    Ok(())
}

fn write_origin(text: &mut String, summary: &Summary) -> std::fmt::Result {
    let rows = [
        ("adapter", summary.adapter.clone()),
        ("driver", summary.driver.clone()),
        ("tokens per second", summary.tokens_per_second.map(|rate| thousands(rate.round() as u64)).unwrap_or_default()),
        ("moelab", summary.version.clone()),
        ("SHA-256 of the final weights", summary.weights_sha256.clone().unwrap_or_default()),
        ("of the config", summary.config_sha256.clone()),
        ("of the data", summary.data_sha256.clone()),
        ("of the tokenizer", summary.tokenizer_sha256.clone()),
    ];
    writeln!(text, "## Origin\n\n| | |\n|---|---|")?;
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(text, "| {name} | {} |", inline(value))?;
    }
    writeln!(text)
}

fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

/// Untrusted text within a line: no Markdown, no HTML, no line break.
pub(super) fn inline(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\n' | '\r' | '\t' => escaped.push(' '),
            other if other.is_control() => escaped.push('\u{fffd}'),
            other if "\\`*_{}[]()#+!|~$".contains(other) => escaped.extend(['\\', other]),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Untrusted text as a block: the fence is longer than any run of backticks in it.
pub(super) fn fenced(language: &str, text: &str) -> String {
    let longest = text.split(|character| character != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat((longest + 1).max(3));
    let visible = |character: char| if character.is_control() && character != '\n' && character != '\t' { '\u{fffd}' } else { character };
    let body: String = text.trim_end_matches('\n').chars().map(visible).collect();
    format!("{fence}{language}\n{body}\n{fence}\n")
}
