//! What a rule sees of a run.

use serde::{Deserialize, Serialize};

use crate::lab::evaluation::{EvalPoint, Routing};

/// The curves of a run, in the order of updates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Course {
    /// Name of the run.
    pub name: String,
    /// Its evaluations.
    pub evals: Vec<EvalPoint>,
    /// Training cross-entropy by update.
    #[serde(default)]
    pub train: Vec<(u32, f64)>,
    /// Lost devices and roll-backs, by the update at which each happened.
    #[serde(default)]
    pub faults: Vec<u32>,
    /// FLOP to train on one token, forward and backward.
    #[serde(default)]
    pub flops_per_token: Option<f64>,
    /// Number of parameters.
    #[serde(default)]
    pub parameters: Option<u64>,
}

impl Course {
    /// The same run when it had made `update` updates.
    pub fn until(&self, update: u32) -> Course {
        Course {
            name: self.name.clone(),
            evals: self.evals.iter().filter(|eval| eval.update <= update).copied().collect(),
            train: self.train.iter().filter(|(at, _)| *at <= update).copied().collect(),
            faults: self.faults.iter().filter(|at| **at <= update).copied().collect(),
            ..*self
        }
    }

    /// The evaluation after exactly `update` updates.
    pub fn at(&self, update: u32) -> Option<&EvalPoint> {
        self.evals.iter().find(|eval| eval.update == update)
    }

    /// The mean of the courses of an arm, by seed, at the updates that all of them have.
    pub fn mean(name: &str, courses: &[(u64, Course)]) -> Course {
        let Some(((_, first), others)) = courses.split_first() else { return Course { name: name.into(), ..Course::default() } };
        let n = courses.len() as f64;
        let eval = |eval: &EvalPoint| {
            let all = others.iter().map(|(_, course)| course.at(eval.update).copied()).chain([Some(*eval)]).collect::<Option<Vec<_>>>()?;
            let routing = all.iter().map(|eval| eval.routing).collect::<Option<Vec<Routing>>>().map(|all| Routing {
                entropy: all.iter().map(|routing| routing.entropy).sum::<f64>() / n,
                max_load: all.iter().map(|routing| routing.max_load).sum::<f64>() / n,
                spread: all.iter().map(|routing| routing.spread).fold(f64::INFINITY, f64::min),
            });
            Some(EvalPoint { val_ce: all.iter().map(|eval| eval.val_ce).sum::<f64>() / n, routing, ..*eval })
        };
        let loss = |(update, ce): &(u32, f64)| {
            let at =
                |course: &Course| course.train.binary_search_by_key(update, |(update, _)| *update).ok().map(|place| course.train[place].1);
            let rest = others.iter().map(|(_, course)| at(course)).sum::<Option<f64>>()?;
            Some((*update, (ce + rest) / n))
        };
        let mut faults: Vec<u32> = courses.iter().flat_map(|(_, course)| course.faults.iter().copied()).collect();
        faults.sort_unstable();
        Course {
            name: name.into(),
            evals: first.evals.iter().filter_map(eval).collect(),
            train: first.train.iter().filter_map(loss).collect(),
            faults,
            flops_per_token: first.flops_per_token,
            parameters: first.parameters,
        }
    }

    /// The evaluation with the lowest finite loss; the first of several.
    pub fn best(&self) -> Option<&EvalPoint> {
        let finite = self.evals.iter().filter(|eval| eval.val_ce.is_finite());
        finite.reduce(|best, eval| if eval.val_ce < best.val_ce { eval } else { best })
    }

    /// Least-squares change of the training loss over updates `from..=to`: the slope times their number. `None` with fewer than two
    /// values, or if one is not finite.
    pub(super) fn train_change(&self, from: u32, to: u32) -> Option<f64> {
        let points: Vec<(f64, f64)> =
            self.train.iter().filter(|(update, _)| (from..=to).contains(update)).map(|(update, ce)| (f64::from(*update), *ce)).collect();
        let n = points.len() as f64;
        let (mean_x, mean_y) = (points.iter().map(|(x, _)| x).sum::<f64>() / n, points.iter().map(|(_, y)| y).sum::<f64>() / n);
        let spread: f64 = points.iter().map(|(x, _)| (x - mean_x).powi(2)).sum();
        let slope = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum::<f64>() / spread;
        let change = slope * f64::from(to - from + 1);
        (points.len() > 1 && change.is_finite()).then_some(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_course_has_what_all_seeds_have() {
        let course = |evals: &[(u32, f64)], train: &[(u32, f64)]| Course {
            evals: evals.iter().map(|(update, val_ce)| EvalPoint { update: *update, val_ce: *val_ce, ..EvalPoint::default() }).collect(),
            train: train.to_vec(),
            ..Course::default()
        };
        let courses = [(1, course(&[(10, 2.0), (20, 1.0)], &[(1, 3.0), (2, 2.5)])), (2, course(&[(10, 4.0)], &[(1, 5.0)]))];
        let mean = Course::mean("arm", &courses);
        assert_eq!(mean.evals.iter().map(|eval| (eval.update, eval.val_ce)).collect::<Vec<_>>(), [(10, 3.0)]);
        assert_eq!(mean.train, [(1, 4.0)]);
    }
}
