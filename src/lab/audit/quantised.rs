//! Differences that are ranked are larger than the steps in which the metric can change.

use super::study::{Evaluator, Study, VAL_LOSS};
use super::{Check, Found, Severity, Stage, found};
use crate::lab::statistics::grid::grid;

pub const CHECK: Check =
    Check { id: "quantised-metric", stage: Stage::After, claim: "ranked differences are larger than the metric's steps", find };

/// Grids finer than this do not matter.
const FINE: f64 = 1e-4;

fn find(study: &Study) -> Vec<Found> {
    let mut all = Vec::new();
    let mut seen: Vec<(&Evaluator, Vec<&super::Measured>)> = Vec::new();
    for run in study.runs.iter().filter(|run| run.is_usable() && run.metrics.contains_key(VAL_LOSS)) {
        match seen.iter_mut().find(|(evaluator, _)| **evaluator == run.evaluator) {
            Some((_, runs)) => runs.push(run),
            None => seen.push((&run.evaluator, vec![run])),
        }
    }
    for (evaluator, runs) in seen {
        all.extend(of_evaluator(study, evaluator, &runs));
    }
    all
}

/// Findings among runs that were evaluated in the same way.
fn of_evaluator(study: &Study, evaluator: &Evaluator, runs: &[&super::Measured]) -> Vec<Found> {
    let values: Vec<f64> = runs.iter().filter_map(|run| run.value(VAL_LOSS, None)).collect();
    let Some(step) = grid(&values).filter(|step| *step > FINE) else { return Vec::new() };
    let batches = evaluator.batches.max(1);
    let quantum = step * f64::from(batches);
    let what = format!(
        "QUANTISED METRIC  {VAL_LOSS} lies on a grid of 1/{:.0} ({} CE, {batches} batches; quantum {quantum})",
        1.0 / step,
        evaluator.dtype
    );
    let (mut all, mut ties) = (Vec::new(), Vec::new());
    for (text, comparison) in study.pairs().into_iter().filter(|(_, comparison)| comparison.metric == VAL_LOSS && comparison.at.is_none()) {
        let value = |arm: &str| runs.iter().find(|run| run.arm == arm).and_then(|run| run.value(VAL_LOSS, None));
        let Some((one, other)) = value(&comparison.better).zip(value(&comparison.than)) else { continue };
        if (one - other).abs() < quantum {
            let tie = format!("{} and {} ({} apart)", comparison.better, comparison.than, round((one - other).abs()));
            all.push(found(Severity::Refuse, &text, format!("{what}. Tie: {tie}.")));
            ties.push(tie);
        }
    }
    if !ties.is_empty() {
        all.insert(0, found(Severity::Refuse, VAL_LOSS, format!("{what}. Ties: {}.", ties.join(", "))));
    }
    all
}

/// Rounded to the precision of the values.
fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
