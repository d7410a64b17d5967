//! Every numeric key of a config at the ends of its range, for the tests of planning and of training.

use moelab::config_file::{Kind, Value};
use moelab::run::config::Config;

/// A model so small that its ranges are what matters.
pub const SMALL: &str = "model.width=16 model.attention.heads=2 model.ffn.width=16 model.depth.layers=1 model.router.experts=4 \
                     data.sequence_length=16 data.batch=2 train.micro_batches=1";

/// One key at one end: what to set for it, its conditions first.
pub type Setting = (String, Vec<String>);

/// The numeric keys at the ends of their ranges.
pub fn ends() -> Vec<Setting> {
    let mut found = Vec::new();
    Config::kind().leaves(&mut |path, field, conditions| {
        let values: Vec<String> = match field.kind {
            Kind::Integer { min, max } => vec![min.to_string(), max.to_string()],
            Kind::Real { min, max } => vec![format!("{min:?}"), format!("{max:?}")],
            Kind::Amount { max } => vec!["0".into(), max.to_string(), "'0%'".into(), "'100%'".into()],
            _ => Vec::new(),
        };
        for value in values {
            let mut sets: Vec<String> = conditions.iter().map(|c| format!("{}={}", c.key, c.among[0])).collect();
            sets.push(format!("{path}={value}"));
            found.push((format!("{path}={value}"), sets));
        }
    });
    found
}

/// What to set for these keys over a base, and a name for it. Of what contradicts each other the later holds.
pub fn over(base: &str, settings: &[&Setting]) -> (String, Vec<String>) {
    let name = settings.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ");
    let keys: Vec<&str> = settings.iter().flat_map(|(_, sets)| sets).filter_map(|set| set.split('=').next()).collect();
    let base = base.split_whitespace().filter(|set| !keys.contains(&set.split('=').next().unwrap_or_default())).map(str::to_owned);
    let mut sets: Vec<String> = base.collect();
    for set in settings.iter().flat_map(|(_, sets)| sets) {
        let key = set.split('=').next();
        sets.retain(|other| other.split('=').next() != key);
        sets.push(set.clone());
    }
    (name, sets)
}

/// Numbers that look random and are the same in every run.
pub fn draws(mut seed: u64) -> impl FnMut(usize) -> usize {
    move |below| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    }
}
