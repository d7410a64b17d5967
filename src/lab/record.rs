//! The result of a run: `summary.json`.
//!
//! What was not measured is `null`, never 0. Cross-entropies are in nats a token.

pub use crate::train::baselines::Baselines;
use crate::train::exact;
use crate::train::metrics::Event;
use serde::{Deserialize, Serialize};

/// Version of `summary.json`.
pub const SCHEMA: u32 = 1;

/// `summary.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Version of the file.
    pub schema: u32,
    /// Name of the run.
    pub name: String,
    /// Why the run ended.
    pub exit: ExitReason,
    /// Validation cross-entropy after the last update.
    pub final_val_ce: Option<f64>,
    /// Lowest validation cross-entropy of all evaluations.
    pub best_val_ce: Option<f64>,
    /// The update after which it was measured.
    pub best_update: Option<u32>,
    /// Optimizer updates finished, skipped ones included.
    pub updates: u32,
    /// Updates that were not applied, because a loss or gradient was not finite.
    pub skipped_updates: u64,
    /// Times the run went back to a checkpoint.
    pub rollbacks: u32,
    /// Training tokens seen.
    pub tokens: u64,
    /// Training tokens a second over the whole run, evaluations and checkpoints included.
    #[serde(with = "exact")]
    pub tokens_per_second: f64,
    /// Name of the adapter.
    pub adapter: String,
    /// Name and version of its driver.
    pub driver: String,
    /// Hash of the final weights (`checkpoint::weights_sha256`).
    pub weights_sha256: String,
    /// What the losses are to be held against.
    pub baselines: Baselines,
    /// Hash of the effective config.
    pub config_sha256: String,
    /// Hash of the training and validation tokens.
    pub data_sha256: String,
    /// Hash of the tokenizer.
    pub tokenizer_sha256: String,
    /// Version of moelab.
    pub version: String,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// All updates were made.
    Completed,
    /// The validation loss stopped improving.
    EarlyStopped,
    /// The user stopped it; it can be resumed.
    Interrupted,
    /// Too many updates in a row were not finite, roll-backs included.
    Diverged,
    /// The device was lost and did not come back; it can be resumed.
    DeviceLost,
}

impl ExitReason {
    /// Exit code of the command line: 0 done, 3 diverged, 4 device lost, 75 try again.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Completed | Self::EarlyStopped => 0,
            Self::Diverged => 3,
            Self::DeviceLost => 4,
            Self::Interrupted => 75,
        }
    }

    /// In words, to follow "The run".
    pub fn words(self) -> &'static str {
        match self {
            Self::Completed => "made all its updates",
            Self::EarlyStopped => "stopped early, because its validation loss no longer improved",
            Self::Interrupted => "was stopped and can be resumed",
            Self::Diverged => "diverged: too many updates in a row were not finite",
            Self::DeviceLost => "ended because the device was lost; it can be resumed",
        }
    }
}

impl Summary {
    /// Takes `final_val_ce`, `best_val_ce`, `best_update`, `updates` and `tokens` from the lines of the run.
    ///
    /// The final loss is that of an evaluation after the last update; without one it stays unknown.
    pub fn measure(&mut self, events: &[Event]) {
        let (mut evals, mut last) = (Vec::new(), None);
        for event in events {
            match event {
                Event::Update(record) => last = Some(record),
                Event::Eval(record) => evals.push(record),
                _ => {}
            }
        }
        (self.updates, self.tokens) = last.map_or((0, 0), |record| (record.update, record.tokens));
        let known = |ce: f64| Some(ce).filter(|ce| ce.is_finite());
        self.final_val_ce = evals.last().filter(|eval| eval.update == self.updates).and_then(|eval| known(eval.val_ce));
        let finite = evals.iter().filter(|eval| eval.val_ce.is_finite());
        // The earliest of equals, as early stopping counts it.
        let best = finite.min_by(|a, b| a.val_ce.total_cmp(&b.val_ce));
        (self.best_val_ce, self.best_update) = (best.map(|eval| eval.val_ce), best.map(|eval| eval.update));
    }

    /// The file, with a line feed at the end.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("it has string keys and numbers") + "\n"
    }

    /// Reads what [`Summary::to_json`] wrote. The error says where it is wrong.
    pub fn from_json(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| format!("summary.json: {error}"))
    }
}
