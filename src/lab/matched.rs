//! Two runs compared at equal updates, tokens, floating-point operations or seconds, and the time to a target.
//!
//! A run is evaluated now and then, so at most positions there is no value. The value at x is that of the *last evaluation at or before x*: what
//! the run had by then, never what it reached later. Nothing is interpolated.

use super::verdict::Better;
pub use crate::run::suite::Axis;
use serde::{Deserialize, Serialize};

/// An evaluation of a run: where on the axis it was made, and the metric.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Position on the axis.
    pub x: f64,
    /// The metric.
    pub value: f64,
}

/// The last evaluation at or before `x`; `None` if there is none. `evaluations` ascend in x.
pub fn last_at(evaluations: &[Evaluation], x: f64) -> Option<Evaluation> {
    evaluations.iter().take_while(|evaluation| evaluation.x <= x).last().copied()
}

/// Two runs at an equal position.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Matched {
    /// What is equal.
    pub axis: Axis,
    /// The position.
    pub x: f64,
    /// The evaluation used of each run.
    pub evaluations: [Evaluation; 2],
}

impl Matched {
    /// Compares two runs at `x`, or by default at the furthest position that both have reached. `None` if one has no evaluation by
    /// then, or has not got that far: a run's last value does not stand for a position that it never reached.
    pub fn of(axis: Axis, runs: [&[Evaluation]; 2], x: Option<f64>) -> Option<Matched> {
        let reached = runs[0].last()?.x.min(runs[1].last()?.x);
        let x = x.unwrap_or(reached);
        let evaluations = [last_at(runs[0], x)?, last_at(runs[1], x)?];
        (x <= reached).then_some(Matched { axis, x, evaluations })
    }

    /// First run minus second.
    pub fn difference(&self) -> f64 {
        self.evaluations[0].value - self.evaluations[1].value
    }

    /// The sentence of a report.
    pub fn sentence(&self, metric: &str, names: [&str; 2]) -> String {
        let [first, second] = self.evaluations;
        let at = |evaluation: Evaluation| match evaluation.x == self.x {
            true => String::new(),
            false => format!(" (evaluated at {})", evaluation.x),
        };
        format!(
            "At {} {}: {metric} {:.4}{} of {} against {:.4}{} of {}, difference {:+.4}.",
            self.x,
            unit(self.axis),
            first.value,
            at(first),
            names[0],
            second.value,
            at(second),
            names[1],
            self.difference()
        )
    }
}

/// When a run reached a target.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// The first evaluation at the target or better.
    pub x: f64,
    /// The last evaluation that was worse than the target again, after that; `None` if the run stayed there.
    pub lost_at: Option<f64>,
}

/// When a run first reached `target`; `None` if no evaluation did. Values that are not finite have not reached it.
pub fn time_to(evaluations: &[Evaluation], target: f64, better: Better) -> Option<Reached> {
    let is_there = |evaluation: &Evaluation| match better {
        Better::Lower => evaluation.value <= target,
        Better::Higher => evaluation.value >= target,
    } && evaluation.value.is_finite();
    let first = evaluations.iter().position(is_there)?;
    let lost = evaluations[first..].iter().rev().find(|evaluation| !is_there(evaluation));
    Some(Reached { x: evaluations[first].x, lost_at: lost.map(|evaluation| evaluation.x) })
}

impl Reached {
    /// The sentence of a report, about the run `name`.
    pub fn sentence(&self, name: &str, metric: &str, target: f64, axis: Axis) -> String {
        let stays = self.lost_at.map_or("and stays there".into(), |x| format!("but is worse again up to {x}"));
        format!("{name} reaches {metric} {target} by {} {}, {stays}.", self.x, unit(axis))
    }
}

/// The unit after a number.
pub(super) fn unit(axis: Axis) -> &'static str {
    match axis {
        Axis::Updates => "updates",
        Axis::Tokens => "tokens",
        Axis::Flops => "FLOP",
        Axis::Seconds => "seconds",
    }
}
