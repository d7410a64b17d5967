//! Differences that are ranked are larger than those between repeats.

use std::collections::BTreeSet;

use super::study::{Comparison, Study};
use super::{Check, Found, Severity, Stage, found};
use crate::lab::statistics::unpaired::{Difference, Noise, repeats_per_arm};

pub const CHECK: Check =
    Check { id: "noise", stage: Stage::After, claim: "ranked differences are larger than those between repeats", find };

fn find(study: &Study) -> Vec<Found> {
    let repeats = Repeats::of(study);
    let report = |(claim, comparison): (&super::Claim, &Comparison)| {
        let difference = repeats.difference(comparison)?;
        let Comparison { better, than, .. } = comparison;
        let delta = difference.difference;
        let is_worse = if comparison.larger_is_better() { delta <= 0.0 } else { delta >= 0.0 };
        let [n, m] = difference.n;
        let Some(noise) = difference.noise else {
            let text = format!("UNKNOWN NOISE  {better} vs {than}: Δ = {delta:+.4}, n = {n} vs {m}, nothing was repeated.");
            return Some(found(if is_worse { Severity::Refuse } else { Severity::Warn }, &claim.text, text));
        };
        if difference.is_significant() && !is_worse {
            return None;
        }
        let needed = repeats_per_arm(noise.sd, delta).map_or(String::new(), |n| format!(" {n} replicas per arm needed for this Δ."));
        let text = match is_worse && difference.is_significant() {
            true => format!("CONTRADICTED  {better} vs {than}: Δ = {delta:+.4} is in favour of {than}."),
            false => format!(
                "NOT SIGNIFICANT  {better} vs {than}: Δ = {delta:+.4}, replica sd {:.4}, n = {n} vs {m}. Ranking withheld.{needed}",
                noise.sd
            ),
        };
        Some(found(Severity::Refuse, &claim.text, text))
    };
    study.comparisons().filter_map(report).collect()
}

/// The runs of a study in groups that differ in nothing but the seed.
pub struct Repeats<'a> {
    study: &'a Study,
    groups: Vec<BTreeSet<&'a str>>,
}

impl Repeats<'_> {
    /// Groups the runs of a study.
    pub fn of(study: &Study) -> Repeats<'_> {
        Repeats { study, groups: study.replicas() }
    }

    /// The difference of a comparison, against the noise of all repeats in the study.
    pub fn difference(&self, comparison: &Comparison) -> Option<Difference> {
        let Comparison { better, than, metric, at, .. } = comparison;
        let values = |group: &BTreeSet<&str>| -> Vec<f64> {
            let of_group = self.study.runs.iter().filter(|run| run.is_usable() && group.contains(run.arm.as_str()));
            of_group.filter_map(|run| run.value(metric, *at)).collect()
        };
        let all: Vec<Vec<f64>> = self.groups.iter().map(values).collect();
        let noise = Noise::pooled(all.iter().map(Vec::as_slice));
        let place = |arm: &str| self.groups.iter().position(|group| group.contains(arm));
        let is_same = place(better).is_some() && place(better) == place(than);
        let of = |arm: &str| match place(arm) {
            Some(place) if !is_same => all[place].clone(),
            _ => values(&BTreeSet::from([arm])),
        };
        Difference::of(&of(better), &of(than), noise)
    }
}
