//! The result of a run: `summary.json`. Every run that starts writes one, however it ends.
//!
//! Values that were not measured are `null`, never 0. Cross-entropies are in nats per token.

use std::collections::BTreeMap;

use super::exact;
use super::identity::Change;
use super::records::Incident;
use crate::config_file::Class;
use serde::{Deserialize, Serialize};

/// Version of `summary.json`.
pub const SCHEMA: u32 = 1;

/// Reference losses on the validation targets, nats per token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baselines {
    /// Uniform over all ids of the tokenizer.
    pub uniform: f64,
    /// By unigram frequency.
    pub unigram: f64,
    /// Conditioned on the previous token.
    pub bigram: f64,
    /// Under the true process, if it is known.
    pub entropy: Option<f64>,
}

/// The training data of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpochSize {
    /// Training windows.
    pub windows: u64,
    /// Distinct training tokens.
    pub tokens: u64,
}

impl Baselines {
    /// The three baselines that are always known, with names, from weakest to strongest.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, f64)> {
        [("uniform", self.uniform), ("unigram", self.unigram), ("bigram", self.bigram)].into_iter()
    }
}

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
    /// The message, if it ended with an error.
    #[serde(default)]
    pub detail: Option<String>,
    /// Validation cross-entropy after the last update.
    pub final_val_ce: Option<f64>,
    /// Lowest validation cross-entropy of all evaluations.
    pub best_val_ce: Option<f64>,
    /// The update after which it was measured.
    pub best_update: Option<u32>,
    /// Optimizer updates finished, skipped ones included.
    pub updates: u32,
    /// Updates that were skipped because a loss or gradient was not finite.
    pub skipped_updates: u64,
    /// Number of roll-backs to a checkpoint.
    pub rollbacks: u32,
    /// The first update of the first alarm: a loss that was finite but far too high.
    #[serde(default)]
    pub blew_up_at: Option<u32>,
    /// The first update of the first alarm of each kind about the routers: collapse, dead experts, starved experts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub routing_alarms: BTreeMap<Incident, u32>,
    /// Whether tokens were assigned to experts in turn (`model.router.force_balance`): a measurement of throughput, whose losses are no
    /// result.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forced_balance: bool,
    /// Training tokens seen.
    pub tokens: u64,
    /// Training tokens per second, without the first update after each start, evaluations and checkpoints included. `None` if
    /// that is less than [`RATE_SECONDS`](crate::run::records::RATE_SECONDS) in total.
    #[serde(with = "exact::option", default)]
    pub tokens_per_second: Option<f64>,
    /// Name of the adapter.
    pub adapter: String,
    /// Name and version of its driver.
    pub driver: String,
    /// Hash of the weights after the last update (see [`checkpoint`](super::checkpoint)), if the folder has a checkpoint of them.
    #[serde(default)]
    pub weights_sha256: Option<String>,
    /// Reference values for the losses.
    #[serde(default)]
    pub baselines: Option<Baselines>,
    /// Training windows and tokens of an epoch; `None` if the documents are endless, and in summaries of older releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<EpochSize>,
    /// Settings that were changed during the run.
    #[serde(default)]
    pub changes: Vec<Change>,
    /// Hash of the settings of each class that differ from the defaults: equal for runs with equal settings.
    #[serde(default)]
    pub settings_sha256: BTreeMap<Class, String>,
    /// Hash of the effective config that the run was started with.
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
    /// A gate of its study stopped it, for the reason in [`Summary::detail`]; it can be resumed.
    StoppedByGate,
    /// The user stopped it; it can be resumed.
    Interrupted,
    /// Too many updates in a row were not finite, roll-backs included.
    Diverged,
    /// The device was lost; it can be resumed.
    DeviceLost,
    /// The disk of the run folder is full; it can be resumed from its last checkpoint.
    OutOfSpace,
    /// The last checkpoint or the log could not be written for another reason; it can be resumed from its last checkpoint.
    SaveFailed,
    /// Any other error, of the device or of a file.
    Failed,
}

impl ExitReason {
    /// Exit code of the command line: 0 success, 2 error, 3 diverged, 4 device lost, 74 not saved, 75 try again.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Completed | Self::EarlyStopped | Self::StoppedByGate => 0,
            Self::Failed => 2,
            Self::Diverged => 3,
            Self::DeviceLost => 4,
            Self::OutOfSpace | Self::SaveFailed => 74,
            Self::Interrupted => 75,
        }
    }

    /// As text, to follow "The run".
    pub fn words(self) -> &'static str {
        match self {
            Self::Completed => "made all its updates",
            Self::EarlyStopped => "stopped early, because its validation loss no longer improved",
            Self::StoppedByGate => "was stopped by a gate of its study",
            Self::Interrupted => "was stopped and can be resumed",
            Self::Diverged => "diverged: too many consecutive updates were not finite",
            Self::DeviceLost => "ended because the device was lost; it can be resumed",
            Self::OutOfSpace => "ended because the disk was full; it can be resumed from its last checkpoint",
            Self::SaveFailed => "ended because it could not be saved; it can be resumed from its last checkpoint",
            Self::Failed => "ended because of an error",
        }
    }

    /// Whether `moelab resume` can continue the run.
    pub fn is_resumable(self) -> bool {
        matches!(self, Self::StoppedByGate | Self::Interrupted | Self::DeviceLost | Self::OutOfSpace | Self::SaveFailed)
    }
}

impl Summary {
    /// The file, with a line feed at the end.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("string keys and numbers serialise") + "\n"
    }
}
