//! Validation text was not trained on.
//!
//! Measured on the tokens: the share of validation windows that contain a run of tokens, almost as long as a window, that the
//! training text contains as well. Documents that are split before windows are cut share no such runs unless texts are copied.

use std::collections::HashSet;

use super::study::{Overlap, Study};
use super::{Check, Found, Severity, Stage, found};

pub const CHECK: Check = Check { id: "split-leak", stage: Stage::Either, claim: "validation text was not trained on", find };

/// Share of validation windows above which a split leaks.
const LEAKS: f64 = 0.01;

fn find(study: &Study) -> Vec<Found> {
    let Some(overlap) = study.data.and_then(|data| data.overlap) else { return Vec::new() };
    let share = overlap.shared as f64 / overlap.windows.max(1) as f64;
    if share <= LEAKS {
        return Vec::new();
    }
    let text = format!(
        "SPLIT LEAK  {:.0} % of validation windows share {} of {} tokens with a training window. Validation loss measures memorisation.",
        100.0 * share,
        overlap.run,
        overlap.window
    );
    let is_about_validation =
        |claim: &&super::Claim| !claim.of_training_text && claim.comparisons().iter().any(|comparison| comparison.metric.contains("val"));
    let of_claims = study.claims.iter().filter(is_about_validation).map(|claim| found(Severity::Refuse, &claim.text, text.clone()));
    std::iter::once(found(Severity::Refuse, "data", text.clone())).chain(of_claims).collect()
}

/// Compares the first `most` validation windows of `window` tokens each with training text: how many contain a run of `run` tokens
/// that occurs in it. `training` are separate pieces of text; runs do not cross them.
pub fn overlap<'a>(training: impl IntoIterator<Item = &'a [u32]>, validation: &[Vec<u32>], run: usize) -> Overlap {
    let mut seen: HashSet<u64> = HashSet::new();
    for piece in training {
        each_run(piece, run, |hash| {
            seen.insert(hash);
            false
        });
    }
    let is_shared = |window: &&Vec<u32>| each_run(window, run, |hash| seen.contains(&hash));
    Overlap {
        window: validation.first().map_or(0, Vec::len) as u32,
        run: run as u32,
        shared: validation.iter().filter(is_shared).count() as u64,
        windows: validation.len() as u64,
    }
}

/// Calls `visit` with a rolling hash of every run of `length` tokens until it returns true; returns whether it did.
fn each_run(tokens: &[u32], length: usize, mut visit: impl FnMut(u64) -> bool) -> bool {
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    if length == 0 || tokens.len() < length {
        return false;
    }
    let leading = (1..length).fold(1u64, |power, _| power.wrapping_mul(FACTOR));
    let term = |token: u32| u64::from(token).wrapping_add(1).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mut hash = tokens[..length].iter().fold(0u64, |hash, token| hash.wrapping_mul(FACTOR).wrapping_add(term(*token)));
    let mut next = length;
    loop {
        if visit(hash) {
            return true;
        }
        let Some(token) = tokens.get(next) else { return false };
        hash = hash.wrapping_sub(term(tokens[next - length]).wrapping_mul(leading)).wrapping_mul(FACTOR).wrapping_add(term(*token));
        next += 1;
    }
}
