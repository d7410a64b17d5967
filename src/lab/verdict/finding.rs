//! What a reader has to know beside the verdicts.

use super::{Arm, ArmJudgement, Band, Better, Comparison, Moments, are_identical, pairs};
use serde::{Deserialize, Serialize};

/// An end of a grid of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The smallest value.
    Smallest,
    /// The largest value.
    Largest,
}

/// Two arms whose difference is below the step of the metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tie {
    /// The arms.
    pub arms: [String; 2],
    /// The absolute difference of their means over common seeds.
    pub difference: f64,
}

/// One finding. [`Finding::title`] and [`Finding::message`] are what is printed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// Arms, the control among them perhaps, that are the same runs.
    IdenticalArms {
        /// Their names.
        arms: Vec<String>,
    },
    /// The control was not repeated.
    UnknownNoise {
        /// Its name.
        control: String,
        /// Number of its runs with a value.
        n: usize,
    },
    /// An arm was measured differently from the control.
    EvaluationMismatch {
        /// The arm and the control.
        arms: [String; 2],
        /// How each was measured.
        evaluations: [String; 2],
    },
    /// More differs between an arm and the control than what was declared.
    Confounded {
        /// The arm.
        arm: String,
        /// What else differs.
        also_differs: Vec<String>,
    },
    /// The values lie on a grid.
    QuantisedMetric {
        /// The metric.
        metric: String,
        /// The coarsest grid that holds all values, if one was found.
        grid: Option<f64>,
        /// The step below which differences are ties.
        quantum: f64,
        /// Pairs of arms that differ by less.
        ties: Vec<Tie>,
    },
    /// The best mean stands at an end of the grid of settings.
    BestAtEdge {
        /// The swept key.
        key: String,
        /// The arm.
        arm: String,
        /// Its setting.
        setting: f64,
        /// The end.
        side: Side,
    },
    /// The best evaluation along the runs of an arm is no better than the last by more than the noise.
    BestWithinNoise {
        /// The arm.
        arm: String,
        /// Mean distance between the last and the best value.
        gap: f64,
        /// Standard deviation of the control's repeats.
        sd: f64,
    },
}

impl Finding {
    /// The heading, as the audit prints it.
    pub fn title(&self) -> &'static str {
        match self {
            Finding::IdenticalArms { .. } => "IDENTICAL ARMS",
            Finding::UnknownNoise { .. } => "UNKNOWN NOISE",
            Finding::EvaluationMismatch { .. } => "EVAL MISMATCH",
            Finding::Confounded { .. } => "CONFOUNDED",
            Finding::QuantisedMetric { .. } => "QUANTISED METRIC",
            Finding::BestAtEdge { .. } => "BEST AT EDGE",
            Finding::BestWithinNoise { .. } => "BEST WITHIN NOISE",
        }
    }

    /// The sentence.
    pub fn message(&self) -> String {
        match self {
            Finding::IdenticalArms { arms } => {
                format!("{} are the same runs: what they change has no effect. They are repeats of one arm, not ablations.", list(arms))
            }
            Finding::UnknownNoise { control, n } => {
                let runs = if *n == 1 { "one run" } else { "no run" };
                format!("{control} has {runs}, so the noise of repeats is unknown and nothing is ranked.")
            }
            Finding::EvaluationMismatch { arms: [arm, control], evaluations: [of_arm, of_control] } => {
                format!("{arm} ({of_arm}) and {control} ({of_control}) are different measurements and are not compared.")
            }
            Finding::Confounded { arm, also_differs } => {
                format!("{arm}: also differ {}. A difference is not attributed to the declared change.", also_differs.join(", "))
            }
            Finding::QuantisedMetric { metric, grid, quantum, ties } => {
                let lies = grid.map_or(format!("{metric} has a step of {quantum}"), |grid| match *quantum > grid {
                    true => format!("{metric} lies on a grid of {}, with a step of {quantum}", step(grid)),
                    false => format!("{metric} lies on a grid of {}", step(grid)),
                });
                let ties: Vec<String> = ties.iter().map(|tie| format!("{} ({:.6} apart)", list(&tie.arms), tie.difference)).collect();
                if ties.is_empty() { format!("{lies}. No ties.") } else { format!("{lies}. Ties: {}.", ties.join(", ")) }
            }
            Finding::BestAtEdge { key, arm, setting, side } => {
                let end = if *side == Side::Smallest { "smallest" } else { "largest" };
                format!("{arm} has the best mean, and {key} = {setting} is the {end} value tried: the optimum may lie beyond it.")
            }
            Finding::BestWithinNoise { arm, gap, sd } => format!(
                "{arm}: the best evaluation is better than the last by {gap:.4} on average, within twice the sd of the control's repeats ({sd:.4}). \
                 The smallest of many evaluations is partly luck; this is no sign that the run got worse."
            ),
        }
    }
}

/// All findings of a comparison. `grid` is the grid on which its values lie.
pub(super) fn findings(comparison: &Comparison, grid: Option<f64>, band: &Band, arms: &[ArmJudgement]) -> Vec<Finding> {
    let Comparison { control, arms: all, .. } = comparison;
    let mut found = identical_arms(comparison, grid.is_some());
    if band.n < 2 {
        found.push(Finding::UnknownNoise { control: band.name.clone(), n: band.n });
    }
    for arm in all {
        if !control.is_comparable(arm) {
            let arms = [arm.name.clone(), control.name.clone()];
            found.push(Finding::EvaluationMismatch { arms, evaluations: [arm.evaluation.clone(), control.evaluation.clone()] });
        }
        if !arm.also_differs.is_empty() {
            found.push(Finding::Confounded { arm: arm.name.clone(), also_differs: arm.also_differs.clone() });
        }
    }
    found.extend(quantised(comparison, grid));
    found.extend(best_at_edge(comparison, arms));
    found.extend(std::iter::once(control).chain(all).filter_map(|arm| best_within_noise(arm, band.sd?)));
    found
}

/// Groups of arms that are the same runs; each arm is compared with the first of a group.
fn identical_arms(comparison: &Comparison, on_grid: bool) -> Vec<Finding> {
    let on_grid = on_grid || comparison.spec.quantum.is_some();
    let mut groups: Vec<Vec<&Arm>> = Vec::new();
    for arm in everyone(comparison) {
        match groups.iter_mut().find(|group| are_identical(group[0], arm, on_grid)) {
            Some(group) => group.push(arm),
            None => groups.push(vec![arm]),
        }
    }
    let names = |group: Vec<&Arm>| group.into_iter().map(|arm| arm.name.clone()).collect();
    groups.into_iter().filter(|group| group.len() > 1).map(|group| Finding::IdenticalArms { arms: names(group) }).collect()
}

/// The grid of the metric, and the pairs of arms whose means over common seeds differ by less than its step.
fn quantised(comparison: &Comparison, grid: Option<f64>) -> Option<Finding> {
    let spec = &comparison.spec;
    let quantum = spec.quantum.into_iter().chain(grid).reduce(f64::max)?;
    let everyone: Vec<&Arm> = everyone(comparison).collect();
    let mut ties = Vec::new();
    for (index, first) in everyone.iter().enumerate() {
        for second in &everyone[index + 1..] {
            let moments = Moments::of(pairs(first, second).iter().map(|pair| pair.difference));
            let difference = moments.mean.abs();
            if moments.n > 0 && difference < quantum {
                ties.push(Tie { arms: [first.name.clone(), second.name.clone()], difference });
            }
        }
    }
    Some(Finding::QuantisedMetric { metric: spec.metric.clone(), grid, quantum, ties })
}

/// The arm, or the control, with the best mean difference, where its setting is at an end of at least three distinct ones.
fn best_at_edge(comparison: &Comparison, arms: &[ArmJudgement]) -> Option<Finding> {
    let key = comparison.key.clone()?;
    let control = comparison.control.setting.map(|setting| (comparison.control.name.as_str(), setting, 0.0));
    let others = comparison.arms.iter().zip(arms).filter_map(|(arm, judged)| Some((arm.name.as_str(), arm.setting?, judged.mean?)));
    let tried: Vec<(&str, f64, f64)> = control.into_iter().chain(others).collect();
    let mut settings: Vec<f64> = tried.iter().map(|(_, setting, _)| *setting).collect();
    settings.sort_by(f64::total_cmp);
    settings.dedup();
    let (smallest, largest) = (*settings.first()?, *settings.last()?);
    let sign = if comparison.spec.better == Better::Lower { 1.0 } else { -1.0 };
    let (arm, setting, _) = tried.into_iter().min_by(|a, b| (sign * a.2).total_cmp(&(sign * b.2)))?;
    let side = [(smallest, Side::Smallest), (largest, Side::Largest)].into_iter().find(|(end, _)| *end == setting)?.1;
    (settings.len() >= 3).then(|| Finding::BestAtEdge { key, arm: arm.into(), setting, side })
}

/// Whether the mean distance between last and best value of an arm is positive and within twice the noise of repeats.
fn best_within_noise(arm: &Arm, sd: f64) -> Option<Finding> {
    let gaps = arm.best.iter().filter_map(|(seed, best)| Some((arm.value(*seed)? - best).abs()));
    let gap = Moments::of(gaps.filter(|gap| gap.is_finite())).mean;
    (gap > 0.0 && gap <= 2.0 * sd).then(|| Finding::BestWithinNoise { arm: arm.name.clone(), gap, sd })
}

fn everyone(comparison: &Comparison) -> impl Iterator<Item = &Arm> {
    std::iter::once(&comparison.control).chain(&comparison.arms)
}

/// "a, b and c".
fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// A step of 1/N as that.
fn step(grid: f64) -> String {
    format!("1/{:.0}", 1.0 / grid)
}
