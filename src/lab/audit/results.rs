//! What a run measured, of moelab or imported.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::lab::reader::{Block, Bucket};
use crate::lab::{evaluation::EvalPoint, measured::MeasuredRun};
use crate::run::Config;
use crate::run::summary::{EpochSize, ExitReason};

/// The validation loss among the metrics of a run.
pub const VAL_LOSS: &str = "val_loss";
/// The lowest validation loss of all evaluations.
pub const BEST_VAL_LOSS: &str = "best_val_loss";

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It made all its updates.
    #[default]
    Completed,
    /// It was ended for a stated reason: early stopping, or a gate.
    Stopped(String),
    /// It has no usable result, for this reason.
    Failed(String),
}

/// What an evaluation measures. Values of different evaluators are different quantities.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Evaluator {
    /// Hash or name of the validation data.
    pub data: String,
    /// Number of targets.
    pub targets: Option<u64>,
    /// The terms of the loss.
    pub terms: Vec<String>,
    /// Largest contribution of the terms besides the cross-entropy, if it is known.
    pub other_terms_at_most: Option<f64>,
    /// The type in which the loss of a batch is computed.
    pub dtype: String,
    /// Number of equally weighted batches in the mean; 0 if targets are weighted equally.
    pub batches: u32,
}

impl Evaluator {
    /// moelab's own: cross-entropy in f32, weighted by targets.
    pub fn own(data: &str, targets: Option<u64>) -> Evaluator {
        Evaluator { data: data.into(), targets, terms: vec!["ce".into()], dtype: "f32".into(), ..Evaluator::default() }
    }

    /// What identifies the quantity apart from the loss terms.
    pub fn id(&self) -> (&str, Option<u64>, &str, bool) {
        (&self.data, self.targets, &self.dtype, self.batches > 0)
    }

    /// Short text for messages.
    pub fn words(&self) -> String {
        let targets = self.targets.map_or("an unknown number of".to_owned(), super::grouped);
        let data = if self.data.is_empty() { String::new() } else { format!(" of {}", self.data) };
        format!("{targets} targets{data}")
    }
}

/// One evaluation on the way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Number of updates, or of the unit in which the run counts.
    pub at: u64,
    /// Its values by name.
    pub metrics: BTreeMap<String, f64>,
}

/// Learning rates of one update as the log has them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AppliedRates {
    /// Number of the update, from 1.
    pub update: u32,
    /// AdamW's.
    pub adamw: f64,
    /// Muon's.
    pub muon: f64,
}

/// A decision of a run that may turn out the same every time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What is decided.
    pub name: String,
    /// The most common outcome.
    pub value: String,
    /// Its share of all decisions.
    pub share: f64,
    /// The settings that could only have had an effect through it.
    pub settings: String,
}

/// The load of an expert over the last measured updates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExpertLoad {
    /// MoE layer, from 0.
    pub layer: usize,
    /// Expert, from 0.
    pub expert: usize,
    /// Its share of the assignments times the number of experts: 1 is fair.
    pub of_fair: f64,
    /// The update since which it has been below the threshold.
    pub since: u32,
}

/// What one run measured, of moelab or imported.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Measured {
    /// Its arm.
    pub arm: String,
    /// Its seed, if it is known.
    pub seed: Option<u64>,
    /// How it ended.
    pub status: Status,
    /// The config that it recorded; `None` if it was imported.
    #[serde(skip)]
    pub config: Option<Config>,
    /// Settings that an imported run recorded, as numbers by the name that it has for them.
    pub recorded: BTreeMap<String, f64>,
    /// Whether it counts in micro-batches, not in updates.
    pub counts_micro_steps: bool,
    /// Length that was asked for and length that was run.
    pub length: Option<(u64, u64)>,
    /// Evaluations in order.
    pub evaluations: Vec<Evaluation>,
    /// Final values by name.
    pub metrics: BTreeMap<String, f64>,
    /// What its evaluations measure.
    pub evaluator: Evaluator,
    /// Learning rates in order.
    #[serde(skip)]
    pub rates: Vec<AppliedRates>,
    /// Decisions and how they turned out.
    pub decisions: Vec<Decision>,
    /// Experts that were starved at the end.
    #[serde(skip)]
    pub starved: Vec<ExpertLoad>,
    /// Cross-entropies of the corpus: unigram, and of the source if it is known.
    pub baselines: Option<(f64, Option<f64>)>,
    /// Training windows and tokens of an epoch, if the run recorded them.
    #[serde(skip)]
    pub epoch: Option<EpochSize>,
    /// Whether it would have stopped early without improvement.
    pub may_stop_early: bool,
}

impl Measured {
    /// The value of a metric, at an evaluation or at the end.
    pub fn value(&self, metric: &str, at: Option<u64>) -> Option<f64> {
        match at {
            None => self.metrics.get(metric).copied(),
            Some(at) => self.evaluations.iter().find(|evaluation| evaluation.at == at)?.metrics.get(metric).copied(),
        }
    }

    /// The number of updates that a count of this run corresponds to.
    pub fn updates(&self, count: u64, config: &Config) -> u32 {
        let per_update = if self.counts_micro_steps { config.train.micro_batches } else { 1 };
        (count / u64::from(per_update)) as u32
    }

    /// Whether it has a result.
    pub fn is_usable(&self) -> bool {
        !matches!(self.status, Status::Failed(_))
    }
}

/// An expert with less than this part of its fair share is starved.
const STARVED: f64 = 0.1;

impl From<&MeasuredRun> for Measured {
    fn from(run: &MeasuredRun) -> Measured {
        let summary = run.summary.as_ref();
        let value = |name: &str, value: Option<f64>| Some((name.to_owned(), value?));
        let evaluation = |eval: &EvalPoint| Evaluation {
            at: u64::from(eval.update),
            metrics: BTreeMap::from([(VAL_LOSS.to_owned(), eval.val_ce), ("val_accuracy".to_owned(), eval.accuracy)]),
        };
        let metrics = [
            value(VAL_LOSS, summary.and_then(|summary| summary.final_val_ce)),
            value(BEST_VAL_LOSS, summary.and_then(|summary| summary.best_val_ce)),
            value("val_accuracy", run.last().map(|eval| eval.accuracy)),
            value("seconds", run.last().map(|eval| eval.seconds)),
        ];
        // A run that was resumed with other settings is not a run of one schedule.
        let is_of_one_config = summary.is_none_or(|summary| summary.changes.is_empty());
        let rates = run.rates.iter().filter(|_| is_of_one_config);
        Measured {
            arm: run.arm.clone(),
            seed: Some(run.seed),
            status: match summary {
                None => Status::Failed("no summary: it is in progress, or was killed".into()),
                Some(summary) if summary.exit == ExitReason::Completed => Status::Completed,
                Some(summary) if summary.exit.exit_code() == 0 => Status::Stopped(summary.exit.words().into()),
                Some(summary) => Status::Failed(summary.detail.clone().unwrap_or_else(|| format!("it {}", summary.exit.words()))),
            },
            config: Some(run.config.clone()),
            length: summary.map(|summary| (u64::from(run.config.train.updates), u64::from(summary.updates))),
            evaluations: run.evals.iter().map(evaluation).collect(),
            metrics: metrics.into_iter().flatten().collect(),
            evaluator: Evaluator::own(
                summary.map_or("", |summary| summary.data_sha256.get(..12).unwrap_or_default()),
                run.last().map(|eval| eval.targets),
            ),
            rates: rates.map(|(update, [muon, adamw])| AppliedRates { update: *update, adamw: *adamw, muon: *muon }).collect(),
            starved: run.load.as_ref().map(starved).unwrap_or_default(),
            baselines: summary.and_then(|summary| summary.baselines).map(|baselines| (baselines.unigram, baselines.entropy)),
            epoch: summary.and_then(|summary| summary.epoch),
            may_stop_early: run.config.train.early_stopping.patience > 0,
            ..Measured::default()
        }
    }
}

/// The experts with less than [`STARVED`] of their fair share in the last bucket of the loads, and since when.
fn starved(load: &Block) -> Vec<ExpertLoad> {
    let (Some(last), [_, experts]) = (load.buckets.last(), load.shape.as_slice()) else { return Vec::new() };
    let experts = (*experts).max(1);
    let of_fair = |bucket: &Bucket, index: usize| bucket.mean.get(index).map_or(1.0, |share| share * experts as f64);
    let expert = |index: usize| {
        let streak = load.buckets.iter().rev().take_while(|bucket| of_fair(bucket, index) < STARVED);
        let since = streak.last().map_or(0, |bucket| *bucket.updates.start());
        ExpertLoad { layer: index / experts, expert: index % experts, of_fair: of_fair(last, index), since }
    };
    (0..last.mean.len()).filter(|index| of_fair(last, *index) < STARVED).map(expert).collect()
}
