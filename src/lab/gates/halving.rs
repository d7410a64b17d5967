//! Successive halving: at each rung, which is the end of a stage, a share of the arms is promoted.
//!
//! Arms are judged by the mean of their validation loss over the seeds that all of them have, so that no arm gains from an easy seed or
//! from more of them. An arm without any result is stopped first, and does not restrict the seeds of the others. The control is always
//! promoted and takes no other arm's place. Arms that tie with the last promoted one are promoted as well.

use std::collections::BTreeMap;

use super::{Decision, Numbers, ROUNDING, Verdict};
use crate::run::gates::{GateRule, HalvingOptions};

/// An arm at a rung.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arm {
    /// Its name.
    pub name: String,
    /// Whether the others are compared with it.
    pub is_control: bool,
    /// Validation loss at the rung by seed; absent for runs that failed. One that is not finite counts as infinitely high.
    pub losses: BTreeMap<u64, f64>,
}

/// Arms from the losses of runs, each with its arm and its seed; in the order of their names.
pub fn arms(losses: impl IntoIterator<Item = (String, u64, f64)>, control: Option<&str>) -> Vec<Arm> {
    let mut arms: BTreeMap<String, Arm> = BTreeMap::new();
    for (name, seed, loss) in losses {
        let is_control = control == Some(&name);
        let arm = arms.entry(name).or_insert_with_key(|name| Arm { name: name.clone(), is_control, losses: BTreeMap::new() });
        arm.losses.insert(seed, loss);
    }
    arms.into_values().collect()
}

/// Decides about every arm at a rung of `update` updates; in the order of `arms`.
pub fn rung(options: &HalvingOptions, arms: &[Arm], update: u32) -> Vec<Decision> {
    let rivals: Vec<&Arm> = arms.iter().filter(|arm| !arm.is_control && !arm.losses.is_empty()).collect();
    let judged: Vec<&Arm> = arms.iter().filter(|arm| !arm.losses.is_empty()).collect();
    let seeds: Vec<u64> = match judged.first() {
        Some(first) => first.losses.keys().filter(|seed| judged.iter().all(|arm| arm.losses.contains_key(seed))).copied().collect(),
        None => Vec::new(),
    };
    let mean = |arm: &Arm| {
        let losses = seeds.iter().filter_map(|seed| arm.losses.get(seed));
        losses.map(|loss| if loss.is_nan() { f64::INFINITY } else { *loss }).sum::<f64>() / seeds.len() as f64
    };
    let mut means: Vec<f64> = rivals.iter().map(|arm| mean(arm)).collect();
    means.sort_by(f64::total_cmp);
    let kept = (options.keep * rivals.len() as f64 - ROUNDING).ceil().max(1.0) as usize;
    let cutoff = means.get(kept - 1).or(means.last()).copied().unwrap_or(f64::INFINITY) + options.tie;
    let decide = |arm: &Arm| {
        let mut numbers = Numbers::default();
        numbers.add("seeds", seeds.len() as f64, None);
        let decision = |verdict, reason: String, numbers| Decision::new(verdict, GateRule::Halving, update, reason, numbers);
        if !arm.is_control && arm.losses.is_empty() {
            return decision(Verdict::Stop, "none of its runs has a result".into(), numbers);
        }
        if seeds.is_empty() {
            return decision(Verdict::Wait, "there is no seed that all arms have".into(), numbers);
        }
        let own = mean(arm);
        if arm.is_control {
            numbers.add("mean_val_ce", own, None);
            return decision(Verdict::Promote, "the control is always promoted".into(), numbers);
        }
        numbers.add("mean_val_ce", own, cutoff);
        let rank = 1 + means.iter().filter(|mean| **mean < own - ROUNDING).count();
        numbers.add("rank", rank as f64, kept as f64);
        let of = rivals.len();
        let seeds = seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        let reason = format!("{rank} of {of} by the mean {own:.4} over seeds {seeds}; {kept} are kept, up to {cutoff:.4}");
        let is_kept = own <= cutoff + ROUNDING && own.is_finite();
        decision(if is_kept { Verdict::Promote } else { Verdict::Stop }, reason, numbers)
    };
    arms.iter().map(decide).collect()
}
