//! Trials of an outside sampler, such as Optuna: its parameters become a run, and the run becomes a value that it can learn from.
//!
//! A trial is the control of a study with other values of some keys. Its name is a hash of its config, so that asking again for the same
//! parameters gives the same run, and a search that was interrupted makes no run twice.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::evaluation::EvalPoint;
use crate::run::{
    Config, exact,
    summary::{ExitReason, Summary},
};

/// The state of a trial, by the names of Optuna's `TrialState`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Not started.
    Waiting,
    /// Started, and not ended; it can be resumed.
    Running,
    /// It has a value.
    Complete,
    /// A gate stopped it.
    Pruned,
    /// It diverged or failed.
    Fail,
}

/// What is known of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Its name, which is that of its run's folder.
    pub trial: String,
    /// Its state.
    pub state: State,
    /// Its last validation cross-entropy, if it is complete.
    #[serde(with = "exact::option")]
    pub value: Option<f64>,
    /// Validation cross-entropies along the run, each with the update after which it was measured.
    pub intermediate_values: Vec<(u32, Loss)>,
}

/// A loss; one that is not finite is written as a string.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Loss(#[serde(with = "exact")] pub f64);

/// Why parameters cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParametersError {
    /// They are not JSON.
    #[error("not JSON ({0}); for example {{\"optimizer.muon.lr\": 0.003}}")]
    Json(
        /// The reader's message.
        String,
    ),
    /// They are JSON, but not an object.
    #[error("not an object of keys and values; for example {{\"optimizer.muon.lr\": 0.003}}")]
    Object,
    /// A value that no key of a config has.
    #[error("`{key}` has the value {value}, which is no number, text or truth value")]
    Value {
        /// Its key.
        key: String,
        /// The value, as JSON.
        value: String,
    },
}

/// Parameters, a JSON object of keys and values, as `key=value` for a config.
///
/// # Errors
/// If it is not such an object; whether the config has these keys is checked when it is loaded.
pub fn settings(parameters: &str) -> Result<Vec<String>, ParametersError> {
    let Value::Object(values) = serde_json::from_str(parameters).map_err(|error| ParametersError::Json(error.to_string()))? else {
        return Err(ParametersError::Object);
    };
    let setting = |(key, value): (&String, &Value)| match value {
        Value::Number(_) | Value::Bool(_) => Ok(format!("{key}={value}")),
        Value::String(text) => Ok(format!("{key}={}", toml::Value::from(text.as_str()))),
        _ => Err(ParametersError::Value { key: key.clone(), value: value.to_string() }),
    };
    values.iter().map(setting).collect()
}

/// The name of the trial with this config.
pub fn name(config: &Config) -> String {
    format!("trial-{}", &config.hash()[..12])
}

/// What is known of a trial from its evaluations and its summary, if it has a folder.
pub fn tell(trial: &str, has_started: bool, summary: Option<&Summary>, evals: &[EvalPoint]) -> Told {
    let state = match summary.map(|summary| summary.exit) {
        None if has_started => State::Running,
        None => State::Waiting,
        Some(ExitReason::Completed | ExitReason::EarlyStopped) => State::Complete,
        Some(ExitReason::StoppedByGate) => State::Pruned,
        Some(reason) if reason.is_resumable() => State::Running,
        Some(_) => State::Fail,
    };
    let value = summary.filter(|_| state == State::Complete).and_then(|summary| summary.final_val_ce).filter(|ce| ce.is_finite());
    // Optuna takes no value that is not a number.
    let state = if state == State::Complete && value.is_none() { State::Fail } else { state };
    let intermediate_values = evals.iter().map(|eval| (eval.update, Loss(eval.val_ce))).collect();
    Told { trial: trial.into(), state, value, intermediate_values }
}
