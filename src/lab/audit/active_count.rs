//! A published share of active parameters counts the experts that a token takes.

use super::study::{Statement, Study};
use super::{Check, Found, Severity, Stage, found, grouped};
use crate::run::model::cost;
use crate::run::model::parameters::Part;

pub const CHECK: Check =
    Check { id: "active-count", stage: Stage::Either, claim: "active parameters are counted from the model, not from names", find };

fn find(study: &Study) -> Vec<Found> {
    let report = |claim: &super::Claim| {
        let Statement::ActiveShare { arm, share } = &claim.says else { return None };
        let config = &study.arm(arm)?.config;
        let counts = cost::counts(&config.model, &config.parameters());
        let own = counts.active as f64 / counts.total as f64;
        if (own - share).abs() < 0.001 {
            return None;
        }
        let (_, k) = config.model.experts();
        let without = (counts.total - counts.parts.get(&Part::Experts).copied().unwrap_or(0)) as f64 / counts.total as f64;
        let cause = if (without - share).abs() < 0.001 { " counts no expert" } else { " does not agree" };
        let text = format!(
            "ACTIVE COUNT  {} of {} ({:.2} %) are active at top-{k}; the figure {:.1} %{cause}.",
            grouped(counts.active),
            grouped(counts.total),
            100.0 * own,
            100.0 * share
        );
        Some(found(Severity::Warn, &claim.text, text))
    };
    study.claims.iter().filter_map(report).collect()
}
