//! How many repeats would give a verdict, if the differences go on like those seen.

use super::{Moments, SequentialT, Spec, Verdict};
use crate::{lab::statistics::quantile, random::Stream};
use serde::{Deserialize, Serialize};

/// The largest number of pairs that is simulated.
const HORIZON: u32 = 400;
/// Number of simulated continuations.
const PATHS: u32 = 200;
/// The stream of the simulated differences; their seed is fixed, so equal results give equal forecasts.
const STREAM: u32 = 0x6e65_6564;

/// The number of pairs, those made included, at which an arm would be clear or equivalent. Continuations are simulated with normal
/// differences of the mean and standard deviation seen so far; `None` where that is beyond [`Needed::horizon`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needed {
    /// In half of the continuations.
    pub median: Option<u32>,
    /// In 90 % of them.
    pub ninety: Option<u32>,
    /// The largest number that was tried.
    pub horizon: u32,
}

/// Simulates how differences go on. Thresholds and random numbers are made once for all arms of a comparison.
pub(super) struct Forecast<'a> {
    spec: &'a Spec,
    /// By number of pairs.
    thresholds: Vec<Option<f64>>,
    /// [path, number of pairs].
    normals: Vec<f64>,
}

impl<'a> Forecast<'a> {
    pub(super) fn new(spec: &'a Spec, test: &SequentialT) -> Forecast<'a> {
        let thresholds = (0..=HORIZON).map(|n| test.threshold(n as usize)).collect();
        let of_path = |path| (0..=HORIZON).map(move |n| f64::from(Stream { seed: 0, step: path, stream: STREAM }.normal(n)));
        Forecast { spec, thresholds, normals: (0..PATHS).flat_map(of_path).collect() }
    }

    /// Continues the differences of `moments`.
    pub(super) fn needed(&self, moments: Moments) -> Needed {
        let sd = moments.sd().unwrap_or_default();
        let settled_at = |normals: &[f64]| {
            let mut so_far = moments;
            for (n, normal) in normals.iter().enumerate().skip(moments.n + 1) {
                so_far.push(moments.mean + sd * normal);
                if verdict(self.spec, self.thresholds[n], &so_far).is_settled() {
                    return n as f64;
                }
            }
            f64::INFINITY
        };
        let paths: Vec<f64> = self.normals.chunks(HORIZON as usize + 1).map(settled_at).collect();
        let at = |q| quantile(&paths, q).filter(|n| n.is_finite()).map(|n| n.ceil() as u32);
        Needed { median: at(0.5), ninety: at(0.9), horizon: HORIZON }
    }
}

fn verdict(spec: &Spec, threshold: Option<f64>, moments: &Moments) -> Verdict {
    let Some(half) = threshold.zip(moments.standard_error()).map(|(t, error)| t * error) else { return Verdict::Unknown };
    spec.verdict_on(moments, [moments.mean - half, moments.mean + half])
}

/// The number of pairs at which an arm would be settled if mean and standard deviation stayed exactly as they are: a rough figure, for the
/// order in which arms get their repeats. At least one more than there are; `None` beyond `most`.
pub(in crate::lab) fn expected(spec: &Spec, test: &SequentialT, moments: &Moments, most: usize) -> Option<usize> {
    let sd = moments.sd()?;
    (moments.n + 1..=most).find(|n| {
        let half = test.threshold(*n).map_or(f64::INFINITY, |t| t * sd / (*n as f64).sqrt());
        *n >= super::FEWEST_PAIRS && spec.verdict_on(moments, [moments.mean - half, moments.mean + half]).is_settled()
    })
}
