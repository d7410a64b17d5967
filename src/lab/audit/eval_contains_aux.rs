//! Evaluation losses contain the cross-entropy alone.

use super::study::{Evaluator, Study};
use super::{Check, Found, Severity, Stage, found};

pub const CHECK: Check = Check { id: "eval-contains-aux", stage: Stage::After, claim: "evaluation losses are cross-entropies", find };

fn find(study: &Study) -> Vec<Found> {
    let mut all = Vec::new();
    for (text, comparison) in study.pairs() {
        if !comparison.metric.contains("loss") {
            continue;
        }
        let run = |arm: &str| study.runs.iter().find(|run| run.arm == arm && run.is_usable());
        let (Some(one), Some(other)) = (run(&comparison.better), run(&comparison.than)) else { continue };
        if [one, other].into_iter().all(|run| others(&run.evaluator).is_empty()) {
            continue;
        }
        let values = [one, other].map(|run| run.value(&comparison.metric, comparison.at));
        let gap = values[0].zip(values[1]).map(|(a, b)| (a - b).abs());
        let bounds: Option<Vec<f64>> = [one, other]
            .into_iter()
            .map(|run| if others(&run.evaluator).is_empty() { Some(0.0) } else { run.evaluator.other_terms_at_most })
            .collect();
        let bound = bounds.map(|bounds| bounds.into_iter().fold(0.0, f64::max));
        let terms = |run: &super::Measured| format!("{} in {}", run.evaluator.terms.join(" + "), run.arm);
        let what = format!("EVAL CONTAINS AUX  {} = {}, {}", comparison.metric, terms(one), terms(other));
        let (severity, rest) = match (gap, bound) {
            (Some(gap), Some(bound)) if gap > bound => {
                (Severity::Warn, format!("the gap of {gap:.3} is more than the other terms can explain (at most {bound})"))
            }
            (_, Some(bound)) => (Severity::Refuse, format!("the other terms may account for {bound}: not comparable")),
            _ => (Severity::Refuse, "not comparable".to_owned()),
        };
        all.push(found(severity, &text, format!("{what}; {rest}.")));
    }
    all
}

fn others(evaluator: &Evaluator) -> Vec<&String> {
    evaluator.terms.iter().filter(|term| *term != "ce").collect()
}
