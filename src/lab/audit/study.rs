//! What an audit looks at: the arms of a study, facts about its data and adapter, what its runs measured, and what is claimed of them.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use super::claims::{Claim, Comparison, Quantity, Statement};
pub use super::results::{AppliedRates, BEST_VAL_LOSS, Decision, Evaluation, Evaluator, ExpertLoad, Measured, Status, VAL_LOSS};
use crate::config_file::{self, Class};
use crate::run::Config;
use crate::run::config::EarlyStopping;
use crate::run::identity::{self, Change};
use crate::run::model::FfnKind;
use crate::run::model::parameters::Group;
use crate::run::schedule::balance_coefficient;
pub use crate::run::suite::ArmConfig as Arm;

/// A study: everything is optional but the arms, and a check without its input finds nothing.
#[derive(Clone, Debug, Default)]
pub struct Study {
    /// The arms; the first is the control.
    pub arms: Vec<Arm>,
    /// The data, if they were read.
    pub data: Option<DataFacts>,
    /// The adapter's memory and what the arms need of it, if an adapter is known.
    pub memory: Vec<MemoryFacts>,
    /// What the runs measured.
    pub runs: Vec<Measured>,
    /// What is concluded from them.
    pub claims: Vec<Claim>,
}

/// The data of a study, as far as they do not follow from its configs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataFacts {
    /// Training windows in one epoch; 0 if the documents are endless.
    #[serde(default)]
    pub training_windows: u64,
    /// Distinct training tokens; 0 if the documents are endless.
    #[serde(default)]
    pub training_tokens: u64,
    /// What validation shares with training, if it was measured.
    #[serde(default)]
    pub overlap: Option<Overlap>,
    /// Shift of the targets against the tokens, if it was measured: 1 predicts the next token, 0 copies.
    #[serde(default)]
    pub target_shift: Option<u32>,
}

/// What validation windows share with training text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlap {
    /// Tokens of a window, T.
    pub window: u32,
    /// Length in tokens of the runs that were compared.
    pub run: u32,
    /// Validation windows that contain a run of that length that training text contains too.
    pub shared: u64,
    /// Validation windows that were looked at.
    pub windows: u64,
}

/// The memory of an adapter and what an arm needs of it, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryFacts {
    /// The arm.
    pub arm: String,
    /// Bytes of all buffers of a run.
    pub needed: u64,
    /// Bytes of the largest tensor.
    pub largest: u64,
    /// Largest buffer of the adapter.
    pub most_binding: u64,
    /// Memory of the adapter, if it is known.
    pub available: Option<u64>,
}

impl Study {
    /// The arm of this name.
    pub fn arm(&self, name: &str) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.name == name)
    }

    /// The arms but the control, each with the control.
    pub fn against_control(&self) -> impl Iterator<Item = (&Arm, &Arm)> {
        let control = self.arms.first();
        self.arms.iter().skip(1).filter_map(move |arm| Some((arm, control?)))
    }

    /// Runs of an arm that have a result.
    pub fn runs_of<'a>(&'a self, arm: &'a str) -> impl Iterator<Item = &'a Measured> {
        self.runs.iter().filter(move |run| run.arm == arm && run.is_usable())
    }

    /// The data that an arm is trained on: as its runs recorded them, otherwise those of the study.
    pub fn data_of(&self, arm: &str) -> Option<DataFacts> {
        let recorded = self.runs_of(arm).find_map(|run| run.epoch);
        let known = self.data.unwrap_or_default();
        recorded.map(|epoch| DataFacts { training_windows: epoch.windows, training_tokens: epoch.tokens, ..known }).or(self.data)
    }

    /// Groups of arms whose configs are the same run, by name. Early stopping that never ended a run changes nothing.
    pub fn replicas(&self) -> Vec<BTreeSet<&str>> {
        let mut groups: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for arm in &self.arms {
            let mut config = arm.config.clone();
            if self.runs_of(&arm.name).all(|run| run.status == Status::Completed) {
                config.train.early_stopping = EarlyStopping::default();
            }
            groups.entry(same_run(&config)).or_default().insert(&arm.name);
        }
        groups.into_values().collect()
    }

    /// Claims with one of their comparisons.
    pub fn comparisons(&self) -> impl Iterator<Item = (&Claim, &Comparison)> {
        self.claims.iter().flat_map(|claim| claim.comparisons().iter().map(move |comparison| (claim, comparison)))
    }

    /// The comparisons of the claims, each with the sentence that it belongs to; without claims, every arm that was run against the
    /// control, attributed to what it changes.
    pub fn pairs(&self) -> Vec<(String, Comparison)> {
        if !self.claims.is_empty() {
            return self.comparisons().map(|(claim, comparison)| (claim.text.clone(), comparison.clone())).collect();
        }
        let was_run = |arm: &Arm| self.runs.iter().any(|run| run.arm == arm.name);
        let pair = |(arm, control): (&Arm, &Arm)| {
            let because = arm.changes.keys().cloned().collect();
            let comparison =
                Comparison { better: arm.name.clone(), than: control.name.clone(), metric: VAL_LOSS.into(), at: None, because };
            (was_run(arm) && was_run(control)).then(|| (format!("{} against {}", arm.name, control.name), comparison))
        };
        self.against_control().filter_map(pair).collect()
    }
}

/// All settings that differ from the defaults, by class.
pub fn settings(config: &Config) -> config_file::Settings {
    config_file::settings(config)
}

/// The value of a key that applies, as TOML; `None` if the key does not exist.
pub fn value(config: &Config, key: &str) -> Option<String> {
    let stated = settings(config).into_values().find_map(|mut keys| keys.remove(key));
    stated.or_else(|| identity::defaults().get(key).cloned())
}

/// The settings in which two configs differ, except bookkeeping.
pub fn differences(one: &Config, other: &Config) -> Vec<Change> {
    let mut changes = identity::changes(&settings(one), &settings(other), 0);
    changes.retain(|change| change.class != Class::Bookkeeping || change.key.starts_with("data."));
    changes
}

/// What is equal for configs that are the same run.
pub fn same_run(config: &Config) -> String {
    let mut settings = settings(config);
    if let Some(bookkeeping) = settings.get_mut(&Class::Bookkeeping) {
        bookkeeping.retain(|key, _| key.starts_with("data."));
    }
    format!("{settings:?}")
}

/// Whether the optimizer of a group updates any parameter.
pub fn has_group(config: &Config, group: Group) -> bool {
    config.parameters().iter().any(|spec| spec.group == group)
}

/// The schedule's quantities after a number of updates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Derived {
    /// Training tokens.
    pub tokens: u64,
    /// Share of the run.
    pub fraction: f64,
    /// Length of the warm-up in updates.
    pub warmup: u32,
    /// Learning rate of the update that follows.
    pub lr: f64,
    /// Sum of the learning rates so far.
    pub lr_sum: f64,
    /// Coefficient of the balance loss.
    pub lambda: f64,
}

impl Derived {
    /// The quantities of a config after `updates` updates; the learning rate is Muon's if it updates anything, else AdamW's.
    pub fn at(config: &Config, updates: u32) -> Derived {
        let schedule = config.learning_rates();
        let peak = if has_group(config, Group::Muon) { config.optimizer.muon.lr } else { config.optimizer.adamw.lr };
        Derived {
            tokens: u64::from(updates) * config.tokens_per_update(),
            fraction: f64::from(updates) / f64::from(config.train.updates),
            warmup: (0..config.train.updates).take_while(|done| !schedule.is_warm(*done)).count() as u32,
            lr: peak * schedule.at_update(updates),
            lr_sum: (0..updates).map(|done| peak * schedule.at_update(done)).sum(),
            lambda: match config.model.ffn.kind {
                FfnKind::Moe => balance_coefficient(&config.model.balance, updates, config.train.updates),
                FfnKind::Dense => 0.0,
            },
        }
    }
}
