//! A loss that rises does not rise where an epoch ends.
//!
//! For each boundary, the mean change per evaluation over the three evaluations before it is compared with that over the three after
//! it. And the same is computed for other periods and phases: the loader's own, which is known and not fitted, is given its rank.

use super::epochs::{Epoch, epoch, passes};
use super::study::{Measured, Statement, Study, VAL_LOSS};
use super::{Check, Found, Severity, Stage, found, grouped};

pub const CHECK: Check = Check { id: "epoch-boundary", stage: Stage::After, claim: "a loss does not rise where an epoch ends", find };

/// Evaluations on either side of a boundary.
const SIDE: usize = 3;

fn find(study: &Study) -> Vec<Found> {
    let mut all = Vec::new();
    for run in study.runs.iter().filter(|run| run.is_usable()) {
        let Some(arm) = study.arm(&run.arm) else { continue };
        let Some(data) = study.data_of(&run.arm) else { continue };
        let Some(epoch) = epoch(&arm.config, &data) else { continue };
        let curve = curve(run);
        let period = period(run, epoch, arm.config.train.micro_batches);
        let Some(rise) = rises(&curve, period).into_iter().next() else { continue };
        let (rank, of) = rank(&curve, period);
        let text = format!(
            "EPOCH BOUNDARY  {}: the rise after {} starts at {} = epoch {} × {} (rank {rank} of {of} periods and phases). This run makes {:.2} \
             passes over {} tokens. Do not attribute it before running the drop_last, one-epoch and reshuffle presets.",
            run.arm,
            rise.evaluation,
            rise.boundary,
            (rise.boundary as f64 / period).round(),
            period,
            passes(&arm.config, epoch),
            grouped(data.training_tokens)
        );
        all.push(found(Severity::Warn, &run.arm, text.clone()));
        for claim in &study.claims {
            let is_meant = |from: u64| from.abs_diff(rise.boundary) as f64 <= 0.5 * period;
            if matches!(&claim.says, Statement::Rises { arm, from } if *arm == run.arm && is_meant(*from)) {
                all.push(found(Severity::Refuse, &claim.text, text.clone()));
            }
        }
    }
    all
}

/// Epochs in the unit of a run's evaluations.
fn period(run: &Measured, epoch: Epoch, micro_batches: u32) -> f64 {
    let per_update = if run.counts_micro_steps { 1 } else { micro_batches };
    epoch.micro_batches as f64 / f64::from(per_update)
}

fn curve(run: &Measured) -> Vec<(u64, f64)> {
    run.evaluations.iter().filter_map(|evaluation| Some((evaluation.at, *evaluation.metrics.get(VAL_LOSS)?))).collect()
}

/// A boundary at which a falling loss turns into a rising one.
struct Rise {
    boundary: u64,
    /// The evaluation nearest to it.
    evaluation: u64,
}

/// Mean changes per evaluation before and after the evaluation nearest to `at`; `None` near the ends.
fn changes(curve: &[(u64, f64)], at: f64) -> Option<[f64; 2]> {
    let nearest = nearest(curve, at)?;
    let (before, end) = (nearest.checked_sub(SIDE)?, curve.get(nearest + SIDE)?);
    let (before, middle, side) = (curve[before].1, curve[nearest].1, SIDE as f64);
    Some([(middle - before) / side, (end.1 - middle) / side])
}

/// The evaluation nearest to `at`.
fn nearest(curve: &[(u64, f64)], at: f64) -> Option<usize> {
    let next = curve.partition_point(|(step, _)| (*step as f64) < at);
    let around = [next.checked_sub(1), Some(next)].into_iter().flatten().filter(|index| *index < curve.len());
    around.min_by(|a, b| (curve[*a].0 as f64 - at).abs().total_cmp(&(curve[*b].0 as f64 - at).abs()))
}

fn rises(curve: &[(u64, f64)], period: f64) -> Vec<Rise> {
    let Some((last, _)) = curve.last() else { return Vec::new() };
    let boundaries = (1..).map(|epoch| f64::from(epoch) * period).take_while(|at| *at <= *last as f64);
    let rise = |at: f64| {
        let [before, after] = changes(curve, at)?;
        let evaluation = curve[nearest(curve, at)?].0;
        (before < 0.0 && after > 0.0).then_some(Rise { boundary: at.round() as u64, evaluation })
    };
    boundaries.filter_map(rise).collect()
}

/// The rank of boundaries at multiples of `period` among 2,724 other periods (from 0.57 to 1.49 of it) and phases, by the mean change
/// of slope at a boundary; 1 is the largest. Of the curve without its first fifth, and less its cubic trend.
fn rank(curve: &[(u64, f64)], period: f64) -> (usize, usize) {
    const STEPS: u32 = 53;
    let end = curve.last().map_or(0, |(step, _)| *step) as f64;
    let start = 0.2 * end;
    let late: Vec<(u64, f64)> = curve.iter().copied().filter(|(step, _)| *step as f64 >= start).collect();
    let curve = without_trend(&late);
    let score = |period: f64, phase: f64| {
        let places = (0..).map(|epoch| phase + f64::from(epoch) * period).take_while(|at| *at <= end).filter(|at| *at >= start);
        let bends: Vec<f64> = places.filter_map(|at| changes(&curve, at)).map(|[before, after]| after - before).collect();
        if bends.is_empty() { f64::NEG_INFINITY } else { bends.iter().sum::<f64>() / bends.len() as f64 }
    };
    let own = score(period, 0.0);
    let step = period / f64::from(STEPS);
    let pairs = (30..80).flat_map(|periods| (0..periods).map(move |phase| (periods, phase))).filter(|pair| *pair != (STEPS, 0));
    let others: Vec<f64> = pairs.map(|(periods, phase)| score(f64::from(periods) * step, f64::from(phase) * step)).collect();
    (1 + others.iter().filter(|other| **other > own).count(), 1 + others.len())
}

/// A curve less the cubic that fits it best.
fn without_trend(curve: &[(u64, f64)]) -> Vec<(u64, f64)> {
    const TERMS: usize = 4;
    let end = curve.last().map_or(1, |(step, _)| *step).max(1) as f64;
    let powers = |step: u64| [0, 1, 2, 3].map(|power| (step as f64 / end).powi(power));
    // The normal equations, by Gaussian elimination with pivots.
    let mut rows = [[0.0; TERMS + 1]; TERMS];
    for (step, loss) in curve {
        let x = powers(*step);
        for (row, own) in rows.iter_mut().zip(x) {
            x.iter().chain([loss]).zip(row).for_each(|(value, sum)| *sum += own * value);
        }
    }
    for column in 0..TERMS {
        let pivot = (column..TERMS).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs())).unwrap_or(column);
        rows.swap(column, pivot);
        let pivot = rows[column];
        if pivot[column] == 0.0 {
            return curve.to_vec();
        }
        for (_, row) in rows.iter_mut().enumerate().filter(|(index, _)| *index != column) {
            let factor = row[column] / pivot[column];
            row.iter_mut().zip(pivot).for_each(|(value, of_pivot)| *value -= factor * of_pivot);
        }
    }
    let coefficients: Vec<f64> = (0..TERMS).map(|term| rows[term][TERMS] / rows[term][term]).collect();
    let trend = |step: u64| coefficients.iter().zip(powers(step)).map(|(coefficient, power)| coefficient * power).sum::<f64>();
    curve.iter().map(|(step, loss)| (*step, loss - trend(*step))).collect()
}
