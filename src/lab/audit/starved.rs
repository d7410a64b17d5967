//! Every expert is trained. In place of gradients that vanish in a cast to half precision: moelab's gradients of parameters and moments are f32.

use super::study::Study;
use super::{Check, Found, Severity, Stage, found};

pub const CHECK: Check = Check { id: "starved-expert", stage: Stage::After, claim: "every expert is trained", find };

fn find(study: &Study) -> Vec<Found> {
    let report = |run: &super::Measured| {
        let worst = run.starved.iter().min_by(|a, b| a.of_fair.total_cmp(&b.of_fair))?;
        let arm = study.arms.iter().find(|arm| arm.name == run.arm);
        let names = arm.map_or(Vec::new(), |arm| arm.config.model.router_labels());
        let router = names.get(worst.layer).cloned().unwrap_or_else(|| format!("layer {}", worst.layer));
        let text = format!(
            "STARVED EXPERT  {}: {router} expert {} has {:.1} % of its fair share since update {}; {} experts are below the threshold.",
            run.arm,
            worst.expert,
            100.0 * worst.of_fair,
            worst.since,
            run.starved.len()
        );
        Some(found(Severity::Warn, &run.arm, text))
    };
    study.runs.iter().filter_map(report).collect()
}
