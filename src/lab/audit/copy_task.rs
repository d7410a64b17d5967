//! The model predicts the next token, and is not better than the text allows.

use super::study::Study;
use super::{Check, Found, Severity, Stage, found};

pub const CHECK: Check = Check {
    id: "copy-task",
    stage: Stage::Either,
    claim: "targets are the next tokens, and losses are not better than the text allows",
    find,
};

/// Share of the run within which a loss below [`TOO_GOOD`] of the unigram entropy is suspicious.
const EARLY: f64 = 0.05;
const TOO_GOOD: f64 = 0.25;

fn find(study: &Study) -> Vec<Found> {
    let mut all = Vec::new();
    match study.data.and_then(|data| data.target_shift) {
        Some(0) => all.push(found(Severity::Refuse, "data", "COPY TASK  targets equal inputs (shift 0).")),
        Some(shift) if shift > 1 => {
            all.push(found(
                Severity::Refuse,
                "data",
                format!("COPY TASK  targets are the inputs {shift} positions later (shift {shift})."),
            ));
        }
        _ => {}
    }
    for run in study.runs.iter().filter(|run| run.is_usable()) {
        let Some((unigram, entropy)) = run.baselines else { continue };
        let total = run.length.map_or(0, |(asked, _)| asked);
        for evaluation in &run.evaluations {
            let Some(loss) = evaluation.metrics.get("val_loss") else { continue };
            let is_early = evaluation.at as f64 <= EARLY * total as f64;
            let reason = match entropy {
                Some(entropy) if *loss < entropy - 0.05 => format!("below the entropy of the source, {entropy:.4}"),
                _ if is_early && *loss < TOO_GOOD * unigram => format!("far below the unigram entropy, {unigram:.4}"),
                _ => continue,
            };
            let text = format!(
                "COPY TASK  {}: validation loss {loss:.4} after {} of {total} updates is {reason}: the targets leak into the input.",
                run.arm, evaluation.at
            );
            all.push(found(Severity::Refuse, &run.arm, text));
            break;
        }
    }
    all
}

/// The shift of 0, 1 or 2 at which most targets equal tokens of their own sequence, if one accounts for nearly all: `targets[i] = tokens[i + shift]`.
/// `ignored` marks positions without a target; sequences have `length` tokens.
pub fn target_shift(tokens: &[u32], targets: &[u32], length: usize, ignored: u32) -> Option<u32> {
    let share = |shift: usize| {
        let (mut equal, mut counted) = (0, 0);
        for (tokens, targets) in tokens.chunks(length).zip(targets.chunks(length)) {
            for (at, target) in targets.iter().enumerate().filter(|(_, target)| **target != ignored) {
                let Some(token) = tokens.get(at + shift) else { continue };
                counted += 1;
                equal += usize::from(token == target);
            }
        }
        if counted == 0 { 0.0 } else { equal as f64 / counted as f64 }
    };
    (0..=2).find(|shift| share(*shift) > 0.99).map(|shift| shift as u32)
}
