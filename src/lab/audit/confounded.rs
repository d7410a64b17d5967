//! Two arms that are compared differ in what the difference is attributed to, and in nothing else.
//!
//! Compared are the settings, and what follows from them at the compared update: tokens, share of the schedule, warm-up, learning
//! rate, its sum so far, and the coefficient of the balance loss.

use super::study::{Comparison, Derived, Study, differences};
use super::{Check, Found, Severity, Stage, found};
use crate::config_file::Class;
use crate::run::Config;

pub const CHECK: Check =
    Check { id: "confounded", stage: Stage::After, claim: "compared arms differ only in what a difference is attributed to", find };

/// Relative difference from which a derived quantity is listed.
const DIFFERS: f64 = 0.01;

fn find(study: &Study) -> Vec<Found> {
    let report = |(text, comparison): (String, Comparison)| {
        let [one, other] = [&comparison.better, &comparison.than].map(|arm| study.arm(arm));
        let (one, other) = (&one?.config, &other?.config);
        let also = others(one, other, &comparison);
        if also.is_empty() {
            return None;
        }
        let updates = |arm: &str, config: &Config| match comparison.at {
            None => config.train.updates,
            Some(at) => study.runs_of(arm).next().map_or(at as u32, |run| run.updates(at, config)),
        };
        let at = [updates(&comparison.better, one), updates(&comparison.than, other)];
        let derived = derived(one, other, at);
        let list = also.into_iter().chain(derived).collect::<Vec<_>>().join(", ");
        let value = |arm: &str| study.runs_of(arm).next().and_then(|run| run.value(&comparison.metric, comparison.at));
        let gap = value(&comparison.better).zip(value(&comparison.than)).map(|(a, b)| (a - b).abs());
        let gap = gap.map_or("The difference is".to_owned(), |gap| format!("Gap {gap:.3}"));
        let place = comparison.at.map_or(String::new(), |at| format!(" @{at}"));
        let pair = format!("{} vs {}{place}", comparison.better, comparison.than);
        Some(match comparison.because.is_empty() {
            true => found(Severity::Note, &text, format!("DIFFERENCES  {pair}: differ in {list}.")),
            false => {
                let message = format!("CONFOUNDED  {pair}: also differ {list}. {gap} not attributed to {}.", comparison.because.join(", "));
                found(Severity::Refuse, &text, message)
            }
        })
    };
    study.pairs().into_iter().filter_map(report).collect()
}

/// Settings in which two configs differ and to which the comparison attributes nothing, as text.
fn others(one: &Config, other: &Config, comparison: &Comparison) -> Vec<String> {
    let matters = |class: Class, key: &str| match class {
        Class::Length => key == "train.updates" || key == "train.evaluation.windows" || key.contains("early_stopping"),
        _ => true,
    };
    differences(one, other)
        .into_iter()
        .filter(|change| matters(change.class, &change.key) && !comparison.is_because(&change.key))
        .map(|change| format!("{} {}/{}", change.key, change.from, change.to))
        .collect()
}

/// What follows from two configs at these updates and differs, as text.
pub fn derived(one: &Config, other: &Config, [at, other_at]: [u32; 2]) -> Vec<String> {
    let (a, b) = (Derived::at(one, at), Derived::at(other, other_at));
    let differ = |a: f64, b: f64| (a - b).abs() > DIFFERS * a.abs().max(b.abs());
    let mut list = Vec::new();
    if a.warmup != b.warmup {
        list.push(format!("warm-up {}/{} updates", a.warmup, b.warmup));
    }
    if a.tokens != b.tokens {
        list.push(format!("tokens {}/{}", super::grouped(a.tokens), super::grouped(b.tokens)));
    }
    if differ(a.fraction, b.fraction) {
        list.push(format!("share of the run {:.3}/{:.3}", a.fraction, b.fraction));
    }
    if differ(a.lr, b.lr) {
        list.push(format!("LR now {:.2e}/{:.2e}", a.lr, b.lr));
    }
    if differ(a.lr_sum, b.lr_sum) && b.lr_sum > 0.0 {
        list.push(format!("ΣLR ×{:.2}", a.lr_sum / b.lr_sum));
    }
    if differ(a.lambda, b.lambda) {
        list.push(format!("λ({at}) {}/{}", round(a.lambda), round(b.lambda)));
    }
    list
}

fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}
