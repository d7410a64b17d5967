//! A correlation is recomputed, and hangs on no single point.

use super::study::{Statement, Study, value};
use super::{Check, Found, Severity, Stage, found};
use crate::config_file::Root;
use crate::lab::statistics::correlation::{Kind, correlation};
use crate::run::Config;

pub const CHECK: Check = Check { id: "fragile-statistic", stage: Stage::After, claim: "a correlation hangs on no single point", find };

/// Largest difference between a published coefficient and the recomputed one that rounding explains.
const ROUNDING: f64 = 0.01;

fn find(study: &Study) -> Vec<Found> {
    let report = |claim: &super::Claim| {
        let Statement::Correlates { setting, metric, r } = &claim.says else { return None };
        let point = |run: &super::Measured| Some((*run.recorded.get(setting)?, run.value(metric, None)?));
        let points: Vec<(f64, f64)> = study.runs.iter().filter(|run| run.is_usable()).filter_map(point).collect();
        let found_now = correlation(Kind::Pearson, &points);
        let inert = is_inert(study, setting);
        let differs = found_now.r.is_none_or(|own| (own - r).abs() > ROUNDING);
        if found_now.fragile().is_none() && !inert && !differs {
            return None;
        }
        let published = if differs { format!(" {r} was published.") } else { String::new() };
        let text = format!("FRAGILE STATISTIC  {}{published}", found_now.sentence(setting, metric, inert));
        Some(found(Severity::Refuse, &claim.text, text))
    };
    study.claims.iter().filter_map(report).collect()
}

/// Whether a recorded setting has one value in the effective configs of all arms, although different ones were recorded.
fn is_inert(study: &Study, setting: &str) -> bool {
    let keys = Config::SYNONYMS.iter().find(|(name, _)| *name == setting).map_or(&[][..], |(_, keys)| keys);
    let values = |key: &str| study.arms.iter().map(|arm| value(&arm.config, key)).collect::<Vec<_>>();
    !study.arms.is_empty() && keys.iter().any(|key| values(key).windows(2).all(|pair| pair[0] == pair[1]))
}
