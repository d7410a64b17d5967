//! The statistics of the lab: moments, quantiles, Student's t, and in submodules the tests built on them.
//!
//! - [`sequential`]: the interval for a mean that holds however often one looks, on which all verdicts rest.
//! - [`unpaired`]: two groups of runs that share no seeds, and how many repeats would tell them apart.
//! - [`correlation`]: Pearson and Spearman, with what a correlation hangs on.
//! - [`grid`]: whether the values of a metric lie on a grid.
//!
//! All agree with SciPy (`tests/fixtures/statistics/scipy.py`). Sums run in the order of the data, so equal data give equal bits.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

pub mod correlation;
pub mod grid;
pub mod sequential;
pub mod unpaired;

/// Number, mean and standard deviation of some values, updated one value at a time (Welford).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Number of values.
    pub n: usize,
    /// Their mean; 0 if there are none.
    pub mean: f64,
    /// Sum of the squared deviations from the mean.
    squares: f64,
}

impl Moments {
    /// The moments of `values`.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Moments {
        let mut moments = Moments::default();
        values.into_iter().for_each(|value| moments.push(value));
        moments
    }

    /// Adds a value.
    pub fn push(&mut self, value: f64) {
        self.n += 1;
        let deviation = value - self.mean;
        self.mean += deviation / self.n as f64;
        self.squares += deviation * (value - self.mean);
    }

    /// The standard deviation with divisor n - 1; `None` for fewer than two values.
    pub fn sd(&self) -> Option<f64> {
        (self.n >= 2).then(|| (self.squares / (self.n - 1) as f64).sqrt())
    }

    /// The standard error of the mean; `None` for fewer than two values.
    pub fn standard_error(&self) -> Option<f64> {
        Some(self.sd()? / (self.n as f64).sqrt())
    }
}

/// The quantile `q` in 0..=1 of `values`, interpolated linearly between order statistics (type 7 of Hyndman and Fan, the default of
/// NumPy and R). `None` if there are no values or one is not a number.
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    if values.is_empty() || values.iter().any(|value| value.is_nan()) {
        return None;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = q.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    // Without the second case, infinities would give NaN.
    Some(if low == high { low } else { low + (high - low) * place.fract() })
}

/// P(T <= `t`) for Student's t with `freedom` degrees of freedom; NaN if `freedom` is not positive.
pub fn t_cdf(t: f64, freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |distribution| distribution.cdf(t))
}

/// The `t` for which P(T <= t) is `p`; NaN if `freedom` is not positive or `p` is not in 0..=1.
pub fn t_quantile(p: f64, freedom: f64) -> f64 {
    match StudentsT::new(0.0, 1.0, freedom) {
        Ok(distribution) if (0.0..=1.0).contains(&p) => distribution.inverse_cdf(p),
        _ => f64::NAN,
    }
}

/// The probability of a t at least as far from 0 on either side.
pub fn two_sided_p(t: f64, freedom: f64) -> f64 {
    2.0 * t_cdf(-t.abs(), freedom)
}
