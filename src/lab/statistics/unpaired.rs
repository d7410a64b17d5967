//! Two groups of runs that share no seeds: the difference of their means against the noise of repeats.
//!
//! For imported results and for runs outside a suite. Arms of a suite are compared paired by seed ([`verdict`](crate::lab::verdict)),
//! which needs fewer runs and may be looked at repeatedly; this interval is for one look.

use super::{Moments, t_quantile};
use serde::{Deserialize, Serialize};

/// The two-sided error of an interval and of [`repeats_per_arm`].
const ALPHA: f64 = 0.05;
/// 2 (z_0.975 + z_0.8)^2: error 5 % two-sided, power 80 %.
const POWER: f64 = 15.697_759;

/// The noise of repeats: a standard deviation pooled over groups of runs that differ in nothing but the seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Noise {
    /// The pooled standard deviation.
    pub sd: f64,
    /// Its degrees of freedom: number of runs minus number of groups.
    pub freedom: usize,
}

impl Noise {
    /// Pools the groups. `None` if none has two values.
    pub fn pooled<'a>(groups: impl IntoIterator<Item = &'a [f64]>) -> Option<Noise> {
        let (mut squares, mut freedom) = (0.0, 0);
        for group in groups {
            let moments = Moments::of(group.iter().copied());
            if let Some(sd) = moments.sd() {
                squares += sd * sd * (moments.n - 1) as f64;
                freedom += moments.n - 1;
            }
        }
        (freedom > 0).then(|| Noise { sd: (squares / freedom as f64).sqrt(), freedom })
    }
}

/// The difference between the means of two groups.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Mean of the first group minus mean of the second.
    pub difference: f64,
    /// Sizes of the groups.
    pub n: [usize; 2],
    /// The noise; `None` if nothing was repeated.
    pub noise: Option<Noise>,
}

impl Difference {
    /// Compares two groups. `noise` may come from other groups too; `None` pools these two. `None` if a group is empty.
    pub fn of(a: &[f64], b: &[f64], noise: Option<Noise>) -> Option<Difference> {
        let (first, second) = (Moments::of(a.iter().copied()), Moments::of(b.iter().copied()));
        if first.n == 0 || second.n == 0 {
            return None;
        }
        let noise = noise.or_else(|| Noise::pooled([a, b]));
        Some(Difference { difference: first.mean - second.mean, n: [first.n, second.n], noise })
    }

    /// sd sqrt(1/n_a + 1/n_b); `None` without repeats.
    pub fn standard_error(&self) -> Option<f64> {
        let [a, b] = self.n.map(|n| 1.0 / n as f64);
        Some(self.noise?.sd * (a + b).sqrt())
    }

    /// The 95 % t-interval of the difference; `None` without repeats.
    pub fn interval(&self) -> Option<[f64; 2]> {
        let half = self.standard_error()? * t_quantile(1.0 - ALPHA / 2.0, self.noise?.freedom as f64);
        Some([self.difference - half, self.difference + half])
    }

    /// Whether the interval excludes 0.
    pub fn is_significant(&self) -> bool {
        self.interval().is_some_and(|[low, high]| low > 0.0 || high < 0.0)
    }
}

/// The number of repeats of each of two arms at which a true difference `difference` is found with power 80 % by a two-sided test at
/// 5 %: 15.7 (sd / difference)^2, the normal approximation, rounded up, at least 2. `None` for no difference.
pub fn repeats_per_arm(sd: f64, difference: f64) -> Option<u64> {
    let n = (POWER * (sd / difference).powi(2)).ceil();
    n.is_finite().then(|| (n as u64).max(2))
}
