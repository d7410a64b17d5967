//! Arms that are said to be equal in a quantity are.

use super::study::{Quantity, Statement, Study};
use super::{Check, Found, Severity, Stage, found};

pub const CHECK: Check = Check { id: "not-matched", stage: Stage::Either, claim: "arms that are said to match do", find };

/// Relative difference up to which two arms match.
const TOLERANCE: f64 = 0.02;

fn find(study: &Study) -> Vec<Found> {
    let report = |claim: &super::Claim| {
        let Statement::Matches { arm, to, quantity } = &claim.says else { return None };
        let (own, control) = (&study.arm(arm)?.config, &study.arm(to)?.config);
        let ratio = quantity.of(own) / quantity.of(control);
        if (ratio - 1.0).abs() <= TOLERANCE {
            return None;
        }
        let (_, k) = own.model.experts();
        let advice = match quantity {
            Quantity::ActiveFfn => {
                let wanted = f64::from(k) * f64::from(own.model.ffn.width) / ratio;
                format!(" A match would have K·F ≈ {}.", super::grouped(wanted.round() as u64))
            }
            _ => String::new(),
        };
        let others = [Quantity::Total, Quantity::Active, Quantity::ActiveFfn, Quantity::ForwardFlop];
        let beside: Vec<String> = others
            .into_iter()
            .filter(|other| other != quantity)
            .map(|other| format!("{} {:.2}×", other.words(), other.of(own) / other.of(control)))
            .collect();
        let text = format!(
            "NOT MATCHED  \"{}\": {arm} has {ratio:.2}× the {} of {to}.{advice} Also {}.",
            claim.text,
            quantity.words(),
            beside.join(", ")
        );
        Some(found(Severity::Warn, &claim.text, text))
    };
    study.claims.iter().filter_map(report).collect()
}
