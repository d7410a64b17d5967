//! The plan, status and events of a study as text.

use std::fmt::Write;

use super::{coordinator::SuiteEvent, folder::RunStatus, outcome::Outcome, pace::Progress};
use crate::{
    lab::{
        audit::{Finding, Severity},
        chart::thousands,
        escape,
        gates::Verdict,
    },
    run::{
        suite::{Plan, PlannedRun},
        summary::Summary,
    },
};

/// Rows with columns aligned, the first to the left and the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().enumerate().map(|(column, cell)| match column {
            0 => format!("{cell:<0$}", widths[0]),
            _ if column + 1 == row.len() => cell.clone(),
            _ => format!("{cell:>0$}", widths[column]),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The arms of a plan with what they change and cost.
pub fn plan(plan: &Plan) -> String {
    let mut rows = vec![["arm", "runs", "updates", "tokens a run", "FLOP a run", "differs from the control"].map(String::from).to_vec()];
    for arm in &plan.arms {
        let runs: Vec<&PlannedRun> = plan.runs.iter().filter(|run| run.arm == arm.name).collect();
        let Some(first) = runs.first() else { continue };
        let changes: Vec<String> = arm.changes.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        let changes = if arm.name == plan.arms[0].name { "the control".into() } else { escape::name(&changes.join(", ")) };
        let (tokens, flop) = (thousands(first.tokens), format!("{:.2e}", first.flop));
        rows.push(vec![arm.name.clone(), runs.len().to_string(), first.updates.to_string(), tokens, flop, changes]);
    }
    let mut text = format!("{}\n\n{}", escape::name(&plan.question), aligned(&rows));
    if plan.stages.len() > 1 {
        let stages: Vec<String> = plan.stages.iter().map(|(name, end)| format!("{name} to update {end}")).collect();
        let _ = write!(text, "\n\nstages: {}", stages.join(", "));
    }
    text
}

/// The cells of a run in [`SuiteEvent::Standing`]: run, updates made, newest training and validation loss in nats per token, status.
pub fn row(run: &PlannedRun, status: &str, update: u32, train_ce: Option<f64>, val_ce: Option<f64>) -> Vec<String> {
    vec![run.id.clone(), format!("{update}/{}", run.updates), loss(train_ce), loss(val_ce), status.to_string()]
}

fn loss(value: Option<f64>) -> String {
    value.map_or("-".into(), |value| format!("{value:.4}"))
}

/// What has become of each run.
pub fn status(plan: &Plan, rows: &[(&PlannedRun, RunStatus, Option<Summary>)]) -> String {
    let mut lines = vec![["run", "updates", "validation", "best", "status"].map(String::from).to_vec()];
    for (run, status, summary) in rows {
        let made = summary.as_ref().map_or(0, |summary| summary.updates);
        let problem = if let RunStatus::Failed(problem) = status { format!("failed: {}", escape::name(problem)) } else { status.words() };
        lines.push(vec![
            run.id.clone(),
            format!("{made}/{}", run.updates),
            loss(summary.as_ref().and_then(|summary| summary.final_val_ce)),
            loss(summary.as_ref().and_then(|summary| summary.best_val_ce)),
            problem,
        ]);
    }
    let over = rows.iter().filter(|(_, status, _)| status.is_over()).count();
    format!("{}\n\n{}\n\n{over} of {} runs are over", escape::name(&plan.question), aligned(&lines), rows.len())
}

/// An event as a line; `None` for what the lines of progress show.
pub fn event(event: &SuiteEvent) -> Option<String> {
    Some(match event {
        SuiteEvent::Opened { question, arms, runs, over, .. } => {
            format!("{}\n{} arms, {runs} runs, {over} of them are over", escape::name(question), arms.len())
        }
        SuiteEvent::RunStarted { run, until, is_resumed, .. } => {
            format!("{run}: {} to update {until}", if *is_resumed { "resumed" } else { "started" })
        }
        SuiteEvent::RunEnded { run, status, val_ce, seconds, .. } => {
            let loss = val_ce.map_or(String::new(), |loss| format!(", validation {loss:.4}"));
            let problem = if let RunStatus::Failed(problem) = status { format!(": {}", escape::name(problem)) } else { String::new() };
            format!("{run}: {}{problem}{loss}, {}", status.words(), duration(*seconds))
        }
        SuiteEvent::Warning { run, text } => match run {
            Some(run) => format!("warning: {run}: {}", escape::name(text)),
            None => format!("warning: {}", escape::name(text)),
        },
        SuiteEvent::Decided { record } => {
            let what = match record.decision.verdict {
                Verdict::Stop => "stopped",
                Verdict::Promote => "promoted",
                Verdict::Wait => "undecided",
            };
            format!("{} after stage {}: {what}: {}", record.run, record.stage, escape::name(&record.decision.reason))
        }
        SuiteEvent::Added { runs, reason } => format!("{} runs added ({reason}): {}", runs.len(), runs.join(", ")),
        SuiteEvent::Ended { is_complete: true } => "all runs that were asked for are made".into(),
        SuiteEvent::Ended { is_complete: false } => {
            "not all runs are made: the same command continues, with --retry-failed for those that failed as well".into()
        }
        SuiteEvent::Audited { findings: found } => return findings(found),
        SuiteEvent::Judged(judged) => return findings(&judged.findings),
        SuiteEvent::Paused => "paused".into(),
        SuiteEvent::Continued => "continued".into(),
        SuiteEvent::Rejected { command, problem } => format!("{command}: {}", escape::visible(&problem.what)),
        SuiteEvent::Failed(problem) => escape::visible(&problem.what),
        SuiteEvent::RunOpening { .. }
        | SuiteEvent::RunAdvanced { .. }
        | SuiteEvent::RunEvaluated { .. }
        | SuiteEvent::Standing { .. }
        | SuiteEvent::Reported { .. } => return None,
    })
}

/// Refusals and warnings, a line each; `None` if there are none.
/// Refusals and warnings, a line each; `None` if there are none.
pub fn findings(findings: &[Finding]) -> Option<String> {
    let shown = findings.iter().filter(|finding| finding.severity > Severity::Note);
    let lines: Vec<String> = shown.map(|finding| escape::name(&finding.to_string())).collect();
    if lines.is_empty() { None } else { Some(lines.join("\n")) }
}

/// Where a study stands, in one line.
pub fn progress<'a>(progress: &Progress, active: impl Iterator<Item = (usize, &'a str, u32, u32)>) -> String {
    let active: Vec<String> = active.map(|(_, run, update, updates)| format!("{run} {update}/{updates}")).collect();
    let left = progress.seconds_left.map_or(String::new(), |seconds| format!("  {} left", duration(seconds)));
    let failed = if progress.failed > 0 { format!(", {} failed", progress.failed) } else { String::new() };
    format!("{} of {} runs{failed}  {:.0} %{left}  {}", progress.over, progress.runs, 100.0 * progress.done, active.join("  "))
}

/// The last line of a study.
pub fn end(progress: &Progress) -> String {
    let overhead = match (progress.overhead_seconds, progress.overhead_share) {
        (Some(seconds), Some(share)) => format!("; {seconds:.1} s a run beyond training, {:.0} % of it", 100.0 * share),
        _ => String::new(),
    };
    let failed = if progress.failed > 0 { format!(", {} of them failed or diverged", progress.failed) } else { String::new() };
    format!("{} of {} runs are over{failed}{overhead}", progress.over, progress.runs)
}

/// What a study shows, sentence by sentence; nothing about the arms `withheld`.
pub fn outcomes(outcomes: &[Outcome], withheld: &[&str]) -> String {
    let mut text = String::new();
    for Outcome { stage, at, judgement } in outcomes {
        let place = if outcomes.len() > 1 { format!(" (stage {stage}, at {at})") } else { String::new() };
        let _ = writeln!(text, "verdict{place}");
        if withheld.contains(&judgement.control.name.as_str()) {
            let _ = writeln!(text, "  withheld: the audit refuses a conclusion, see above");
            continue;
        }
        for sentence in judgement.without(withheld).sentences() {
            let _ = writeln!(text, "  {}", escape::name(&sentence));
        }
        for arm in judgement.arms.iter().filter(|arm| withheld.contains(&arm.name.as_str())) {
            let _ = writeln!(text, "  {}: withheld, because the audit refuses a conclusion about it, see above", arm.name);
        }
    }
    text.trim_end().to_string()
}

/// A time for people: `1:05 h`, `3:20 min`, `12 s`.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        3600.. => format!("{}:{:02} h", whole / 3600, whole / 60 % 60),
        60.. => format!("{}:{:02} min", whole / 60, whole % 60),
        _ => format!("{seconds:.1} s"),
    }
}
