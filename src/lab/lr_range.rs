//! Learning-rate range test: what one short run with an exponentially rising rate says about the rate to train with.
//!
//! The run's schedule is of the kind `range`: update i trains at a rate r_i that rises by equal factors. Over a window of updates, the
//! training loss is fitted by a line in ln r; the fit gives the *smoothed loss* and its *slope* at the window's centre. Then
//! - the run *diverges* at the first rate, after the lowest smoothed loss, where the smoothed loss has risen by `DIVERGED` of the whole
//!   descent, or where the loss is not finite;
//! - the *steepest descent* is the rate with the most negative slope before the lowest smoothed loss;
//! - the recommended peak rate is that of the steepest descent, but at most 1 / `BELOW_DIVERGENCE` of the rate at which the run diverges.
//!
//! Nothing is recommended if the descent is within the noise of the loss. The test is short, and the loss falls with the number of
//! updates as well as with the rate, so that the steepest descent is a starting point ([`CAVEAT`]).

use serde::{Deserialize, Serialize};

use super::{reader::Reader, store::StoreError};
use crate::{
    config_file::Amount,
    run::{
        Config, exact,
        model::parameters::Group,
        records::Event,
        schedule::{ScheduleKind, ScheduleOptions, Unit},
    },
};

/// Share of the descent by which the smoothed loss has to rise.
const DIVERGED: f64 = 0.25;
/// The recommended rate is at least this factor below the rate at which the run diverges.
const BELOW_DIVERGENCE: f64 = 3.0;
/// The descent must be this many standard errors of the smoothed loss.
const CLEAR: f64 = 4.0;
/// Fewest updates of a test.
pub const LEAST_UPDATES: usize = 20;

/// What the test does not show. Printed and stored with every recommendation.
pub const CAVEAT: &str = "A range test is one short run with one seed: it bounds the rate from above and gives a starting point. The best rate also depends on \
the batch, the number of updates and the schedule; compare a few rates around it, with repeats, before relying on it.";

/// One update of a test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Learning rate.
    pub learning_rate: f64,
    /// Training cross-entropy of the update, before it was applied.
    #[serde(with = "exact")]
    pub train_loss: f64,
    /// The same, fitted over the window around it; absent near the ends and where the loss is not finite.
    #[serde(with = "exact::option", default)]
    pub smoothed_loss: Option<f64>,
    /// Slope of the fit: change of the loss per factor e of the rate.
    #[serde(with = "exact::option", default)]
    pub slope: Option<f64>,
}

/// The result of a test, as `lr_recommendation.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    /// The recommended peak rate; none if the test shows nothing.
    pub best_learning_rate: Option<f64>,
    /// The update whose rate that is closest to.
    pub best_result: Option<Point>,
    /// All updates.
    pub all_results: Vec<Point>,
    /// The recommendation in words, with its reason.
    pub recommendation: String,
    /// What the test does not show.
    pub caveat: String,
    /// Rate of the steepest descent.
    pub steepest_learning_rate: Option<f64>,
    /// Rate of the lowest smoothed loss.
    pub lowest_loss_learning_rate: Option<f64>,
    /// Rate at which the run diverged.
    pub divergence_learning_rate: Option<f64>,
    /// The recommended rate of each optimizer, as `key=value`. The rates above are those of the first.
    pub settings: Vec<String>,
}

/// The config of a test of `config`: `updates` updates, in which every learning rate rises from `lowest` times to `highest` times its
/// value, without anything that would end or interrupt the run.
pub fn test_of(config: &Config, updates: u32, [lowest, highest]: [f64; 2]) -> Config {
    let mut test = config.clone();
    test.optimizer.adamw.lr *= highest;
    test.optimizer.muon.lr *= highest;
    test.schedule = ScheduleOptions {
        kind: ScheduleKind::Range,
        unit: Unit::Updates,
        warmup: Amount::Count(0),
        min_ratio: lowest / highest,
        ..ScheduleOptions::default()
    };
    let train = &mut test.train;
    (train.updates, train.log_every, train.checkpoint.every, train.checkpoint.best) = (updates, 1, 0, false);
    (train.evaluation.every, train.evaluation.windows, train.early_stopping.patience) = (0, 1, 0);
    (test.nan.roll_back_after, test.nan.stop_after, test.alarms.window) = (0, 0, 0);
    test.sample.prompts.clear();
    test
}

/// Reads a test that was run with the config `test`.
///
/// # Errors
/// If the medium cannot be read.
pub fn read(reader: &Reader, test: &Config) -> Result<Recommendation, StoreError> {
    let has_muon = test.parameters().iter().any(|spec| spec.group == Group::Muon);
    let (muon, adamw) = (("optimizer.muon.lr", test.optimizer.muon.lr), ("optimizer.adamw.lr", test.optimizer.adamw.lr));
    let mut updates = Vec::new();
    for event in reader.events() {
        if let Event::Update(record) = event? {
            let rate = if has_muon { record.lr_muon } else { record.lr_adamw };
            updates.push((rate, if record.skipped { f64::NAN } else { record.train_ce }));
        }
    }
    let mut result = recommend(&updates);
    let peaks = if has_muon { vec![muon, adamw] } else { vec![adamw] };
    if let (Some(best), Some((_, first))) = (result.best_learning_rate, peaks.first().copied()) {
        result.settings = peaks.iter().map(|(key, peak)| format!("{key}={:.3e}", best * peak / first)).collect();
    }
    Ok(result)
}

/// Reads the updates of a test, each with its rate and its loss, in the order of rising rates.
pub fn recommend(updates: &[(f64, f64)]) -> Recommendation {
    let window = (updates.len() / 8).max(5) | 1;
    let noise = noise(updates);
    let points: Vec<Point> = (0..updates.len()).map(|index| fit(updates, index, window)).collect();
    let smoothed: Vec<(usize, f64, f64)> =
        points.iter().enumerate().filter_map(|(index, point)| Some((index, point.smoothed_loss?, point.slope?))).collect();
    let mut result = Recommendation {
        best_learning_rate: None,
        best_result: None,
        all_results: points.clone(),
        recommendation: String::new(),
        caveat: CAVEAT.into(),
        steepest_learning_rate: None,
        lowest_loss_learning_rate: None,
        divergence_learning_rate: None,
        settings: Vec::new(),
    };
    let not_finite = updates.iter().position(|(_, loss)| !loss.is_finite());
    let (Some(first), Some(lowest)) = (smoothed.first(), smoothed.iter().min_by(|a, b| a.1.total_cmp(&b.1))) else {
        result.recommendation = format!("no recommendation: {} updates are too few to see a descent", updates.len());
        return result;
    };
    let highest_before = smoothed.iter().filter(|point| point.0 <= lowest.0).map(|point| point.1).fold(first.1, f64::max);
    let descent = highest_before - lowest.1;
    let standard_error = noise / (window as f64).sqrt();
    let rises = smoothed.iter().find(|point| point.0 > lowest.0 && point.1 > lowest.1 + (DIVERGED * descent).max(CLEAR * standard_error));
    let diverged = rises.map(|point| point.0).into_iter().chain(not_finite).min().map(|index| updates[index].0);
    result.divergence_learning_rate = diverged;
    if updates.len() < LEAST_UPDATES || descent <= CLEAR * standard_error {
        result.recommendation = format!(
            "no recommendation: the smoothed loss fell by {descent:.4}, which is not clear of its noise ({standard_error:.4} standard error); \
             use more updates, or a wider range of rates"
        );
        return result;
    }
    let descending = smoothed.iter().filter(|point| point.0 <= lowest.0);
    let steepest = descending.min_by(|a, b| a.2.total_cmp(&b.2)).map_or(lowest.0, |point| point.0);
    let (steepest, lowest) = (updates[steepest].0, updates[lowest.0].0);
    let limit = diverged.map(|rate| rate / BELOW_DIVERGENCE);
    let best = limit.map_or(steepest, |limit| steepest.min(limit));
    let cause = match limit {
        Some(limit) if limit < steepest => format!("{BELOW_DIVERGENCE} times below the rate at which the loss rises again"),
        _ => "where the loss falls fastest".into(),
    };
    let end = match diverged {
        Some(rate) => format!("it rises again from {rate:.3e} on"),
        None => "it does not rise again: higher rates than those tested may work".into(),
    };
    result.recommendation = format!(
        "peak rate {best:.3e}, {cause}: the smoothed loss falls by {descent:.4}, fastest at {steepest:.3e} and to its lowest at {lowest:.3e}; {end}"
    );
    result.best_learning_rate = Some(best);
    let distance = |point: &Point| (point.learning_rate / best).ln().abs();
    result.best_result = points.into_iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
    (result.steepest_learning_rate, result.lowest_loss_learning_rate) = (Some(steepest), Some(lowest));
    result
}

/// The least-squares line through the window around an update, in ln of the rate.
fn fit(updates: &[(f64, f64)], index: usize, window: usize) -> Point {
    let (learning_rate, train_loss) = updates[index];
    let bare = Point { learning_rate, train_loss, smoothed_loss: None, slope: None };
    let half = window / 2;
    if index < half || index + half >= updates.len() {
        return bare;
    }
    let near: Vec<(f64, f64)> = updates[index - half..=index + half].iter().map(|(rate, loss)| (rate.ln(), *loss)).collect();
    let n = near.len() as f64;
    let (x, y) = (near.iter().map(|(x, _)| x).sum::<f64>() / n, near.iter().map(|(_, y)| y).sum::<f64>() / n);
    let slope = near.iter().map(|(a, b)| (a - x) * (b - y)).sum::<f64>() / near.iter().map(|(a, _)| (a - x).powi(2)).sum::<f64>();
    if !(slope.is_finite() && y.is_finite()) {
        return bare;
    }
    Point { smoothed_loss: Some(y + slope * (learning_rate.ln() - x)), slope: Some(slope), ..bare }
}

/// Standard deviation of one update's loss around the curve: the median absolute second difference, which neither the trend nor a
/// divergence moves, scaled to a normal's.
fn noise(updates: &[(f64, f64)]) -> f64 {
    let mut differences: Vec<f64> = updates.windows(3).map(|three| (three[0].1 - 2.0 * three[1].1 + three[2].1).abs()).collect();
    differences.retain(|difference| difference.is_finite());
    differences.sort_by(f64::total_cmp);
    let median = differences.get(differences.len() / 2).copied().unwrap_or(f64::INFINITY);
    // The standard deviation of a second difference is sqrt(6) times that of a value.
    median / 0.6745 / 6f64.sqrt()
}
