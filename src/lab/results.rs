//! The results of the runs of a study, read from their folders.

use serde::{Deserialize, Serialize};

use super::{
    files::EFFECTIVE_CONFIG,
    overview::Overview,
    reader::Reader,
    report::Report,
    store::{Store, StoreError},
};
use crate::run::{
    Config,
    records::Event,
    suite::{Axis, Metric, flop_per_update},
    summary::{ExitReason, Summary},
};

/// Name of the file with the result of a run.
const SUMMARY: &str = "summary.json";

/// An evaluation and what the run had spent by then.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalPoint {
    /// Optimizer updates.
    pub update: u32,
    /// Training tokens, at full batches.
    pub tokens: f64,
    /// Floating-point operations of training.
    pub flop: f64,
    /// Seconds of training, evaluations and checkpoints included.
    pub seconds: f64,
    /// Validation cross-entropy, nats per token.
    pub val_ce: f64,
    /// Number of targets that it is a mean of.
    pub targets: u64,
}

impl EvalPoint {
    /// The position on an axis.
    pub fn x(&self, axis: Axis) -> f64 {
        match axis {
            Axis::Updates => f64::from(self.update),
            Axis::Tokens => self.tokens,
            Axis::Flops => self.flop,
            Axis::Seconds => self.seconds,
        }
    }
}

/// The evaluations of a run, in order.
///
/// # Errors
/// If the log cannot be read.
pub fn evaluations(store: &dyn Store, config: &Config) -> Result<Vec<EvalPoint>, StoreError> {
    let (tokens, flop) = (config.tokens_per_update() as f64, flop_per_update(config));
    let reader = Reader::open(store)?;
    let (mut session, mut earlier, mut last) = (0, 0.0, 0.0);
    let mut points = Vec::new();
    for event in reader.events() {
        let (time, eval) = match event? {
            Event::Update(record) => (record.time, None),
            Event::Eval(record) => (record.time, Some(record)),
            _ => continue,
        };
        // The clock of a run starts again whenever it is resumed.
        if time.session != session {
            (session, earlier, last) = (time.session, earlier + last, 0.0);
        }
        last = time.seconds.max(last);
        points.extend(eval.map(|eval| EvalPoint {
            update: eval.update,
            tokens: tokens * f64::from(eval.update),
            flop: flop * f64::from(eval.update),
            seconds: earlier + time.seconds,
            val_ce: eval.val_ce,
            targets: eval.targets,
        }));
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
