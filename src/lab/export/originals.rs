//! Results in the JSON schemas of the trainers whose studies moelab repeats, so that their viewers and habits carry over.
//!
//! | file | of | written by |
//! |---|---|---|
//! | `<run>/metrics.json` | exp8, a run | [`metrics`] |
//! | `comparison_summary.json` | exp8, a study | [`comparison_summary`] |
//! | `ablation_results.json` | reasoning, a study | [`ablation_results`] |
//! | `lr_search_results.json`, `lr_<rate>_result.json` | exp3, a study | [`lr_search_results`], [`lr_result`] |
//! | `lr_recommendation.json` | exp3, a study | [`lr_recommendation`] |
//!
//! Three habits of the originals are kept, because a file that has the name must have the meaning; the report of moelab says none of this:
//! `best_experiment` and `best_learning_rate` are bare minima of one run each, not verdicts. `steps` are micro-batches counted from 0, as the
//! originals count them. Perplexity is exp(min(loss, 20)). What the originals record and moelab does not measure is `null`.

use serde_json::{Map, Value, json};

use crate::{
    lab::{evaluation::EvalPoint, measured::MeasuredRun},
    run::summary::ExitReason,
};

/// exp(min(loss, 20)), as the originals cap it.
fn perplexity(loss: f64) -> f64 {
    loss.min(20.0).exp()
}

/// A number; `null` if it is not finite, because JSON has none of these.
fn number(value: f64) -> Value {
    serde_json::Number::from_f64(value).map_or(Value::Null, Value::Number)
}

fn list(evals: &[EvalPoint], value: impl Fn(&EvalPoint) -> f64) -> Value {
    evals.iter().map(|eval| number(value(eval))).collect()
}

fn count(evals: &[EvalPoint], value: impl Fn(&EvalPoint) -> u64) -> Value {
    evals.iter().map(|eval| json!(value(eval))).collect()
}

/// The micro-batch after which an evaluation was made, counted from 0.
fn step(eval: &EvalPoint) -> u64 {
    eval.micro_steps.saturating_sub(1)
}

fn minutes(run: &MeasuredRun) -> Value {
    run.last().map_or(Value::Null, |eval| number(eval.seconds / 60.0))
}

fn metrics_of(eval: Option<&EvalPoint>) -> Value {
    let of = |value: fn(&EvalPoint) -> f64| eval.map_or(Value::Null, |eval| number(value(eval)));
    json!({ "val_loss": of(|e| e.val_ce), "val_accuracy": of(|e| e.accuracy), "val_perplexity": of(|e| perplexity(e.val_ce)) })
}

fn history(run: &MeasuredRun) -> Value {
    let evals = &run.evals;
    json!({
        "steps": count(evals, step),
        "val_losses": list(evals, |eval| eval.val_ce),
        "val_accuracies": list(evals, |eval| eval.accuracy),
        "val_perplexities": list(evals, |eval| perplexity(eval.val_ce)),
        "elapsed_times": list(evals, |eval| eval.seconds / 60.0),
        "learning_rates": list(evals, |eval| eval.rates.map_or(f64::NAN, |[muon, _]| muon)),
    })
}

/// `metrics.json` of exp8. On an early stop the final metrics are those of the best evaluation, as there.
pub fn metrics(run: &MeasuredRun) -> Value {
    let config = &run.config;
    let micro = u64::from(config.train.micro_batches);
    let stopped = run.summary.as_ref().is_some_and(|summary| summary.exit == ExitReason::EarlyStopped);
    let last = if stopped { run.best() } else { run.last() };
    let best = run.best();
    json!({
        "experiment_config": {
            "name": run.arm,
            "description": Value::Null,
            "max_steps": u64::from(config.train.updates) * micro,
            "lr_schedule_type": config.schedule.kind,
            "use_early_stopping": config.train.early_stopping.patience > 0,
            "load_balancing_weight": number(config.model.balance.coefficient),
            "dropout": number(config.model.dropout.residual),
        },
        "final_metrics": metrics_of(last),
        "best_metrics": {
            "val_loss": best.map_or(Value::Null, |eval| number(eval.val_ce)),
            "step": best.map(step),
            "val_accuracy": best.map_or(Value::Null, |eval| number(eval.accuracy)),
        },
        "total_time_minutes": minutes(run),
        "stopped_early": stopped,
        "actual_steps": run.summary.as_ref().map(|summary| u64::from(summary.updates) * micro),
        "history": history(run),
    })
}

/// `comparison_summary.json` of exp8.
pub fn comparison_summary(runs: &[MeasuredRun]) -> Value {
    let entry = |run: &MeasuredRun| {
        let of = |eval: Option<&EvalPoint>, value: fn(&EvalPoint) -> f64| eval.map_or(Value::Null, |eval| number(value(eval)));
        json!({
            "name": run.id,
            "final_loss": of(run.last(), |eval| eval.val_ce),
            "best_loss": of(run.best(), |eval| eval.val_ce),
            "final_accuracy": of(run.last(), |eval| eval.accuracy),
            "history": history(run),
        })
    };
    let best = least(runs, |run| run.best());
    json!({ "experiments": runs.iter().map(entry).collect::<Vec<_>>(), "best_experiment": best.map(|run| &run.id) })
}

/// The run with the lowest loss.
fn least(runs: &[MeasuredRun], of: impl Fn(&MeasuredRun) -> Option<&EvalPoint>) -> Option<&MeasuredRun> {
    let finite = runs.iter().filter_map(|run| of(run).map(|eval| (run, eval.val_ce))).filter(|(_, loss)| loss.is_finite());
    finite.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(run, _)| run)
}

/// `ablation_results.json` of the reasoning study. Training losses are cross-entropies; the original's contain the auxiliary losses.
pub fn ablation_results(runs: &[MeasuredRun]) -> Value {
    let entry = |run: &MeasuredRun| {
        let losses: Vec<f64> = run.train_ce.iter().map(|point| point[1]).filter(|loss| loss.is_finite()).collect();
        let mean = losses.iter().sum::<f64>() / losses.len() as f64;
        let success = run.summary.as_ref().is_some_and(|summary| summary.exit.exit_code() == 0);
        let val = run.last().map(|eval| eval.val_ce);
        let mut entry = json!({
            "success": success,
            "final_loss": run.train_ce.last().map_or(Value::Null, |point| number(point[1])),
            "avg_loss": number(mean),
            "min_loss": losses.iter().copied().min_by(f64::total_cmp).map_or(Value::Null, number),
            "val_loss": val.map_or(Value::Null, number),
            "val_perplexity": val.map_or(Value::Null, |loss| number(perplexity(loss))),
            "time": run.last().map_or(Value::Null, |eval| number(eval.seconds)),
            "nan_encountered": run.met_non_finite(),
        });
        if let (false, Some(entry)) = (success, entry.as_object_mut()) {
            let summary = run.summary.as_ref();
            let error = summary.map_or("the run has not ended", |summary| summary.detail.as_deref().unwrap_or(summary.exit.words()));
            entry.insert("error".into(), json!(error));
        }
        (run.id.clone(), entry)
    };
    Value::Object(runs.iter().map(entry).collect())
}

/// The peak learning rate of a run: Muon's, which exp3 searches.
fn peak(run: &MeasuredRun) -> f64 {
    run.config.optimizer.muon.lr
}

/// `lr_<rate>_result.json` of exp3.
pub fn lr_result(run: &MeasuredRun) -> Value {
    let evals = &run.evals;
    let last = metrics_of(run.last());
    json!({
        "learning_rate": number(peak(run)),
        "val_loss": last["val_loss"],
        "val_accuracy": last["val_accuracy"],
        "val_perplexity": last["val_perplexity"],
        "total_steps": run.summary.as_ref().map(|summary| u64::from(summary.updates) * u64::from(run.config.train.micro_batches)),
        "training_time_minutes": minutes(run),
        "train_losses": list(evals, |eval| eval.train_ce.unwrap_or(f64::NAN)),
        "val_losses": list(evals, |eval| eval.val_ce),
        "val_accuracies": list(evals, |eval| eval.accuracy),
        "val_perplexities": list(evals, |eval| perplexity(eval.val_ce)),
    })
}

/// The key of a learning rate in the original's maps and file names: `%.2e`.
pub fn lr_name(run: &MeasuredRun) -> String {
    let text = format!("{:.2e}", peak(run));
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// `lr_search_results.json` of exp3. Of several runs with one rate, the last stands, as in the original's map.
pub fn lr_search_results(runs: &[MeasuredRun]) -> Value {
    let entries: Map<String, Value> = runs.iter().map(|run| (lr_name(run), lr_result(run))).collect();
    Value::Object(entries)
}

/// `lr_recommendation.json` of exp3.
pub fn lr_recommendation(runs: &[MeasuredRun]) -> Value {
    let best = least(runs, |run| run.last());
    let minutes: f64 = runs.iter().filter_map(|run| run.last()).map(|eval| eval.seconds / 60.0).sum();
    json!({
        "best_learning_rate": best.map_or(Value::Null, |run| number(peak(run))),
        "best_result": best.map(lr_result),
        "all_results": lr_search_results(runs),
        "search_time_minutes": number(minutes),
        "recommendation": best.map(|run| {
            format!("Lowest validation loss of single runs at {}. A bare minimum: see the intervals in report.md before using it.", lr_name(run))
        }),
    })
}
