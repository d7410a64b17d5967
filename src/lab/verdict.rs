//! What a comparison of arms shows, in words that hold however often one looks.
//!
//! Each arm is compared with the control *paired by seed*: the runs of a seed share initial weights (where shapes agree) and batches, so the
//! difference of the pair has less noise than either run. The interval of the mean difference is the [sequential
//! t-interval](crate::lab::statistics::sequential) at alpha / k for k arms: the probability that *any* verdict of a comparison is *ever*
//! wrong is at most alpha, under any dependence between arms and any rule for adding repeats. Arms are never ranked.
//!
//! | verdict | the interval of the mean difference |
//! |---|---|
//! | clear, better or worse | excludes 0 |
//! | equivalent within the margin M | lies inside (-M, M) |
//! | clear and equivalent | both: a difference that is real and too small to matter |
//! | not clear | neither; with the repeats that would be needed |
//! | nothing can be said | fewer than 4 pairs, or infinite |
//! | identical | every pair is equal: the setting had no effect |
//!
//! A failed run is missing, and its seed with it; a run whose value is not finite counts as failed. What the mathematics does not cover is
//! in [`CAVEATS`], which a report prints.
//!
//! Long because the rule, its parameters and its results are read together.

use super::statistics::{Moments, grid::grid, sequential::SequentialT};
use serde::{Deserialize, Serialize};
use std::{cell::LazyCell, collections::BTreeMap};

mod claim;
mod finding;
mod needed;
mod words;

pub use claim::{Standing, claim_standing};
pub use finding::{Finding, Side};
use needed::Forecast;
pub use needed::Needed;
pub(super) use needed::expected;

/// The fewest pairs for a verdict.
pub const FEWEST_PAIRS: usize = 4;

/// What the intervals assume. A report prints these below its verdicts.
pub const CAVEATS: [&str; 4] = [
    "The intervals assume that the differences of pairs are independent and normal. Heavy tails, as from a run that nearly diverged, are not covered: look at each pair.",
    "The claim is about this recipe on this data. Seeds that share one corpus say nothing about other data, and a handful of seeds says little about seeds in general.",
    "A difference may depend on the number of updates: the verdict is about runs of this length.",
    "A metric on a grid, such as a loss in bfloat16, cannot show differences below one step of the grid.",
];

/// Which values of a metric are better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// Lower ones, as of a loss.
    #[default]
    Lower,
    /// Higher ones, as of an accuracy.
    Higher,
}

/// How arms are judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Name of the metric.
    pub metric: String,
    /// Which of its values are better.
    pub better: Better,
    /// M: the smallest difference that would change a decision, in the unit of the metric; positive.
    pub margin: f64,
    /// Probability of any wrong verdict in the comparison, between 0 and 1.
    pub alpha: f64,
    /// c: the effect that is to be found soonest, in standard deviations of a pair's difference; positive.
    pub effect: f64,
    /// The step of the metric where it is known, such as 1/32 for a bfloat16 loss from 4 to 8: no difference below it is clear.
    pub quantum: Option<f64>,
}

impl Default for Spec {
    fn default() -> Spec {
        Spec { metric: "val_ce".into(), better: Better::Lower, margin: 0.02, alpha: 0.05, effect: 3.0, quantum: None }
    }
}

impl Spec {
    /// The test of one of `arms` arms.
    pub(super) fn test(&self, arms: usize) -> SequentialT {
        SequentialT { alpha: self.alpha / arms.max(1) as f64, effect: self.effect }
    }

    /// The verdict on the differences of `moments`.
    fn verdict(&self, test: &SequentialT, moments: &Moments) -> Verdict {
        let Some(interval) = test.interval(moments).filter(|_| moments.n >= FEWEST_PAIRS) else { return Verdict::Unknown };
        self.verdict_on(moments, interval)
    }

    fn verdict_on(&self, moments: &Moments, [low, high]: [f64; 2]) -> Verdict {
        let is_tie = self.quantum.is_some_and(|quantum| moments.mean.abs() < quantum);
        let is_clear = (low > 0.0 || high < 0.0) && !is_tie;
        let is_better = (moments.mean < 0.0) == (self.better == Better::Lower);
        match (is_clear, -self.margin < low && high < self.margin) {
            (true, true) if is_better => Verdict::BetterAndEquivalent,
            (true, false) if is_better => Verdict::Better,
            (true, true) => Verdict::WorseAndEquivalent,
            (true, false) => Verdict::Worse,
            (false, true) => Verdict::Equivalent,
            (false, false) => Verdict::NotClear,
        }
    }
}

/// The runs of one arm. Runs differ in nothing but the seed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Arm {
    /// Name.
    pub name: String,
    /// By seed, the metric of each run that has ended; `None` for one that failed.
    pub values: BTreeMap<u64, Option<f64>>,
    /// By seed, the best value of the metric along the run, where it is known.
    pub best: BTreeMap<u64, f64>,
    /// By seed, the hash of the final weights, where it is known.
    pub weights: BTreeMap<u64, String>,
    /// The value of the swept key.
    pub setting: Option<f64>,
    /// Identifies how the metric was measured: data, number of targets, terms of the loss; empty where it is unknown. Values that were
    /// measured differently are not compared.
    pub evaluation: String,
    /// What else differs from the control besides the declared difference. A difference is then not attributed.
    pub also_differs: Vec<String>,
    /// The control where the arm is compared, if its runs end before the control's.
    pub earlier: Option<Earlier>,
}

/// The control at a position before the end of its runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Earlier {
    /// The position, as in "150 updates".
    pub place: String,
    /// By seed, the control's metric there.
    pub control: BTreeMap<u64, f64>,
}

impl Arm {
    /// An arm with its values by seed.
    pub fn new(name: impl Into<String>, values: impl IntoIterator<Item = (u64, Option<f64>)>) -> Arm {
        Arm { name: name.into(), values: values.into_iter().collect(), ..Arm::default() }
    }

    /// The value at a seed, if there is a finite one.
    pub fn value(&self, seed: u64) -> Option<f64> {
        self.values.get(&seed).copied().flatten().filter(|value| value.is_finite())
    }

    /// The control's value at a seed where this arm is compared with it.
    fn control_value(&self, control: &Arm, seed: u64) -> Option<f64> {
        match &self.earlier {
            Some(earlier) => earlier.control.get(&seed).copied().filter(|value| value.is_finite()),
            None => control.value(seed),
        }
    }

    /// Whether the values of two arms were measured alike, as far as is known.
    pub(super) fn is_comparable(&self, other: &Arm) -> bool {
        self.evaluation == other.evaluation || self.evaluation.is_empty() || other.evaluation.is_empty()
    }

    /// The seeds whose run failed.
    fn failed(&self) -> Vec<u64> {
        self.values.keys().copied().filter(|seed| self.value(*seed).is_none()).collect()
    }

    fn finite(&self) -> impl Iterator<Item = f64> {
        self.values.keys().filter_map(|seed| self.value(*seed))
    }
}

/// Arms and what they are compared with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Comparison {
    /// How arms are judged.
    pub spec: Spec,
    /// What the arms are compared with.
    pub control: Arm,
    /// The arms. Arms without a run count too: alpha is divided by the number of all.
    pub arms: Vec<Arm>,
    /// The swept key, if the arms are the values of one.
    pub key: Option<String>,
}

/// The runs of one seed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The seed.
    pub seed: u64,
    /// The control's value.
    pub control: f64,
    /// The arm's value.
    pub arm: f64,
    /// The arm's value minus the control's.
    pub difference: f64,
}

/// What is said about an arm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Clearly better.
    Better,
    /// Clearly worse.
    Worse,
    /// Clearly better, by less than the margin.
    BetterAndEquivalent,
    /// Clearly worse, by less than the margin.
    WorseAndEquivalent,
    /// Equivalent within the margin.
    Equivalent,
    /// Neither clear nor equivalent so far.
    NotClear,
    /// Nothing can be said: too few pairs.
    Unknown,
    /// Every pair is equal.
    Identical,
}

impl Verdict {
    /// The verdict in a few words, as in a table.
    pub fn words(self) -> &'static str {
        match self {
            Verdict::Better => "clear: better",
            Verdict::Worse => "clear: worse",
            Verdict::BetterAndEquivalent => "clear: better, by less than the margin",
            Verdict::WorseAndEquivalent => "clear: worse, by less than the margin",
            Verdict::Equivalent => "equivalent within the margin",
            Verdict::NotClear => "not clear",
            Verdict::Unknown => "nothing can be said",
            Verdict::Identical => "identical",
        }
    }

    /// Whether the question is answered, so that more repeats are not needed.
    pub fn is_settled(self) -> bool {
        !matches!(self, Verdict::NotClear | Verdict::Unknown)
    }
}

/// The repeats of the control.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// Name of the control.
    pub name: String,
    /// Number of runs with a value.
    pub n: usize,
    /// Their mean; `None` if there are none.
    pub mean: Option<f64>,
    /// Their standard deviation; `None` for fewer than two: the noise is unknown.
    pub sd: Option<f64>,
    /// The smallest and the largest value.
    pub range: Option<[f64; 2]>,
    /// Seeds whose run failed.
    pub failed: Vec<u64>,
}

/// What a comparison shows about one arm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmJudgement {
    /// Name.
    pub name: String,
    /// The verdict.
    pub verdict: Verdict,
    /// The pairs, by seed.
    pub pairs: Vec<Pair>,
    /// Mean of the differences, arm minus control; `None` without a pair.
    pub mean: Option<f64>,
    /// Standard deviation of the differences; `None` for fewer than two pairs.
    pub sd: Option<f64>,
    /// The interval of the mean difference; `None` if it is infinite or there are fewer than [`FEWEST_PAIRS`] pairs.
    pub interval: Option<[f64; 2]>,
    /// The evidence for a difference: the Bayes factor against 0, at most `f64::MAX`. A difference is clear from k / alpha on.
    pub e_value: f64,
    /// For "not clear": the number of pairs at which the verdict would fall.
    pub needed: Option<Needed>,
    /// For "nothing can be said": the fewest pairs with a finite interval.
    pub fewest: Option<usize>,
    /// Whether the mean difference is below the stated step of the metric, so that nothing is claimed.
    pub is_tie: bool,
    /// Seeds whose run of this arm failed.
    pub failed: Vec<u64>,
    /// Seeds at which the arm has a value and the control has none.
    pub unpaired: Vec<u64>,
    /// What else differs from the control.
    pub also_differs: Vec<String>,
    /// Where it was compared, if its runs end before the control's, as in "150 updates".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// What a comparison shows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// How arms were judged.
    pub spec: Spec,
    /// The repeats of the control.
    pub control: Band,
    /// The arms, in their given order.
    pub arms: Vec<ArmJudgement>,
    /// What else a reader has to know.
    pub findings: Vec<Finding>,
}

impl Judgement {
    /// The same without the verdicts on these arms.
    pub fn without(&self, arms: &[&str]) -> Judgement {
        let mut shown = self.clone();
        shown.arms.retain(|arm| !arms.contains(&arm.name.as_str()));
        shown
    }
}

/// Judges each arm against the control. A pure function: equal results give equal judgements.
pub fn judge(comparison: &Comparison) -> Judgement {
    let all = std::iter::once(&comparison.control).chain(&comparison.arms);
    let values: Vec<f64> = all.flat_map(Arm::finite).collect();
    let step = grid(&values);
    let test = comparison.spec.test(comparison.arms.len());
    let forecast = LazyCell::new(|| Forecast::new(&comparison.spec, &test));
    let judge_arm = |arm: &Arm| judge_arm(comparison, &test, arm, step.is_some(), &|moments| forecast.needed(moments));
    let arms: Vec<ArmJudgement> = comparison.arms.iter().map(judge_arm).collect();
    let control = band(&comparison.control);
    let findings = finding::findings(comparison, step, &control, &arms);
    Judgement { spec: comparison.spec.clone(), control, arms, findings }
}

/// The verdict on an arm from the pairs of `seeds` alone, with the moments of their differences.
pub(super) fn standing(comparison: &Comparison, arm: &Arm, seeds: &[u64]) -> (Verdict, Moments) {
    let Comparison { spec, control, .. } = comparison;
    let comparable = control.is_comparable(arm);
    let difference = |seed: &u64| Some(arm.value(*seed)? - arm.control_value(control, *seed)?);
    let moments = Moments::of(seeds.iter().filter(|_| comparable).filter_map(difference));
    if have_equal_weights(control, arm, |seed| seeds.contains(&seed)) == Some(true) {
        return (Verdict::Identical, moments);
    }
    (spec.verdict(&spec.test(comparison.arms.len()), &moments), moments)
}

fn judge_arm(comparison: &Comparison, test: &SequentialT, arm: &Arm, on_grid: bool, forecast: &dyn Fn(Moments) -> Needed) -> ArmJudgement {
    let Comparison { spec, control, .. } = comparison;
    let pairs = pairs(control, arm);
    let moments = Moments::of(pairs.iter().map(|pair| pair.difference));
    let interval = test.interval(&moments).filter(|_| moments.n >= FEWEST_PAIRS);
    let verdict = match interval {
        _ if are_identical(control, arm, on_grid || spec.quantum.is_some()) => Verdict::Identical,
        Some(interval) => spec.verdict_on(&moments, interval),
        None => Verdict::Unknown,
    };
    let unpaired = arm.values.keys().copied().filter(|seed| arm.value(*seed).is_some() && arm.control_value(control, *seed).is_none());
    ArmJudgement {
        name: arm.name.clone(),
        verdict,
        mean: (moments.n > 0).then_some(moments.mean),
        sd: moments.sd(),
        interval,
        e_value: test.evidence(&moments, 0.0),
        needed: (verdict == Verdict::NotClear).then(|| forecast(moments)),
        fewest: (verdict == Verdict::Unknown).then(|| fewest_pairs(test)).flatten(),
        is_tie: moments.n > 0 && spec.quantum.is_some_and(|quantum| moments.mean.abs() < quantum),
        failed: arm.failed(),
        unpaired: unpaired.collect(),
        also_differs: arm.also_differs.clone(),
        place: arm.earlier.as_ref().map(|earlier| earlier.place.clone()),
        pairs,
    }
}

/// The pairs of two arms, by seed. None where their values were measured differently.
fn pairs(control: &Arm, arm: &Arm) -> Vec<Pair> {
    if !control.is_comparable(arm) {
        return Vec::new();
    }
    let pair = |seed: &u64| {
        let (control, value) = (arm.control_value(control, *seed)?, arm.value(*seed)?);
        Some(Pair { seed: *seed, control, arm: value, difference: value - control })
    };
    arm.values.keys().filter_map(pair).collect()
}

/// Whether two arms are the same runs. Hashes of weights decide at the seeds where both have one. Otherwise all values must be equal, and
/// the metric must not lie on a grid, on which equal values are common.
fn are_identical(a: &Arm, b: &Arm, on_grid: bool) -> bool {
    have_equal_weights(a, b, |_| true).unwrap_or_else(|| {
        let pairs = pairs(a, b);
        !on_grid && !pairs.is_empty() && pairs.iter().all(|pair| pair.difference == 0.0)
    })
}

/// Whether the weights of two arms are equal at all seeds where both have a hash; `None` if there is no such seed.
fn have_equal_weights(a: &Arm, b: &Arm, is_counted: impl Fn(u64) -> bool) -> Option<bool> {
    let hashes = a.weights.iter().filter(|(seed, _)| is_counted(**seed));
    hashes.filter_map(|(seed, hash)| Some(hash == b.weights.get(seed)?)).reduce(|all, equal| all && equal)
}

/// The fewest pairs with a finite interval. `None` beyond ten thousand.
fn fewest_pairs(test: &SequentialT) -> Option<usize> {
    (FEWEST_PAIRS..10_000).find(|n| test.threshold(*n).is_some())
}

fn band(control: &Arm) -> Band {
    let moments = Moments::of(control.finite());
    let range = control.finite().fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], value| [low.min(value), high.max(value)]);
    Band {
        name: control.name.clone(),
        n: moments.n,
        mean: (moments.n > 0).then_some(moments.mean),
        sd: moments.sd(),
        range: (moments.n > 0).then_some(range),
        failed: control.failed(),
    }
}
