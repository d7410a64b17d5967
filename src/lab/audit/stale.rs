//! A result belongs to the arm as it is declared now, and to a whole run.

use super::study::{Status, Study, differences, same_run};
use super::{Check, Found, Severity, Stage, found};
use crate::config_file::Class;
use crate::run::digest::sha256_hex;
use crate::run::identity::Change;

pub const CHECK: Check =
    Check { id: "stale-result", stage: Stage::After, claim: "a result belongs to the declared arm and to a whole run", find };

fn find(study: &Study) -> Vec<Found> {
    let mut all = Vec::new();
    for run in study.runs.iter().filter(|run| run.is_usable()) {
        let Some(arm) = study.arm(&run.arm) else { continue };
        let differ: Vec<_> = run.config.iter().flat_map(|recorded| differences(&arm.config, recorded)).collect();
        // Runs have seeds of their own, and files may move.
        let is_other = |change: &Change| change.key != "seed" && change.class != Class::Bookkeeping;
        let differ: Vec<Change> = differ.into_iter().filter(is_other).collect();
        if let (Some(change), Some(recorded)) = (differ.first(), &run.config) {
            let hash = |config: &crate::run::Config| sha256_hex(same_run(config).as_bytes())[..4].to_owned();
            let text = format!(
                "STALE RESULT  {}: declared {} {}, result was produced with {}{} (plan {}… ≠ {}…). Excluded from the report.",
                run.arm,
                change.key,
                change.from,
                change.to,
                if differ.len() > 1 { format!(", and {} other settings", differ.len() - 1) } else { String::new() },
                hash(&arm.config),
                hash(recorded)
            );
            all.push(found(Severity::Refuse, &run.arm, text));
            continue;
        }
        let Some((asked, made)) = run.length else { continue };
        let (unit, per_update) = match run.counts_micro_steps {
            false => ("updates", 1),
            true => ("micro-batches", u64::from(arm.config.train.micro_batches)),
        };
        let updates = arm.changes.get("train.updates").and_then(|stated| stated.parse().ok());
        let declared = updates.unwrap_or(u64::from(arm.config.train.updates)) * per_update;
        if asked != declared {
            let text = format!(
                "STALE RESULT  {}: declared {declared} {unit}, result was produced with {asked}. Excluded from the report.",
                run.arm
            );
            all.push(found(Severity::Refuse, &run.arm, text));
        } else if made < asked && run.status == Status::Completed {
            let text = format!("STALE RESULT  {}: {made} of {asked} {unit} were made, without a reason to stop.", run.arm);
            all.push(found(Severity::Refuse, &run.arm, text));
        }
    }
    all
}
