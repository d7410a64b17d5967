//! Published results in the formats of their studies, as measurements. [`read`] recognises the format.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::study::{BEST_VAL_LOSS, Evaluation, Measured, Status, VAL_LOSS};

/// A run of exp8: `metrics.json`. Its steps are micro-batches.
#[derive(Deserialize)]
struct Metrics {
    experiment_config: Experiment,
    final_metrics: BTreeMap<String, f64>,
    #[serde(default)]
    total_time_minutes: Option<f64>,
    #[serde(default)]
    stopped_early: bool,
    actual_steps: u64,
    history: History,
}

#[derive(Deserialize)]
struct Experiment {
    max_steps: u64,
    #[serde(default)]
    use_early_stopping: bool,
    load_balancing_weight: f64,
    dropout: f64,
}

#[derive(Deserialize)]
struct History {
    steps: Vec<u64>,
    val_losses: Vec<f64>,
}

/// Text that is not in the format that it seems to have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: not {expected}: {message}")]
pub struct ImportError {
    /// The file or arm.
    pub name: String,
    /// The format.
    pub expected: &'static str,
    /// The reader's message.
    pub message: String,
}

/// Reads results in any of the formats of the studies: a `metrics.json`, or several by name; a table of runs by name; or a list of
/// measurements. `name` is the arm of a single run.
///
/// # Errors
/// Text of another format.
pub fn read(name: &str, text: &str) -> Result<Vec<Measured>, ImportError> {
    let not = |expected| move |error: serde_json::Error| ImportError { name: name.into(), expected, message: error.to_string() };
    let value: serde_json::Value = serde_json::from_str(text).map_err(not("JSON"))?;
    let is_metrics = |value: &serde_json::Value| value.get("experiment_config").is_some();
    match &value {
        serde_json::Value::Array(_) => serde_json::from_value(value).map_err(not("a list of measurements")),
        value if is_metrics(value) => Ok(vec![metrics(name, text)?]),
        serde_json::Value::Object(runs) if !runs.is_empty() && runs.values().all(is_metrics) => {
            runs.iter().map(|(arm, run)| metrics(arm, &run.to_string())).collect()
        }
        _ => table(text).map_err(not("a table of runs by name")),
    }
}

/// Reads `metrics.json` of exp8.
///
/// # Errors
/// Text that is not of this format.
fn metrics(arm: &str, text: &str) -> Result<Measured, ImportError> {
    let not = |error: serde_json::Error| ImportError { name: arm.into(), expected: "a metrics.json of exp8", message: error.to_string() };
    let read: Metrics = serde_json::from_str(text).map_err(not)?;
    let Experiment { max_steps, use_early_stopping, load_balancing_weight, dropout } = read.experiment_config;
    let mut metrics = read.final_metrics;
    metrics.extend(read.total_time_minutes.map(|minutes| ("minutes".to_owned(), minutes)));
    let best = read.history.val_losses.iter().copied().fold(f64::INFINITY, f64::min);
    if let Some(last) = metrics.get(VAL_LOSS).copied().filter(|_| best.is_finite()) {
        let best = best.min(last);
        metrics.insert(BEST_VAL_LOSS.into(), best);
        metrics.insert("degradation".into(), 100.0 * (last - best) / best);
    }
    let evaluation = |(at, loss): (&u64, &f64)| Evaluation { at: *at, metrics: BTreeMap::from([(VAL_LOSS.to_owned(), *loss)]) };
    Ok(Measured {
        arm: arm.into(),
        status: if read.stopped_early { Status::Stopped("early stopping".into()) } else { Status::Completed },
        recorded: BTreeMap::from([
            ("max_steps".to_owned(), max_steps as f64),
            ("load_balancing_weight".to_owned(), load_balancing_weight),
            ("dropout".to_owned(), dropout),
        ]),
        counts_micro_steps: true,
        length: Some((max_steps, read.actual_steps)),
        evaluations: read.history.steps.iter().zip(&read.history.val_losses).map(evaluation).collect(),
        metrics,
        may_stop_early: use_early_stopping,
        ..Measured::default()
    })
}

/// A run in a table of runs by name: `ablation_results.json` of the reasoning study, `lr_search_results.json` and
/// `expert_search_results.json` of exp3.
#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    success: Option<bool>,
    #[serde(default)]
    error: Option<String>,
    #[serde(flatten)]
    values: BTreeMap<String, serde_json::Value>,
}

/// Reads a table of runs by name. Every number of a run is a metric under its own name; a run with an error has failed.
///
/// # Errors
/// Text that is not of this format.
fn table(text: &str) -> Result<Vec<Measured>, serde_json::Error> {
    let rows: BTreeMap<String, Row> = serde_json::from_str(text)?;
    let measured = |(arm, row): (String, Row)| {
        let failed = row.error.is_some() || row.success == Some(false);
        let reason = row.error.unwrap_or_default().lines().next().unwrap_or_default().to_owned();
        Measured {
            arm,
            status: if failed { Status::Failed(reason) } else { Status::Completed },
            metrics: row.values.into_iter().filter_map(|(name, value)| Some((name, value.as_f64()?))).collect(),
            ..Measured::default()
        }
    };
    Ok(rows.into_iter().map(measured).collect())
}
