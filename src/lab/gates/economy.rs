//! What gates save, and what they cost: policies replayed on a study of which every run was made to its end.
//!
//! The question is asked of every arm but the control: is it better than the control by more than the margin? The *truth* is the mean
//! difference over all seeds at the end. A policy sees the runs in some order of seeds, and only as far as it makes them:
//! - *run all*: every arm with every seed to the end;
//! - *halving*: all seeds, successive halving at the end of each stage;
//! - *gates*: all seeds, the given rule at the end of each stage;
//! - *gates, adaptive repeats*: the first seeds of every arm, the same rule at the end of each stage, then seeds for the arms that are
//!   left, until their verdicts are settled.
//!
//! An arm that is stopped is answered with no. The others are answered by the [verdict] on their pairs at the end: clear
//! and not equivalent is a yes if better; any other settled verdict is a no; otherwise there is no answer. A wrong answer is worse than none.
//! Results are means over orders of the seeds: all of them, or a fixed sample.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Course, decide, halving};
use crate::{
    lab::{
        repeats::{self, FIRST_ROUND, Repeats},
        verdict::{self, Comparison, Spec, Verdict, standing},
    },
    random::Stream,
    run::gates::{GateOptions, GateRule},
};

/// Most orders of the seeds that are replayed.
const MOST_ORDERS: usize = 24;

/// The runs of an arm, by seed.
pub type Runs = BTreeMap<u64, Course>;

/// A study of which every run was made to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Truth {
    /// What the arms are compared with.
    pub control: Runs,
    /// The arms by name. Seeds that are not everywhere are left out.
    pub arms: BTreeMap<String, Runs>,
    /// Updates at which the stages before the last end.
    pub stages: Vec<u32>,
}

/// What a policy cost and answered, on average over the orders of the seeds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The policy.
    pub policy: String,
    /// Updates of all runs.
    pub updates: f64,
    /// The same as a share of running all.
    pub share: f64,
    /// Share of the arms with the right answer.
    pub right: f64,
    /// Share of the arms with the wrong answer.
    pub wrong: f64,
    /// Share of the arms without an answer.
    pub open: f64,
    /// Share of the orders in which the arm that is best at the end, the control included, was not stopped.
    pub keeps_best: f64,
}

/// A study that is replayed, with what is true of it.
struct Replay<'a> {
    truth: &'a Truth,
    spec: &'a Spec,
    /// Seeds that all arms have.
    seeds: Vec<u64>,
    /// Whether each arm is better than the control by more than the margin.
    is_better: BTreeMap<&'a str, bool>,
    /// The arm with the lowest mean, `None` for the control.
    best: Option<&'a str>,
}

/// Costs and answers of one replay.
#[derive(Default)]
struct Tally {
    updates: f64,
    right: usize,
    wrong: usize,
    open: usize,
    keeps_best: bool,
}

/// A study too small for a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{arms} arms with {seeds} seeds in common: at least one arm and {} seeds are needed", verdict::FEWEST_PAIRS)]
pub struct TooFew {
    /// Number of arms beside the control.
    pub arms: usize,
    /// Number of seeds that all arms and the control have.
    pub seeds: usize,
}

/// Replays all policies on a study; `options` has the rule of the gates.
///
/// # Errors
/// If fewer seeds than a verdict needs are in all arms, or there is nothing to decide.
pub fn economy(truth: &Truth, options: &GateOptions, spec: &Spec) -> Result<Vec<Row>, TooFew> {
    let replay = Replay::new(truth, spec)?;
    let halving = GateOptions { rule: GateRule::Halving, halving: options.halving.clone(), ..GateOptions::default() };
    let off = GateOptions::default();
    let all = replay.seeds.len();
    let first = FIRST_ROUND.min(all);
    let policies: [(&str, &GateOptions, usize, bool); 4] = [
        ("run all", &off, all, false),
        ("halving", &halving, all, false),
        ("gates", options, all, false),
        ("gates, adaptive repeats", options, first, true),
    ];
    let orders = orders(&replay.seeds);
    let mut rows: Vec<Row> = Vec::new();
    for (policy, gates, seeds, is_adaptive) in policies {
        // With all seeds at once, their order does not matter.
        let orders = if is_adaptive { &orders[..] } else { &orders[..1] };
        let tallies: Vec<Tally> = orders.iter().map(|order| replay.play(gates, order, seeds, is_adaptive)).collect();
        let mean = |of: &dyn Fn(&Tally) -> f64| tallies.iter().map(of).sum::<f64>() / tallies.len() as f64;
        let arms = truth.arms.len() as f64;
        let updates = mean(&|tally| tally.updates);
        rows.push(Row {
            policy: policy.into(),
            updates,
            share: updates / rows.first().map_or(updates, |all| all.updates),
            right: mean(&|tally| tally.right as f64 / arms),
            wrong: mean(&|tally| tally.wrong as f64 / arms),
            open: mean(&|tally| tally.open as f64 / arms),
            keeps_best: mean(&|tally| f64::from(u8::from(tally.keeps_best))),
        });
    }
    Ok(rows)
}

/// The rows as a Markdown table.
pub fn to_markdown(rows: &[Row]) -> String {
    let mut text =
        String::from("| policy | updates | of all | right | wrong | no answer | keeps the best |\n|---|---|---|---|---|---|---|\n");
    for row in rows {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let cells = [row.share, row.right, row.wrong, row.open, row.keeps_best].map(percent).join(" | ");
        text += &format!("| {} | {:.0} | {cells} |\n", row.policy, row.updates);
    }
    text
}

/// The loss at the end of a run, and its length.
fn end(course: &Course) -> (f64, u32) {
    course.evals.last().map_or((f64::NAN, 0), |eval| (eval.val_ce, eval.update))
}

impl<'a> Replay<'a> {
    fn new(truth: &'a Truth, spec: &'a Spec) -> Result<Replay<'a>, TooFew> {
        let everywhere = |seed: &&u64| truth.arms.values().all(|runs| runs.contains_key(seed));
        let seeds: Vec<u64> = truth.control.keys().filter(everywhere).copied().collect();
        if truth.arms.is_empty() || seeds.len() < verdict::FEWEST_PAIRS {
            return Err(TooFew { arms: truth.arms.len(), seeds: seeds.len() });
        }
        let mean = |runs: &Runs| seeds.iter().map(|seed| end(&runs[seed]).0).sum::<f64>() / seeds.len() as f64;
        let control = mean(&truth.control);
        let means: BTreeMap<&str, f64> = truth.arms.iter().map(|(name, runs)| (name.as_str(), mean(runs))).collect();
        let best = means.iter().filter(|(_, mean)| **mean < control).min_by(|a, b| a.1.total_cmp(b.1)).map(|(name, _)| *name);
        let is_better = means.iter().map(|(name, mean)| (*name, *mean < control - spec.margin)).collect();
        Ok(Replay { truth, spec, seeds, is_better, best })
    }

    /// Replays one policy with the seeds in this order, of which each arm gets `first` at once.
    fn play(&self, gates: &GateOptions, order: &[u64], first: usize, is_adaptive: bool) -> Tally {
        let seeds = &order[..first];
        let mut left: Vec<&str> = self.truth.arms.keys().map(String::as_str).collect();
        // Updates by run: the furthest that it was made.
        let mut made: BTreeMap<(Option<&str>, u64), u32> = BTreeMap::new();
        made.extend(seeds.iter().map(|seed| ((None, *seed), end(&self.truth.control[seed]).1)));
        for stage in &self.truth.stages {
            made.extend(left.iter().flat_map(|arm| seeds.iter().map(|seed| ((Some(*arm), *seed), *stage))));
            left = self.survivors(gates, &left, seeds, *stage);
        }
        made.extend(left.iter().flat_map(|arm| seeds.iter().map(|seed| ((Some(*arm), *seed), end(&self.truth.arms[*arm][seed]).1))));
        let mut comparison = self.comparison(&left, seeds);
        // Without arms, there is nothing to repeat.
        if is_adaptive && !left.is_empty() {
            let plan = Repeats { policy: repeats::Policy::UntilClear, seeds: order.to_vec(), budget: None };
            loop {
                let step = repeats::next(&comparison, &plan);
                if step.runs.is_empty() {
                    break;
                }
                for wanted in step.runs {
                    let (arm, runs) = match wanted.arm {
                        Some(index) => (Some(left[index]), &self.truth.arms[left[index]]),
                        None => (None, &self.truth.control),
                    };
                    let (loss, updates) = end(&runs[&wanted.seed]);
                    made.insert((arm, wanted.seed), updates);
                    let target = wanted.arm.map_or(&mut comparison.control, |index| &mut comparison.arms[index]);
                    target.values.insert(wanted.seed, Some(loss).filter(|loss| loss.is_finite()));
                }
            }
        }
        let mut tally = Tally {
            updates: made.values().map(|updates| f64::from(*updates)).sum(),
            keeps_best: self.best.is_none_or(|best| left.contains(&best)),
            ..Tally::default()
        };
        let verdict = |place: usize| standing(&comparison, &comparison.arms[place], order).0;
        for (name, is_better) in &self.is_better {
            let answer = match left.iter().position(|arm| arm == name) {
                None => Some(false),
                Some(place) => match verdict(place) {
                    Verdict::Better => Some(true),
                    Verdict::NotClear | Verdict::Unknown => None,
                    Verdict::Worse
                    | Verdict::BetterAndEquivalent
                    | Verdict::WorseAndEquivalent
                    | Verdict::Equivalent
                    | Verdict::Identical => Some(false),
                },
            };
            match answer {
                None => tally.open += 1,
                Some(answer) if answer == *is_better => tally.right += 1,
                Some(_) => tally.wrong += 1,
            }
        }
        tally
    }

    /// The arms that continue after a stage.
    fn survivors(&self, gates: &GateOptions, left: &[&'a str], seeds: &[u64], stage: u32) -> Vec<&'a str> {
        let control: Vec<(u64, Course)> = seeds.iter().map(|seed| (*seed, self.truth.control[seed].until(stage))).collect();
        let courses =
            |arm: &str| -> Vec<(u64, Course)> { seeds.iter().map(|seed| (*seed, self.truth.arms[arm][seed].until(stage))).collect() };
        if gates.rule == GateRule::Halving {
            let losses = |courses: &[(u64, Course)]| courses.iter().map(|(seed, course)| (*seed, end(course).0)).collect();
            let arms = left.iter().map(|arm| halving::Arm { name: (*arm).into(), is_control: false, losses: losses(&courses(arm)) });
            let control = halving::Arm { name: "control".into(), is_control: true, losses: losses(&control) };
            let arms: Vec<halving::Arm> = arms.chain([control]).collect();
            let decisions = halving::rung(&gates.halving, &arms, stage);
            return left.iter().zip(decisions).filter(|(_, decision)| decision.continues(gates)).map(|(arm, _)| *arm).collect();
        }
        let reference = Course::mean("control", &control);
        let continues = |arm: &&str| decide(gates, &Course::mean(arm, &courses(arm)), Some(&reference)).continues(gates);
        left.iter().copied().filter(continues).collect()
    }

    fn comparison(&self, left: &[&str], seeds: &[u64]) -> Comparison {
        let arm = |name: &str, runs: &Runs| {
            verdict::Arm::new(name, seeds.iter().map(|seed| (*seed, Some(end(&runs[seed]).0).filter(|loss| loss.is_finite()))))
        };
        // Arms that were stopped keep their share of alpha.
        let alpha = self.spec.alpha * left.len().max(1) as f64 / self.truth.arms.len() as f64;
        Comparison {
            spec: Spec { alpha, ..self.spec.clone() },
            control: arm("control", &self.truth.control),
            arms: left.iter().map(|name| arm(name, &self.truth.arms[*name])).collect(),
            key: None,
        }
    }
}

/// All orders of the seeds, or a fixed sample of them.
fn orders(seeds: &[u64]) -> Vec<Vec<u64>> {
    let count = (1..=seeds.len()).try_fold(1usize, |product, n| product.checked_mul(n));
    if count.is_some_and(|count| count <= MOST_ORDERS) {
        let mut all = vec![Vec::new()];
        for (place, seed) in seeds.iter().enumerate() {
            let insert = |order: &Vec<u64>, at: usize| [&order[..at], &[*seed], &order[at..]].concat();
            all = all.iter().flat_map(|order| (0..=place).map(move |at| insert(order, at))).collect();
        }
        return all;
    }
    let shuffled = |number: u32| {
        let mut order = seeds.to_vec();
        for place in (1..order.len()).rev() {
            let random = Stream { seed: 0, step: number, stream: 0 }.bits(place as u32)[0];
            order.swap(place, random as usize % (place + 1));
        }
        order
    };
    (0..MOST_ORDERS as u32).map(shuffled).collect()
}
