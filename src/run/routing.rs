//! How well a router uses its experts: measures of a layer's load, and the agreement of its experts with known domains.
//!
//! This is the only place where these are computed. Measures of the load are series of their own ([`Source::OfLoad`]), which
//! are computed from the stored load whenever they are read, also in runs of earlier releases.
//!
//! Names and definitions: `load_imbalance` is OLMo-core's "load imbalance" (`nn/moe/router.py`) and NeMo Automodel's largest
//! `expert_utilization`, which is load over ideal load; `load_cv` is NeMo Automodel's `cv` (`load_balance_metrics.py`);
//! `dead_expert_frac` and `expert_diversity` are those of its shared-prefix statistics.
//!
//! [`Source::OfLoad`]: super::series::Source::OfLoad

/// A measure of the load of a layer: each expert's share of the assignments `[E]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadMeasure {
    /// Entropy H of the load, in nats.
    Entropy,
    /// exp(H) / E: the effective number of experts, as a share of all.
    Diversity,
    /// The smallest share.
    Minimum,
    /// The largest share.
    Maximum,
    /// The largest share over the mean share: 1 at balance, at most E / K.
    Imbalance,
    /// Standard deviation (with E - 1 in the denominator) over the mean.
    Cv,
    /// Share of the experts without any assignment.
    DeadFraction,
}

impl LoadMeasure {
    /// The measure of a load, whose sum need not be exactly 1. NaN if the load is not finite or empty.
    pub fn of(self, load: &[f64]) -> f64 {
        let (experts, total) = (load.len() as f64, load.iter().sum::<f64>());
        if !(total.is_finite() && total > 0.0) {
            return f64::NAN;
        }
        let shares = || load.iter().map(|share| share / total);
        let maximum = shares().fold(0.0, f64::max);
        match self {
            Self::Entropy => entropy(shares()),
            Self::Diversity => entropy(shares()).exp() / experts,
            Self::Minimum => shares().fold(1.0, f64::min),
            Self::Maximum => maximum,
            Self::Imbalance => maximum * experts,
            Self::Cv => {
                let squares: f64 = shares().map(|share| (share * experts - 1.0).powi(2)).sum();
                (squares / (experts - 1.0).max(1.0)).sqrt()
            }
            Self::DeadFraction => load.iter().filter(|share| **share == 0.0).count() as f64 / experts,
        }
    }
}

fn entropy(shares: impl Iterator<Item = f64>) -> f64 {
    shares.filter(|share| *share > 0.0).map(|share| -share * share.ln()).sum()
}

/// How much of the possible spread beyond K experts a load has: (exp(H) - K) / (E - K). 0 if all tokens go to the same K
/// experts, 1 at balance, and `None` if K = E, where the router has no choice.
pub fn spread(load: &[f64], top_k: u32) -> Option<f64> {
    let (experts, top_k) = (load.len() as f64, f64::from(top_k));
    (experts > top_k).then(|| (LoadMeasure::Diversity.of(load) * experts - top_k) / (experts - top_k))
}

/// How far the gate mass of a layer's experts, their shares of the gate weights, is from their load: half the sum of the absolute
/// differences. 0 if every expert weighs as much as it is used.
pub fn gate_load_distance(gate_mass: &[f64], load: &[f64]) -> f64 {
    gate_mass.iter().zip(load).map(|(mass, share)| (mass - share).abs()).sum::<f64>() / 2.0
}

/// Agreement of a layer's experts with the domains of the tokens that they process: the mutual information of expert and domain
/// over all assignments, normalized by the mean of the two entropies, and adjusted for chance.
///
/// `counts` `[C, E]` are assignments of N tokens, each to K different experts. With I the mutual information of the table,
/// the result is (I - I0) / ((H(domain) + H(expert)) / 2 - I0). I0 = (C - 1) (E - K) / (2 N K), with C and E the domains and experts
/// that occur, is the expected mutual information if the domains are permuted over the tokens, to first order in 1 / N. So
/// the result is about 0 if experts ignore domains, and 1 if K = 1 and experts and domains correspond one to one. Slightly
/// negative values are chance.
///
/// The tokens of a document have the same domain and are not independent: with few documents, a value somewhat above 0 is
/// no evidence.
///
/// `None` without tokens, and if there is only one domain or the router has no choice (K = E).
pub fn domain_agreement(counts: &[Vec<f64>], top_k: u32) -> Option<f64> {
    let total: f64 = counts.iter().flatten().sum();
    let domains: Vec<f64> = counts.iter().map(|row| row.iter().sum()).collect();
    let width = counts.first()?.len();
    let experts: Vec<f64> = (0..width).map(|expert| counts.iter().map(|row| row[expert]).sum()).collect();
    let occurring = |sums: &[f64]| sums.iter().filter(|sum| **sum > 0.0).count() as f64;
    let (domain_count, expert_count, top_k) = (occurring(&domains), occurring(&experts), f64::from(top_k));
    if total == 0.0 || domain_count < 2.0 || expert_count <= top_k {
        return None;
    }
    let shares = |sums: &[f64]| entropy(sums.iter().map(|sum| sum / total));
    let joint = entropy(counts.iter().flatten().map(|count| count / total));
    let (of_domains, of_experts) = (shares(&domains), shares(&experts));
    let information = of_domains + of_experts - joint;
    // `total` is N K.
    let by_chance = (domain_count - 1.0) * (expert_count - top_k) / (2.0 * total);
    Some((information - by_chance) / ((of_domains + of_experts) / 2.0 - by_chance))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    fn assert_near(found: f64, wanted: f64, what: &str) {
        assert!((found - wanted).abs() < 1e-12, "{what}: wanted {wanted}, found {found}");
    }

    /// Values computed by hand, with numpy's definitions: `std(ddof=1) / mean`, `-(p * log(p)).sum()`.
    #[test]
    fn measures_of_a_load() {
        use LoadMeasure::*;
        let load = [0.5, 0.25, 0.25, 0.0];
        let entropy = 1.5 * 2f64.ln();
        let wanted = [
            (Entropy, entropy),
            (Diversity, 2f64.powf(1.5) / 4.0),
            (Minimum, 0.0),
            (Maximum, 0.5),
            (Imbalance, 2.0),
            // Squares of 2 - 1, 0, 0 and -1 over 3.
            (Cv, (2.0f64 / 3.0).sqrt()),
            (DeadFraction, 0.25),
        ];
        for (measure, wanted) in wanted {
            assert_near(measure.of(&load), wanted, &format!("{measure:?}"));
            assert_near(measure.of(&load.map(|share| 8.0 * share)), wanted, "counts are as good as shares");
            assert!(measure.of(&[f64::NAN, 1.0]).is_nan() && measure.of(&[0.0, 0.0]).is_nan(), "{measure:?}");
        }
        for experts in [1, 3, 40] {
            let even = vec![1.0 / experts as f64; experts];
            let found = [Entropy, Diversity, Minimum, Maximum, Imbalance, Cv, DeadFraction].map(|measure| measure.of(&even));
            let share = 1.0 / experts as f64;
            let wanted = [(experts as f64).ln(), 1.0, share, share, 1.0, 0.0, 0.0];
            found.iter().zip(wanted).for_each(|(found, wanted)| assert_near(*found, wanted, "balance"));
        }
    }

    #[test]
    fn spread_is_the_part_that_the_router_chooses() {
        assert_near(spread(&[0.5, 0.5, 0.0, 0.0], 2).unwrap(), 0.0, "all tokens go to the same two");
        assert_near(spread(&[0.25; 4], 2).unwrap(), 1.0, "balance");
        assert_near(spread(&[0.5, 0.25, 0.25, 0.0], 1).unwrap(), (2f64.powf(1.5) - 1.0) / 3.0, "between");
        assert_eq!(spread(&[0.5, 0.5], 2), None);
        assert_near(gate_load_distance(&[0.7, 0.2, 0.1], &[0.5, 0.25, 0.25]), 0.2, "distance");
    }

    #[test]
    fn agreement_is_one_for_a_match_and_none_without_a_choice() {
        let matched = [vec![1000.0, 0.0], vec![0.0, 1000.0]];
        assert_near(domain_agreement(&matched, 1).unwrap(), 1.0, "one expert a domain");
        // I = ln 2, H(domain) = ln 2, H(expert) = ln 4, I0 = 1 (4 - 2) / (2 * 400).
        let pairs = [vec![100.0, 100.0, 0.0, 0.0], vec![0.0, 0.0, 100.0, 100.0]];
        let ln2 = 2f64.ln();
        assert_near(domain_agreement(&pairs, 2).unwrap(), (ln2 - 0.0025) / (1.5 * ln2 - 0.0025), "two experts a domain");
        let even = [vec![100.0, 100.0], vec![100.0, 100.0]];
        assert!(domain_agreement(&even, 1).unwrap().abs() < 0.01);
        assert_eq!(domain_agreement(&even, 2), None, "both experts process every token");
        assert_eq!(domain_agreement(&[vec![0.0, 0.0], vec![0.0, 0.0]], 1), None);
        assert_eq!(domain_agreement(&[vec![3.0, 2.0], vec![0.0, 0.0]], 1), None, "one domain");
        assert_eq!(domain_agreement(&[], 1), None);
    }

    /// Experts of tokens drawn without regard to their domains: the mean over many tables is 0 within its error, and a tenth of the
    /// adjustment for what is beyond the first order.
    #[test]
    fn agreement_by_chance_is_zero_on_average() {
        let stream = Stream { seed: 7, step: 0, stream: 1 };
        for (domains, experts, top_k, tokens) in [(3, 4, 1, 100_u32), (5, 8, 2, 150), (4, 6, 5, 120)] {
            let values: Vec<f64> = (0..400_u32)
                .map(|table| {
                    let mut counts = vec![vec![0.0; experts]; domains];
                    for token in 0..tokens {
                        // The first K of a shuffled deck; unequal domains.
                        let mut deck: Vec<usize> = (0..experts).collect();
                        let bits = |place: u32| stream.bits((table * tokens + token) * 16 + place)[0] as usize;
                        let domain = (bits(15) % domains).min(bits(14) % domains);
                        for place in 0..top_k as usize {
                            let other = place + bits(place as u32) % (experts - place);
                            deck.swap(place, other);
                            counts[domain][deck[place]] += 1.0;
                        }
                    }
                    domain_agreement(&counts, top_k).unwrap()
                })
                .collect();
            let mean = values.iter().sum::<f64>() / 400.0;
            let error = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 400.0 / 399.0).sqrt();
            let entropies = (f64::from(domains as u32).ln() + (experts as f64).ln()) / 2.0;
            let adjustment = (domains - 1) as f64 * (experts - top_k as usize) as f64 / f64::from(2 * tokens * top_k) / entropies;
            assert!(
                mean.abs() < 4.0 * error + 0.1 * adjustment && adjustment > 20.0 * error,
                "{domains} domains, {top_k} of {experts}: {mean} +- {error}"
            );
        }
    }
}
