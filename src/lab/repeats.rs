//! Which runs to make next, so that every arm of a comparison gets its verdict with few runs.
//!
//! The first [`FIRST_ROUND`] seeds are run everywhere. Then each round adds the next seed to the arms that are neither settled nor given up,
//! and to the control, until there are none or the budget is spent. Where the budget does not suffice for a round, the arms with the
//! fewest expected runs to a verdict come first.
//!
//! The plan is a pure function of the results, and of nothing else: not of time, of the number of workers, or of the order in which runs
//! end. The arms of a round are decided by the results of earlier seeds alone, so a round that is half done is completed as it
//! was planned, and a suite that was interrupted resumes with the runs it would have made. A run is never made twice: a failed run is a result
//! (missing, see [`verdict`](super::verdict)), and its arm goes on with the next seed until [`GIVE_UP`] runs in a row have failed.
//!
//! The verdicts hold whatever the rule for adding repeats (see [`sequential`](super::statistics::sequential)), so stopping at the first clear
//! verdict costs nothing.

use super::verdict::{Arm, Comparison, expected, standing};
use serde::{Deserialize, Serialize};

/// Number of seeds that every arm gets before anything is decided.
pub const FIRST_ROUND: usize = 3;
/// An arm whose last so many runs all failed gets no more.
pub const GIVE_UP: usize = 3;

/// How often arms are repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Every arm gets this many seeds.
    Fixed(usize),
    /// Arms get seeds until their verdict is settled.
    UntilClear,
}

/// The rule by which repeats are added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeats {
    /// How often arms are repeated.
    pub policy: Policy,
    /// The seeds, in the order in which they are used. Their number is the largest number of repeats of an arm.
    pub seeds: Vec<u64>,
    /// The largest number of runs of all arms together, the control's included; `None` for no limit.
    pub budget: Option<usize>,
}

/// A run that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Wanted {
    /// Index into the arms of the comparison; `None` for the control.
    pub arm: Option<usize>,
    /// The seed.
    pub seed: u64,
}

/// Where an arm stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It gets more runs.
    Open {
        /// The number of pairs at which a verdict is expected, if mean and standard deviation stay as they are; `None` if unknown or beyond
        /// the seeds.
        expected: Option<usize>,
    },
    /// Its verdict is settled, or it has its fixed number of repeats.
    Done,
    /// It, or the control, has only failed lately.
    GivenUp,
    /// All seeds are used.
    OutOfSeeds,
    /// The budget does not suffice for another pair.
    OutOfBudget,
}

impl State {
    fn is_open(self) -> bool {
        matches!(self, State::Open { .. })
    }

    fn expected(self) -> Option<usize> {
        if let State::Open { expected } = self { expected } else { None }
    }
}

/// The next step of a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The runs to make now, in this order; any number of them may be made at once. Includes those that have been started but have no
    /// result yet. Empty when the comparison is done.
    pub runs: Vec<Wanted>,
    /// Where each arm stands.
    pub arms: Vec<State>,
}

/// The runs to make next, given the results so far. The results of a comparison are the values of its arms; see the module.
pub fn next(comparison: &Comparison, repeats: &Repeats) -> Step {
    let seeds = match repeats.policy {
        Policy::Fixed(n) => &repeats.seeds[..n.min(repeats.seeds.len())],
        Policy::UntilClear => &repeats.seeds,
    };
    let unconditional = match repeats.policy {
        Policy::Fixed(_) => seeds.len(),
        Policy::UntilClear => FIRST_ROUND.min(seeds.len()),
    };
    let mut budget = repeats.budget.unwrap_or(usize::MAX);
    let mut runs = Vec::new();
    let mut arms = vec![State::Open { expected: None }; comparison.arms.len()];
    for round in 0..seeds.len() {
        // Rounds without a condition may run together; any other waits for the results of all before.
        if round >= unconditional {
            if !runs.is_empty() {
                return Step { runs, arms };
            }
            close(comparison, &seeds[..round], &mut arms);
        }
        let wanted = afford(comparison, seeds, round, &mut budget, &mut arms);
        runs.extend(wanted.into_iter().filter(|wanted| !has_result(comparison, *wanted)));
    }
    if runs.is_empty() {
        if repeats.policy == Policy::UntilClear {
            close(comparison, seeds, &mut arms);
        }
        let end = if repeats.policy == Policy::UntilClear { State::OutOfSeeds } else { State::Done };
        arms.iter_mut().filter(|state| state.is_open()).for_each(|state| *state = end);
    }
    Step { runs, arms }
}

/// Closes the open arms that are settled or given up by the results of `seeds`.
fn close(comparison: &Comparison, seeds: &[u64], arms: &mut [State]) {
    let control_fails = keeps_failing(&comparison.control, seeds);
    for (arm, state) in comparison.arms.iter().zip(arms).filter(|(_, state)| state.is_open()) {
        let (verdict, _) = standing(comparison, arm, seeds);
        if verdict.is_settled() {
            *state = State::Done;
        } else if control_fails || keeps_failing(arm, seeds) || !comparison.control.is_comparable(arm) {
            *state = State::GivenUp;
        }
    }
}

/// The runs of the next one of `seeds` that the budget allows: the control's, then those of the open arms, soonest verdict first. Closes
/// the arms that it does not allow.
fn afford(comparison: &Comparison, seeds: &[u64], round: usize, budget: &mut usize, arms: &mut [State]) -> Vec<Wanted> {
    let seed = seeds[round];
    let control = Wanted { arm: None, seed };
    if comparison.arms.is_empty() {
        let affords = *budget > 0;
        *budget -= usize::from(affords);
        return if affords { vec![control] } else { Vec::new() };
    }
    let mut open: Vec<usize> = (0..arms.len()).filter(|index| arms[*index].is_open()).collect();
    let is_complete = || open.iter().all(|index| comparison.arms[*index].values.contains_key(&seed));
    // The order costs more than the rest, so it is found only where something depends on it.
    if *budget <= open.len() || !is_complete() {
        let test = comparison.spec.test(comparison.arms.len());
        for index in &open {
            let (_, moments) = standing(comparison, &comparison.arms[*index], &seeds[..round]);
            arms[*index] = State::Open { expected: expected(&comparison.spec, &test, &moments, seeds.len()) };
        }
        open.sort_by_key(|index| (arms[*index].expected().unwrap_or(usize::MAX), *index));
    }
    let mut wanted = Vec::new();
    for index in open {
        let with_control: &[Wanted] = if wanted.is_empty() { &[control] } else { &[] };
        if *budget <= with_control.len() {
            arms[index] = State::OutOfBudget;
            continue;
        }
        *budget -= with_control.len() + 1;
        wanted.extend(with_control);
        wanted.push(Wanted { arm: Some(index), seed });
    }
    wanted
}

fn has_result(comparison: &Comparison, wanted: Wanted) -> bool {
    let arm = wanted.arm.map_or(&comparison.control, |index| &comparison.arms[index]);
    arm.values.contains_key(&wanted.seed)
}

/// Whether the last [`GIVE_UP`] runs of an arm all failed.
fn keeps_failing(arm: &Arm, seeds: &[u64]) -> bool {
    let made: Vec<u64> = seeds.iter().copied().filter(|seed| arm.values.contains_key(seed)).collect();
    made.len() >= GIVE_UP && made.iter().rev().take(GIVE_UP).all(|seed| arm.value(*seed).is_none())
}
