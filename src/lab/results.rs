//! The results of the runs of a study, read from their folders.

use super::{
    evaluation::{Collector, EvalPoint},
    files::EFFECTIVE_CONFIG,
    overview::Overview,
    reader::Reader,
    report::Report,
    store::{Store, StoreError},
};
use crate::run::{
    Config,
    suite::{Axis, Metric},
    summary::{ExitReason, Summary},
};

/// Name of the file with the result of a run.
const SUMMARY: &str = "summary.json";

/// The evaluations of a run, in order. Their tokens are those of full batches, as in the plan of a study.
///
/// # Errors
/// If the log cannot be read.
pub fn evaluations(store: &dyn Store, config: &Config) -> Result<Vec<EvalPoint>, StoreError> {
    let tokens = config.tokens_per_update() as f64;
    let reader = Reader::open(store)?;
    let (mut collector, mut points) = (Collector::new(config), Vec::new());
    for event in reader.events() {
        points.extend(collector.note(&event?).map(|point| EvalPoint { tokens: tokens * f64::from(point.update), ..point }));
    }
    Ok(points)
}

/// The metric of a run as of a position on an axis: from its evaluations at or before it. `None` if there is none, or if the run did not
/// get that far.
pub fn metric_at(points: &[EvalPoint], metric: Metric, axis: Axis, x: f64) -> Option<f64> {
    let reached = points.last()?.x(axis);
    let by_then = points.iter().take_while(|point| point.x(axis) <= x).map(|point| point.val_ce);
    if reached < x {
        return None;
    }
    match metric {
        Metric::FinalCe => by_then.last(),
        Metric::BestCe => by_then.filter(|ce| ce.is_finite()).min_by(f64::total_cmp),
    }
}

/// The summary of a run; `None` if it has not ended yet.
///
/// # Errors
/// If the file cannot be read or is not a summary.
pub fn summary(store: &dyn Store) -> Result<Option<Summary>, StoreError> {
    let Some(bytes) = store.read(SUMMARY)? else { return Ok(None) };
    let unreadable = |error| StoreError::Unreadable(format!("{SUMMARY} is damaged: {error}. `moelab resume` writes it again"));
    serde_json::from_slice(&bytes).map(Some).map_err(unreadable)
}

/// Records in a run's summary and report that a gate stopped it. The run must have ended; it can still be resumed.
///
/// # Errors
/// If the folder cannot be read or written.
pub fn conclude(store: &mut dyn Store, reason: &str) -> Result<(), StoreError> {
    let Some(mut summary) = summary(store)? else { return Ok(()) };
    summary.exit = ExitReason::StoppedByGate;
    summary.detail = Some(reason.to_string());
    let overview = Overview::of(store)?;
    let config = store.read(EFFECTIVE_CONFIG)?.unwrap_or_default();
    let plot = store.read("loss.svg")?.map(|_| "loss.svg");
    let report = Report { summary: &summary, overview: &overview, config: &String::from_utf8_lossy(&config), plot }.to_markdown();
    for (name, text) in [("report.md", report), (SUMMARY, summary.to_json())] {
        let draft = format!("{name}.tmp-gate");
        store.write(&draft, text.as_bytes())?;
        store.sync(&draft)?;
        store.rename(&draft, name)?;
    }
    store.sync("")
}
