//! A conclusion rests on runs that have a result.

use super::study::{Status, Study};
use super::{Check, Found, Severity, Stage, found};

pub const CHECK: Check = Check { id: "no-evidence", stage: Stage::After, claim: "a conclusion rests on runs that have a result", find };

fn find(study: &Study) -> Vec<Found> {
    let mut all = Vec::new();
    let mut told: Vec<String> = Vec::new();
    for (text, comparison) in study.pairs() {
        let of_pair: Vec<&super::Measured> =
            study.runs.iter().filter(|run| run.arm == comparison.better || run.arm == comparison.than).collect();
        let missing = [&comparison.better, &comparison.than].into_iter().any(|arm| study.runs_of(arm).next().is_none());
        if missing && !told.contains(&text) {
            let usable = of_pair.iter().filter(|run| run.is_usable()).count();
            let message = format!(
                "NO EVIDENCE  {} and {}: {usable} of {} runs succeeded{}. No conclusion: \"{text}\".",
                comparison.better,
                comparison.than,
                of_pair.len(),
                reason(&of_pair)
            );
            // Without a claim nothing is concluded yet.
            all.push(found(if study.claims.is_empty() { Severity::Warn } else { Severity::Refuse }, &text, message));
            told.push(text);
        }
    }
    for arm in study.arms.iter().map(|arm| arm.name.as_str()) {
        let runs: Vec<&super::Measured> = study.runs.iter().filter(|run| run.arm == arm).collect();
        let failed = runs.iter().filter(|run| !run.is_usable()).count();
        if failed > 0 {
            let text = format!("FAILED RUNS  {arm}: {failed} of {} runs have no result{}.", runs.len(), reason(&runs));
            all.push(found(Severity::Warn, arm, text));
        }
    }
    all
}

fn reason(runs: &[&super::Measured]) -> String {
    let reasons = runs.iter().find_map(|run| match &run.status {
        Status::Failed(reason) if !reason.is_empty() => Some(reason),
        _ => None,
    });
    reasons.map_or(String::new(), |reason| format!(" ({reason})"))
}
