//! A decision that is studied turns out in more than one way.

use super::study::{Status, Study};
use super::{Check, Found, Severity, Stage, found};

pub const CHECK: Check =
    Check { id: "degenerate-decision", stage: Stage::After, claim: "a decision that is studied can go either way", find };

/// Share of one outcome from which a decision is none.
const ALWAYS: f64 = 0.999;

fn find(study: &Study) -> Vec<Found> {
    let mut all = Vec::new();
    for run in study.runs.iter().filter(|run| run.is_usable()) {
        for decision in run.decisions.iter().filter(|decision| decision.share >= ALWAYS) {
            let text = format!(
                "DEGENERATE DECISION  {}: {} = {} in {:.0} % of steps; {} cannot matter.",
                run.arm,
                decision.name,
                decision.value,
                100.0 * decision.share,
                decision.settings
            );
            all.push(found(Severity::Refuse, &run.arm, text));
        }
        if run.may_stop_early && run.status == Status::Completed {
            let studied = study.arm(&run.arm).is_some_and(|arm| arm.changes.keys().any(|key| key.contains("early_stopping")));
            let text = format!("DEGENERATE DECISION  {}: early stopping was never reached; its settings cannot matter.", run.arm);
            all.push(found(if studied { Severity::Refuse } else { Severity::Note }, &run.arm, text));
        }
    }
    all
}
