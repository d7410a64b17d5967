//! Stops a run that no longer improves; promotes one that is better than the reference at the same number of updates.
//!
//! *Stop* if all hold:
//! 1. Plateau: none of the last `stop.evaluations` evaluations is more than `stop.min_gain` below the best one before it.
//! 2. Flat training loss: |slope| * window < `stop.flat`, with the least-squares slope over the last window of updates.
//! 3. Routing does not improve: none of those evaluations has a load entropy more than `routing.entropy_gain` above the best one before
//!    it, or a maximum load that is lower by more than the share `routing.load_gain`. A model without routers meets this condition.
//!
//! *Promote* if one holds:
//! 1. The loss is at most the reference's - `promote.margin`.
//! 2. The loss differs from the reference's by at most `promote.noise`, and the run has better routing (as in 3, compared with the
//!    reference), or its FLOP per token or its parameters are lower by at least the share `promote.efficiency`.
//!
//! A run that meets the conditions of both is promoted. A condition that cannot be evaluated yet does not hold.

use super::{Course, Decision, Numbers, ROUNDING, Verdict};
use crate::lab::evaluation::{EvalPoint, Routing};
use crate::run::gates::{GateOptions, GateRule, PromoteOptions, RoutingOptions, StopOptions};

/// A condition: whether it holds, in words.
struct Condition {
    holds: bool,
    text: String,
}

impl Condition {
    fn new(holds: bool, text: impl Into<String>) -> Condition {
        Condition { holds, text: text.into() }
    }
}

pub(super) fn decide(options: &GateOptions, course: &Course, last: &EvalPoint, reference: Option<&Course>) -> Decision {
    let mut numbers = Numbers::default();
    let losses: Vec<f64> = course.evals.iter().map(|eval| eval.val_ce).collect();
    numbers.add("val_ce", last.val_ce, None);
    numbers.add("best_val_ce", course.best().unwrap_or(last).val_ce, None);
    // The moving improvement over the last two evaluations.
    if let Some((_, gain)) = gains(&losses, 2, |before, now| before - now) {
        numbers.add("best_val_ce_gain_of_last_2", gain.max(0.0), None);
    }
    let stop = [
        plateau(&options.stop, &losses, &mut numbers),
        flat(&options.stop, course, last, &mut numbers),
        routing(&options.routing, options.stop.evaluations, course, &mut numbers),
    ];
    let promote = promote(options, course, last, reference, &mut numbers);
    let verdict = match () {
        () if promote.holds => Verdict::Promote,
        () if stop.iter().all(|condition| condition.holds) => Verdict::Stop,
        () => Verdict::Wait,
    };
    let reason = match verdict {
        Verdict::Promote => promote.text,
        Verdict::Stop => stop.map(|condition| condition.text).join("; "),
        // What keeps the run from being stopped, and from being promoted.
        Verdict::Wait => {
            let missing = stop.into_iter().filter(|condition| !condition.holds).chain([promote]);
            missing.map(|condition| condition.text).collect::<Vec<_>>().join("; ")
        }
    };
    Decision::new(verdict, GateRule::StopPromote, last.update, reason, numbers)
}

/// For the last `n` values, the largest gain of one on the best before it, where `gain(before, now)` is positive if `now` is better;
/// with the gain of the best of them on the best before all of them. `None` if there is no value before them.
fn gains<T: Copy>(values: &[T], n: usize, gain: impl Fn(T, T) -> f64) -> Option<(f64, f64)> {
    let start = values.len().checked_sub(n).filter(|start| *start > 0)?;
    let better = |best: T, value: T| if gain(best, value) > 0.0 { value } else { best };
    let before = values[..start].iter().copied().reduce(better)?;
    let (mut best, mut largest) = (before, f64::NEG_INFINITY);
    for &value in &values[start..] {
        largest = largest.max(gain(best, value));
        best = better(best, value);
    }
    Some((largest, gain(before, best)))
}

fn plateau(options: &StopOptions, losses: &[f64], numbers: &mut Numbers) -> Condition {
    let StopOptions { evaluations, min_gain, .. } = *options;
    let Some((gain, _)) = gains(losses, evaluations as usize, |before, now| before - now) else {
        return Condition::new(false, format!("{} of {} evaluations needed to see a plateau", losses.len(), evaluations + 1));
    };
    numbers.add("largest_val_ce_gain", gain, min_gain);
    let text = |verb| format!("the validation loss {verb} in the last {evaluations} evaluations: the largest gain is {gain:.4}");
    match gain <= min_gain + ROUNDING {
        true => Condition::new(true, text(&format!("did not improve by more than {min_gain}"))),
        false => Condition::new(false, text(&format!("improved by more than {min_gain}"))),
    }
}

fn flat(options: &StopOptions, course: &Course, last: &EvalPoint, numbers: &mut Numbers) -> Condition {
    let window = match options.window {
        0 => last.update - course.evals.iter().rev().nth(1).map_or(0, |eval| eval.update),
        window => window,
    };
    let from = (last.update + 1).saturating_sub(window);
    let Some(change) = course.train_change(from, last.update) else {
        return Condition::new(false, "the slope of the training loss is not known");
    };
    numbers.add("train_ce_slope_times_window", change, options.flat);
    numbers.add("window", f64::from(window), None);
    let holds = change.abs() < options.flat;
    let what = if holds { "is flat" } else { "is not flat" };
    Condition::new(
        holds,
        format!("the training loss {what}: its slope over {window} updates makes {change:+.4}, flat is below {}", options.flat),
    )
}

fn routing(options: &RoutingOptions, evaluations: u32, course: &Course, numbers: &mut Numbers) -> Condition {
    let routing: Vec<Routing> = course.evals.iter().filter_map(|eval| eval.routing).collect();
    if routing.is_empty() {
        return Condition::new(true, "there are no routers");
    }
    let (entropies, loads): (Vec<f64>, Vec<f64>) = routing.iter().map(|routing| (routing.entropy, routing.max_load)).unzip();
    let entropy = gains(&entropies, evaluations as usize, |before, now| now - before);
    let load = gains(&loads, evaluations as usize, |before, now| 1.0 - now / before);
    let (Some((entropy, _)), Some((load, _))) = (entropy, load) else {
        return Condition::new(false, format!("{} of {} evaluations needed to compare routing", routing.len(), evaluations + 1));
    };
    numbers.add("largest_load_entropy_gain", entropy, options.entropy_gain);
    numbers.add("largest_max_load_gain", load, options.load_gain);
    let improves = is_better(options, entropy, load);
    let what = if improves { "still improves" } else { "does not improve" };
    Condition::new(!improves, format!("routing {what}: load entropy {entropy:+.4}, maximum load {:+.1} %", -100.0 * load))
}

fn is_better(options: &RoutingOptions, entropy_gain: f64, load_gain: f64) -> bool {
    entropy_gain > options.entropy_gain + ROUNDING || load_gain > options.load_gain + ROUNDING
}

fn promote(options: &GateOptions, course: &Course, last: &EvalPoint, reference: Option<&Course>, numbers: &mut Numbers) -> Condition {
    let Some(reference) = reference else { return Condition::new(false, "there is no reference to compare with") };
    let Some(at) = reference.at(last.update) else {
        return Condition::new(false, format!("{} has no evaluation at update {}", reference.name, last.update));
    };
    let PromoteOptions { margin, noise, efficiency } = options.promote;
    let difference = last.val_ce - at.val_ce;
    numbers.add("val_ce_minus_reference", difference, -margin);
    let compared = format!("{difference:+.4} to {} at update {}", reference.name, last.update);
    if difference <= -margin + ROUNDING {
        return Condition::new(true, format!("better than the reference by at least {margin}: {compared}"));
    }
    numbers.add("difference_that_counts_as_equal", difference.abs(), noise);
    if difference.abs() > noise + ROUNDING {
        return Condition::new(false, format!("neither better by {margin} nor equal within {noise}: {compared}"));
    }
    let mut better = Vec::new();
    if let (Some(own), Some(other)) = (last.routing, at.routing) {
        let (entropy, load) = (own.entropy - other.entropy, 1.0 - own.max_load / other.max_load);
        numbers.add("load_entropy_minus_reference", entropy, options.routing.entropy_gain);
        numbers.add("max_load_below_reference", load, options.routing.load_gain);
        if is_better(&options.routing, entropy, load) {
            better.push(format!("better routing (load entropy {entropy:+.4}, maximum load {:+.1} %)", -100.0 * load));
        }
    }
    let costs = [
        ("FLOP per token", "flops_below_reference", course.flops_per_token, reference.flops_per_token),
        ("parameters", "parameters_below_reference", course.parameters.map(|n| n as f64), reference.parameters.map(|n| n as f64)),
    ];
    for (what, name, own, other) in costs {
        let (Some(own), Some(other)) = (own, other) else { continue };
        let saved = 1.0 - own / other;
        numbers.add(name, saved, efficiency);
        if saved >= efficiency - ROUNDING {
            better.push(format!("{:.1} % fewer {what}", 100.0 * saved));
        }
    }
    match better.is_empty() {
        true => Condition::new(false, format!("equal within {noise}, but neither better balanced nor cheaper: {compared}")),
        false => Condition::new(true, format!("equal within {noise} ({compared}), with {}", better.join(" and "))),
    }
}
