//! CSV (RFC 4180, UTF-8, LF): a table with a row for each run, and one in long form with a row for each evaluation.
//!
//! Numbers have all their digits (the shortest decimal that reads back as the same float), so that a reader has the bits of the log. A value
//! that was not measured is an empty field; one that is not finite is `nan`, `inf` or `-inf`, as pandas reads it.
//!
//! A text that a spreadsheet would take for a formula (it starts with `=`, `+`, `-`, `@`, a tab or a carriage return) is written with an
//! apostrophe in front, because names come from outside.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::name_of;
use crate::config_file::{self, Class};
use crate::lab::measured::MeasuredRun;

/// One row for each run: its summary and its settings that differ from the defaults.
pub fn runs(runs: &[MeasuredRun]) -> String {
    let settings: Vec<BTreeMap<String, String>> = runs.iter().map(settings).collect();
    let mut keys: Vec<&String> = settings.iter().flat_map(BTreeMap::keys).collect();
    keys.sort();
    keys.dedup();
    let head = [
        "run",
        "arm",
        "seed",
        "status",
        "detail",
        "updates",
        "skipped_updates",
        "tokens",
        "final_val_ce",
        "best_val_ce",
        "best_update",
        "tokens_per_second",
        "uniform",
        "unigram",
        "bigram",
        "entropy",
        "adapter",
        "driver",
        "version",
        "config_sha256",
        "data_sha256",
        "tokenizer_sha256",
        "weights_sha256",
    ];
    let mut text = row(head.iter().map(|name| name.to_string()).chain(keys.iter().map(|key| quoted(key))));
    for (run, settings) in runs.iter().zip(&settings) {
        let summary = run.summary.as_ref();
        let number = |value: Option<f64>| value.map(float).unwrap_or_default();
        let of = |value: fn(&crate::run::summary::Summary) -> String| summary.map(value).unwrap_or_default();
        let baselines = summary.and_then(|summary| summary.baselines);
        let cells = [
            quoted(&run.id),
            quoted(&run.arm),
            run.seed.to_string(),
            summary.map_or("unfinished".to_string(), |summary| name_of(&summary.exit)),
            of(|summary| quoted(summary.detail.as_deref().unwrap_or_default())),
            of(|summary| summary.updates.to_string()),
            of(|summary| summary.skipped_updates.to_string()),
            of(|summary| summary.tokens.to_string()),
            number(summary.and_then(|summary| summary.final_val_ce)),
            number(summary.and_then(|summary| summary.best_val_ce)),
            of(|summary| summary.best_update.map(|update| update.to_string()).unwrap_or_default()),
            number(summary.and_then(|summary| summary.tokens_per_second)),
            number(baselines.map(|baselines| baselines.uniform)),
            number(baselines.map(|baselines| baselines.unigram)),
            number(baselines.map(|baselines| baselines.bigram)),
            number(baselines.and_then(|baselines| baselines.entropy)),
            of(|summary| quoted(&summary.adapter)),
            of(|summary| quoted(&summary.driver)),
            of(|summary| quoted(&summary.version)),
            of(|summary| summary.config_sha256.clone()),
            of(|summary| summary.data_sha256.clone()),
            of(|summary| summary.tokenizer_sha256.clone()),
            of(|summary| summary.weights_sha256.clone().unwrap_or_default()),
        ];
        let swept = keys.iter().map(|key| settings.get(*key).map(|value| quoted(value)).unwrap_or_default());
        text += &row(cells.into_iter().chain(swept));
    }
    text
}

/// One row for each evaluation of each run.
pub fn evaluations(runs: &[MeasuredRun]) -> String {
    let mut text = "run,arm,seed,update,tokens,flop,seconds,val_ce,accuracy,targets\n".to_string();
    for run in runs {
        for eval in &run.evals {
            let cells = [
                quoted(&run.id),
                quoted(&run.arm),
                run.seed.to_string(),
                eval.update.to_string(),
                float(eval.tokens),
                float(eval.flop),
                float(eval.seconds),
                float(eval.val_ce),
                float(eval.accuracy),
                eval.targets.to_string(),
            ];
            text += &row(cells.into_iter());
        }
    }
    text
}

/// The settings of a run that differ from the defaults, as TOML literals, without bookkeeping.
fn settings(run: &MeasuredRun) -> BTreeMap<String, String> {
    let mut settings = config_file::settings(&run.config);
    settings.remove(&Class::Bookkeeping);
    settings.into_values().flatten().collect()
}

fn row(cells: impl Iterator<Item = String>) -> String {
    let mut text = String::new();
    for (i, cell) in cells.enumerate() {
        let comma = if i > 0 { "," } else { "" };
        let _ = write!(text, "{comma}{cell}");
    }
    text + "\n"
}

fn float(value: f64) -> String {
    match value {
        value if value.is_nan() => "nan".into(),
        value if value.is_infinite() => if value > 0.0 { "inf" } else { "-inf" }.into(),
        value => format!("{value}"),
    }
}

/// A text as a field.
fn quoted(text: &str) -> String {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']) && text.parse::<f64>().is_err();
    let text = if is_formula { format!("'{text}") } else { text.to_string() };
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}
