//! `report.md`: what was run, how it ended, and what it is worth, for a reader who was not there.
//!
//! The first sentence is the result. Every loss is held against the baselines, and where the entropy of the source is known,
//! against what is left to learn. Whatever came from outside (names, samples, adapter, config) is escaped or fenced, so a sample
//! cannot become a heading or an image.

use super::plot::thousands;
use crate::run::records::{EvalRecord, Event, Incident, IncidentRecord, SampleRecord, UpdateRecord};
use crate::run::summary::{Baselines, Summary};
use std::fmt::Write;

/// An expert with less than this part of its fair share is called starved.
const STARVED: f64 = 0.1;
const SAMPLES_SHOWN: usize = 5;
const INCIDENTS_SHOWN: usize = 20;

/// The material of a report.
pub struct Report<'a> {
    /// How it ended.
    pub summary: &'a Summary,
    /// Every line of the metrics.
    pub events: &'a [Event],
    /// The effective config, as TOML.
    pub config: &'a str,
    /// File name of the loss plot beside the report.
    pub plot: Option<&'a str>,
}

/// The events, sorted by kind.
#[derive(Default)]
struct Lines<'a> {
    updates: Vec<&'a UpdateRecord>,
    evals: Vec<&'a EvalRecord>,
    samples: Vec<&'a SampleRecord>,
    incidents: Vec<&'a IncidentRecord>,
}

impl Report<'_> {
    /// The report as Markdown.
    pub fn to_markdown(&self) -> String {
        let mut lines = Lines::default();
        for event in self.events {
            match event {
                Event::Header(_) => {}
                Event::Update(record) => lines.updates.push(record),
                Event::Eval(record) => lines.evals.push(record),
                Event::Sample(record) => lines.samples.push(record),
                Event::Incident(record) => lines.incidents.push(record),
            }
        }
        let mut text = String::new();
        self.write(&mut text, &lines).expect("writing to a String cannot fail");
        text
    }

    fn write(&self, text: &mut String, lines: &Lines) -> std::fmt::Result {
        let summary = self.summary;
        writeln!(text, "# {}\n\n{}\n", inline(&summary.name), verdict(summary))?;
        let warnings = warnings(summary, lines);
        if !warnings.is_empty() {
            writeln!(text, "## Warnings\n\n- {}\n", warnings.join("\n- "))?;
        }
        write_losses(text, summary, lines)?;
        if let Some(plot) = self.plot {
            writeln!(text, "![Training and validation loss by update]({plot})\n")?;
        }
        write_experts(text, lines)?;
        write_samples(text, lines)?;
        if !lines.incidents.is_empty() {
            writeln!(text, "## Incidents\n")?;
            for incident in lines.incidents.iter().take(INCIDENTS_SHOWN) {
                writeln!(text, "- after update {}, {}: {}", incident.update, incident.incident.words(), inline(&incident.detail))?;
            }
            if let Some(more) = lines.incidents.len().checked_sub(INCIDENTS_SHOWN + 1) {
                writeln!(text, "- and {} more in `metrics.jsonl`", more + 1)?;
            }
            writeln!(text)?;
        }
        write_origin(text, summary)?;
        writeln!(text, "## Config\n\n{}", fenced("toml", self.config))
    }
}

/// What became of the run, in a sentence or two; a blow-up is the first of them.
fn verdict(summary: &Summary) -> String {
    let mut text = String::new();
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
        ". After {} updates ({} tokens) its validation cross-entropy is **{ce:.4} nats a token**",
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
                let _ = write!(text, ": it learnt {share:.0} % of what lies between the two");
            }
        }
    }
    text + "."
}

/// Everything that should make a reader doubt the result.
fn warnings(summary: &Summary, lines: &Lines) -> Vec<String> {
    let mut warnings = Vec::new();
    if summary.skipped_updates > 0 {
        let at = lines.incidents.iter().filter(|line| line.incident == Incident::NonFinite);
        let at: Vec<String> = at.take(5).map(|line| line.update.to_string()).collect();
        let skipped = summary.skipped_updates;
        warnings.push(format!("Updates skipped for a non-finite loss or gradient: {skipped} (first: {}).", at.join(", ")));
    }
    if summary.rollbacks > 0 {
        warnings.push(format!("The run went back to a checkpoint {} times.", summary.rollbacks));
    }
    if !summary.changes.is_empty() {
        let changes: Vec<String> =
            summary.changes.iter().map(|change| format!("{} (after update {})", inline(&change.to_string()), change.update)).collect();
        warnings.push(format!("Settings were changed on the way, so this is no run of one config: {}.", changes.join("; ")));
    }
    let not_finite = lines.evals.iter().filter(|eval| !eval.val_ce.is_finite()).count();
    if not_finite > 0 {
        warnings.push(format!("{not_finite} of {} evaluations were not finite.", lines.evals.len()));
    }
    match (summary.final_val_ce, summary.best_val_ce, summary.best_update) {
        (None, ..) => warnings.push("The final validation loss is unknown.".to_string()),
        (Some(ce), ..) if summary.baselines.is_some_and(|baselines| ce >= baselines.bigram) => {
            warnings.push("The model is no better than counting pairs of tokens.".to_string());
        }
        (Some(ce), Some(best), Some(update)) if ce > best + 0.02 => {
            warnings.push(format!("The final loss is {:.4} above the best, at update {update}: it got worse again.", ce - best));
        }
        _ => {}
    }
    if let (Some(best), Some(entropy)) = (summary.best_val_ce, summary.baselines.and_then(|baselines| baselines.entropy))
        && best < entropy - 0.01
    {
        warnings.push("The loss is below the entropy of the source: the validation text leaked, or is too short.".to_string());
    }
    let loads = mean_loads(&lines.updates);
    for (layer, load) in loads.iter().enumerate() {
        let starved = load.iter().filter(|share| **share * (load.len() as f64) < STARVED).count();
        if starved > 0 {
            let fair = 100.0 * STARVED;
            warnings.push(format!("Layer {layer}: {starved} of {} experts took less than {fair:.0} % of a fair share.", load.len()));
        }
    }
    warnings
}

fn write_losses(text: &mut String, summary: &Summary, lines: &Lines) -> std::fmt::Result {
    let reference = summary.final_val_ce;
    writeln!(text, "## Losses\n\n| | nats a token | perplexity | final loss against it |\n|---|---:|---:|---:|")?;
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
    if let Some(eval) = lines.evals.last() {
        let (targets, accuracy) = (thousands(eval.targets), 100.0 * eval.accuracy);
        writeln!(text, "Validation: {targets} targets, accuracy {accuracy:.1} % (at update {}).\n", eval.update)?;
    }
    Ok(())
}

/// Mean share of each expert [L][E] over the last tenth of the updates.
fn mean_loads(updates: &[&UpdateRecord]) -> Vec<Vec<f64>> {
    let window = &updates[updates.len() - updates.len().div_ceil(10)..];
    let Some(last) = window.last() else { return Vec::new() };
    let mean = |layer: usize, expert: usize| {
        let shares = window.iter().filter_map(|update| update.expert_load.get(layer)?.get(expert));
        let finite: Vec<f64> = shares.map(|share| f64::from(*share)).filter(|share| share.is_finite()).collect();
        finite.iter().sum::<f64>() / finite.len().max(1) as f64
    };
    let layers = last.expert_load.iter().enumerate();
    layers.map(|(layer, load)| (0..load.len()).map(|expert| mean(layer, expert)).collect()).collect()
}

fn write_experts(text: &mut String, lines: &Lines) -> std::fmt::Result {
    let loads = mean_loads(&lines.updates);
    let Some(experts) = loads.iter().map(Vec::len).max().filter(|&experts| experts > 1) else { return Ok(()) };
    writeln!(text, "## Experts\n\nLoad in percent of a fair share (100 is balanced), mean over the last tenth of the updates;")?;
    writeln!(text, "entropy of the router in nats, at most ln E, in the last update.\n")?;
    let names: Vec<String> = (0..experts).map(|expert| expert.to_string()).collect();
    writeln!(text, "| layer | {} | entropy |\n|---|{}---:|", names.join(" | "), "---:|".repeat(experts))?;
    let entropies = lines.updates.last().map(|update| update.router_entropy.as_slice()).unwrap_or_default();
    for (layer, load) in loads.iter().enumerate() {
        let cells: Vec<String> = load.iter().map(|share| format!("{:.0}", 100.0 * share * load.len() as f64)).collect();
        let entropy = entropies.get(layer).map_or(String::new(), |entropy| format!("{entropy:.3}"));
        let padding = " |".repeat(experts - load.len());
        writeln!(text, "| {layer} | {} |{padding} {entropy} |", cells.join(" | "))?;
    }
    writeln!(text)
}

fn write_samples(text: &mut String, lines: &Lines) -> std::fmt::Result {
    if lines.samples.is_empty() {
        return Ok(());
    }
    writeln!(text, "## Samples\n")?;
    for sample in lines.samples.iter().rev().take(SAMPLES_SHOWN).rev() {
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
        ("tokens a second", summary.tokens_per_second.map(|rate| thousands(rate.round() as u64)).unwrap_or_default()),
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

/// Text from outside within a line: no Markdown, no HTML, no line break.
fn inline(text: &str) -> String {
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

/// Text from outside as a block: the fence is longer than any run of backticks in it.
fn fenced(language: &str, text: &str) -> String {
    let longest = text.split(|character| character != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat((longest + 1).max(3));
    let visible = |character: char| if character.is_control() && character != '\n' && character != '\t' { '\u{fffd}' } else { character };
    let body: String = text.trim_end_matches('\n').chars().map(visible).collect();
    format!("{fence}{language}\n{body}\n{fence}\n")
}
