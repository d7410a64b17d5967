//! An arm differs from its control in the keys that it declares, and in no other.

use super::study::{Study, differences};
use super::{Check, Found, Severity, Stage, found};

pub const CHECK: Check =
    Check { id: "undeclared-change", stage: Stage::Before, claim: "an arm differs from its control only in what it declares", find };

fn find(study: &Study) -> Vec<Found> {
    let report = |(arm, control): (&super::Arm, &super::Arm)| {
        let others: Vec<String> = differences(&control.config, &arm.config)
            .into_iter()
            .filter(|change| !arm.changes.contains_key(&change.key))
            .map(|change| format!("{} {} → {}", change.key, change.from, change.to))
            .collect();
        let declared: Vec<&str> = arm.changes.keys().map(String::as_str).collect();
        (!others.is_empty()).then(|| {
            let text = format!("UNDECLARED CHANGE  {} declares {}, but also differs in {}.", arm.name, list(&declared), others.join(", "));
            found(Severity::Warn, &arm.name, text)
        })
    };
    study.against_control().filter_map(report).collect()
}

fn list(keys: &[&str]) -> String {
    if keys.is_empty() { "nothing".into() } else { keys.join(", ") }
}
