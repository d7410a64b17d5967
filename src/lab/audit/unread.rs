//! A setting that was made is read. Unknown keys, and keys that do not apply, are refused when a config is loaded.

use super::inert_knob::without_effect;
use super::study::{Study, settings};
use super::{Check, Found, Severity, Stage, found};

pub const CHECK: Check = Check { id: "unread-field", stage: Stage::Either, claim: "every setting that was made is read", find };

fn find(study: &Study) -> Vec<Found> {
    let mut reported = Vec::new();
    let mut all = Vec::new();
    for arm in &study.arms {
        let inert = without_effect(&arm.config);
        for (key, value) in settings(&arm.config).into_values().flatten() {
            // Swept settings are refused as inert knobs.
            let Some((_, why)) = inert.iter().find(|(inert, _)| *inert == key) else { continue };
            if arm.changes.contains_key(&key) || reported.contains(&(key.clone(), value.clone())) {
                continue;
            }
            all.push(found(Severity::Warn, &arm.name, format!("UNREAD FIELD  {key} = {value} is set but not used ({why}).")));
            reported.push((key, value));
        }
    }
    all.extend(study.runs.iter().flat_map(recorded));
    all
}

/// Settings that an imported run requested although it used other values.
fn recorded(run: &super::Measured) -> Vec<Found> {
    let requested = run.recorded.iter().filter_map(|(key, value)| Some((key.strip_prefix("requested ")?, value)));
    let ignored =
        requested.filter(|(key, value)| run.recorded.get(&format!("effective {key}")).is_some_and(|effective| effective != *value));
    ignored
        .map(|(key, value)| {
            let effective = run.recorded[&format!("effective {key}")];
            found(Severity::Warn, &run.arm, format!("UNREAD FIELD  {key} = {value} is set but not used (effective {effective})."))
        })
        .collect()
}
