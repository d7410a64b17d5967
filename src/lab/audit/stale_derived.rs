//! A width that follows from another one in the control follows from it in every arm.

use super::study::Study;
use super::{Check, Found, Severity, Stage, found};

pub const CHECK: Check =
    Check { id: "stale-derived-field", stage: Stage::Before, claim: "a derived width follows the width that it is derived from", find };

/// The usual ratio of the FFN's width to the model's: a width with this ratio counts as derived.
const DERIVED: u32 = 4;

fn find(study: &Study) -> Vec<Found> {
    let report = |(arm, control): (&super::Arm, &super::Arm)| {
        let [(d, f), (base_d, base_f)] = [arm, control].map(|arm| (arm.config.model.width, arm.config.model.ffn.width));
        (base_f == DERIVED * base_d && d != base_d && f == base_f).then(|| {
            let ratio = f64::from(f) / f64::from(d);
            let text = format!(
                "STALE DERIVED FIELD  {}: model.ffn.width = {f} = {ratio}·model.width; the base uses {DERIVED}·model.width ({}).",
                arm.name,
                DERIVED * d
            );
            found(Severity::Warn, &arm.name, text)
        })
    };
    study.against_control().filter_map(report).collect()
}
