//! Keeps a run only while it stays close to the reference: the gap is at most `gap.first` at the first evaluation that both have, and
//! has not grown by more than `gap.widening` since; there were no restarts; no layer's routing has collapsed.
//!
//! The gap is the run's validation loss minus the reference's at the same number of updates. A restart is a lost device or a roll-back;
//! that a run was interrupted and resumed does not count.

use super::{Course, Decision, Numbers, ROUNDING, Verdict};
use crate::lab::evaluation::EvalPoint;
use crate::run::gates::{GapOptions, GateOptions, GateRule};

pub(super) fn decide(options: &GateOptions, course: &Course, last: &EvalPoint, reference: &Course) -> Decision {
    let GapOptions { first: most, widening } = options.gap;
    let mut numbers = Numbers::default();
    let mut problems = Vec::new();
    numbers.add("restarts", course.faults.len() as f64, 0.0);
    if !course.faults.is_empty() {
        problems.push(format!("restarts after a lost device, or roll-backs: {}", course.faults.len()));
    }
    if let Some(routing) = last.routing {
        numbers.add("least_routing_spread", routing.spread, options.routing.collapse);
        if routing.spread < options.routing.collapse {
            problems
                .push(format!("the routing of a layer has collapsed: spread {:.3}, at least {}", routing.spread, options.routing.collapse));
        }
    }
    let gaps: Vec<(u32, f64)> =
        course.evals.iter().filter_map(|eval| Some((eval.update, eval.val_ce - reference.at(eval.update)?.val_ce))).collect();
    let text = match gaps[..] {
        [] => format!("{} has no evaluation at the same number of updates", reference.name),
        [(first_at, first), ..] => {
            numbers.add("first_gap", first, most);
            if first > most + ROUNDING {
                problems.push(format!("the first gap, at update {first_at}, is {first:+.4}, more than {most}"));
            }
            let (at, gap) = gaps[gaps.len() - 1];
            numbers.add("gap_growth", gap - first, widening);
            if gap - first > widening + ROUNDING {
                problems.push(format!(
                    "the gap widened from {first:+.4} at update {first_at} to {gap:+.4} at update {at}, by more than {widening}"
                ));
            }
            format!("the gap to {} was {first:+.4} at update {first_at} and is {gap:+.4} at update {at}", reference.name)
        }
    };
    let (verdict, reason) = match (problems.is_empty(), gaps.len()) {
        (false, _) => (Verdict::Stop, problems.join("; ")),
        (true, 0 | 1) => (Verdict::Wait, text + "; whether it widens is known after two common evaluations"),
        (true, _) => (Verdict::Promote, text),
    };
    Decision::new(verdict, GateRule::Gap, last.update, reason, numbers)
}
