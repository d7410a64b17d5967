//! Correlations, with what they hang on.
//!
//! A correlation over the handful of arms of a study often hangs on one point. So each is computed with the number of points, the number
//! of distinct x, and its range when each point is left out in turn; one that is undefined or changes sign without some point is not
//! evidence, and [`Correlation::sentence`] says so.

use super::two_sided_p;
use serde::{Deserialize, Serialize};

/// Which correlation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Of the values.
    Pearson,
    /// Of their ranks, ties at their mean rank.
    Spearman,
}

/// A correlation between two columns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Correlation {
    /// Which one.
    pub kind: Kind,
    /// The coefficient; `None` where a column does not vary.
    pub r: Option<f64>,
    /// Number of points.
    pub n: usize,
    /// Number of distinct x.
    pub distinct_x: usize,
    /// Smallest and largest coefficient with one point left out; `None` if there is a point without which it is undefined.
    pub leave_one_out: Option<[f64; 2]>,
    /// The most common x and how many points have another.
    pub off_common: Option<(f64, usize)>,
}

/// Correlates `y` with `x`, over the points where both are finite.
pub fn correlation(kind: Kind, points: &[(f64, f64)]) -> Correlation {
    let points: Vec<(f64, f64)> = points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    let without = |left_out: usize| {
        let rest: Vec<(f64, f64)> = points.iter().enumerate().filter(|(i, _)| *i != left_out).map(|(_, point)| *point).collect();
        coefficient(kind, &rest)
    };
    let coefficients: Option<Vec<f64>> = (0..points.len()).map(without).collect();
    let leave_one_out = coefficients.filter(|all| !all.is_empty()).map(|all| {
        let (low, high) = (all.iter().copied().fold(f64::INFINITY, f64::min), all.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        [low, high]
    });
    let mut xs: Vec<f64> = points.iter().map(|(x, _)| *x).collect();
    xs.sort_by(f64::total_cmp);
    let groups: Vec<&[f64]> = xs.chunk_by(|a, b| a == b).collect();
    let common = groups.iter().rev().max_by_key(|group| group.len());
    Correlation {
        kind,
        r: coefficient(kind, &points),
        n: points.len(),
        distinct_x: groups.len(),
        leave_one_out,
        off_common: common.filter(|group| group.len() > 1).map(|group| (group[0], points.len() - group.len())),
    }
}

impl Correlation {
    /// The two-sided p-value of no correlation, by Student's t with n - 2 degrees of freedom; `None` for fewer than three points.
    pub fn p(&self) -> Option<f64> {
        let r = self.r.filter(|_| self.n > 2)?;
        let freedom = (self.n - 2) as f64;
        Some(two_sided_p(r * (freedom / ((1.0 - r) * (1.0 + r))).sqrt(), freedom))
    }

    /// Why it is not evidence; `None` if it stands.
    pub fn fragile(&self) -> Option<String> {
        let off = match self.off_common {
            Some((common, 1)) => format!("only 1 point has x other than {common}; "),
            _ => String::new(),
        };
        match (self.r, self.leave_one_out) {
            (None, _) => Some("it is undefined, because a column does not vary".into()),
            (Some(_), None) => Some(format!("{off}undefined without one point")),
            (Some(_), Some([low, high])) if low <= 0.0 && high >= 0.0 => {
                Some(format!("{off}between {low:.2} and {high:.2} with one point left out, so its sign hangs on one point"))
            }
            _ if self.distinct_x < 3 => Some(format!("x has only {} distinct values", self.distinct_x)),
            _ => None,
        }
    }

    /// The sentence of a report. `inert` states that x was found to have no effect on the program, so that no correlation with it means
    /// anything.
    pub fn sentence(&self, x: &str, y: &str, inert: bool) -> String {
        let Some(r) = self.r else {
            return format!("corr({x}, {y}) is undefined, n = {}: a column does not vary.", self.n);
        };
        let facts = format!("corr({x}, {y}) = {r:.2}, n = {}", self.n);
        if inert {
            return format!("{facts}; {x} changes nothing in the program. Not reported as evidence.");
        }
        if let Some(reason) = self.fragile() {
            return format!("{facts}, {}. Not reported as evidence.", reason.replace("has x other than", &format!("has {x} other than")));
        }
        let [low, high] = self.leave_one_out.unwrap_or([r, r]);
        let p = self.p().map_or(String::new(), |p| format!(", p = {p:.2}"));
        format!("{facts}, {} distinct values of {x}, {low:.2} to {high:.2} with one point left out{p}.", self.distinct_x)
    }
}

/// The coefficient; `None` where a column does not vary.
fn coefficient(kind: Kind, points: &[(f64, f64)]) -> Option<f64> {
    let (x, y): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
    match kind {
        Kind::Pearson => pearson(&x, &y),
        Kind::Spearman => pearson(&ranks(&x), &ranks(&y)),
    }
}

fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    let varies = |values: &[f64]| values.windows(2).any(|pair| pair[0] != pair[1]);
    if !varies(x) || !varies(y) {
        return None;
    }
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let (mean_x, mean_y) = (mean(x), mean(y));
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in x.iter().zip(y) {
        let (d_x, d_y) = (x - mean_x, y - mean_y);
        xx += d_x * d_x;
        yy += d_y * d_y;
        xy += d_x * d_y;
    }
    Some((xy / (xx * yy).sqrt()).clamp(-1.0, 1.0))
}

/// Ranks from 1, equal values at the mean of their ranks.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut below = 0;
    for group in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = below as f64 + (group.len() + 1) as f64 / 2.0;
        group.iter().for_each(|index| ranks[*index] = rank);
        below += group.len();
    }
    ranks
}
