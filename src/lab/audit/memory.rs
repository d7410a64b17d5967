//! The adapter has the memory that a run needs.

use super::study::Study;
use super::{Check, Found, Severity, Stage, found};

pub const CHECK: Check = Check { id: "memory", stage: Stage::Before, claim: "the adapter has the memory that a run needs", find };

fn find(study: &Study) -> Vec<Found> {
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let report = |facts: &super::study::MemoryFacts| {
        if facts.largest > facts.most_binding {
            let text = format!(
                "MEMORY  {}: its largest tensor has {}, a buffer of the adapter can have {}.",
                facts.arm,
                mebibytes(facts.largest),
                mebibytes(facts.most_binding)
            );
            return Some(found(Severity::Refuse, &facts.arm, text));
        }
        let available = facts.available.filter(|available| facts.needed > *available)?;
        let text =
            format!("MEMORY  {}: it needs at least {}, the adapter has {}.", facts.arm, mebibytes(facts.needed), mebibytes(available));
        Some(found(Severity::Warn, &facts.arm, text))
    };
    study.memory.iter().filter_map(report).collect()
}
