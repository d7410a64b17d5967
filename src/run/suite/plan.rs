//! The runs of a study: `plan.jsonl`, one line a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Suite, VerdictOptions};
use crate::config_file::{self, Amount, Class, Problems, Reader, Settings};
use crate::run::{Config, config, identity, model::cost};

/// The runs of a study and the configs of its arms.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The question.
    pub question: String,
    /// What is compared.
    pub verdict: VerdictOptions,
    /// The arms, the control first.
    pub arms: Vec<ArmConfig>,
    /// The stages in order: name and the update at which each ends. The last ends with the run.
    pub stages: Vec<(String, u32)>,
    /// Seed by seed, so that pairs are complete as early as possible.
    pub runs: Vec<PlannedRun>,
}

/// An arm with its config.
#[derive(Clone, Debug, PartialEq)]
pub struct ArmConfig {
    /// Its name.
    pub name: String,
    /// Its config, with the study's first seed.
    pub config: Config,
    /// What the study changes in it: keys and values as TOML literals.
    pub changes: BTreeMap<String, String>,
}

/// A line of `plan.jsonl`. It contains everything that a machine needs to make the run, except for the data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedRun {
    /// Its place in the plan, from 0.
    pub index: usize,
    /// Its name, which is that of its folder.
    pub id: String,
    /// Its arm.
    pub arm: String,
    /// Its seed.
    pub seed: u64,
    /// The first stage.
    pub stage: String,
    /// The update at which the first stage ends.
    pub until: u32,
    /// The settings that differ from the defaults, as TOML literals by key: the config.
    pub settings: BTreeMap<String, String>,
    /// Hash of the settings of each class; equal for equal runs.
    pub identity: BTreeMap<Class, String>,
    /// Length of the whole run.
    pub updates: u32,
    /// Training tokens of the whole run.
    pub tokens: u64,
    /// Floating-point operations of the whole run, without evaluations.
    pub flop: f64,
}

/// Why a study cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The config of an arm is wrong.
    #[error("arm `{arm}`:\n{problems}")]
    Arm {
        /// The arm.
        arm: String,
        /// What is wrong with its config.
        problems: Problems,
    },
    /// The arms, or their stages, cannot be compared.
    #[error("{0}")]
    Incomparable(String),
}

/// Reads the configs of all arms and lists the runs of the first round.
///
/// # Errors
/// The config of an arm with all its problems; arms that are evaluated on different targets; stages that end where no evaluation is due.
pub fn plan(suite: &Suite, reader: Reader, path: &str) -> Result<Plan, PlanError> {
    let mut arms = Vec::new();
    for arm in suite.arms() {
        let file = beside(path, arm.file.as_deref().unwrap_or(&suite.base));
        let sets: Vec<String> = suite.set.iter().chain(&arm.sets).cloned().collect();
        let of_arm = |problems| PlanError::Arm { arm: arm.name.clone(), problems };
        let mut config = config::load(reader, &file, &sets).map_err(of_arm)?;
        if !suite.scale.is_empty() {
            let text = scaled(&config, &suite.scale);
            config = config::load(&|_| Ok(text.clone()), &format!("{file}, scaled"), &[]).map_err(of_arm)?;
        }
        config.seed = suite.seed;
        arms.push(ArmConfig { name: arm.name, config, changes: BTreeMap::new() });
    }
    let control = arms[0].config.clone();
    for arm in &mut arms {
        arm.changes = changes(&control, &arm.config);
    }
    comparable(&arms, suite)?;
    let stages = stages(suite, &arms)?;
    let mut plan = Plan { question: suite.question.clone(), verdict: suite.verdict.clone(), arms, stages, runs: Vec::new() };
    for repeat in 0..suite.repeats.at_first() {
        for arm in 0..plan.arms.len() {
            plan.add(arm, suite.seed + u64::from(repeat));
        }
    }
    Ok(plan)
}

/// The effective config with values of keys divided.
fn scaled(config: &Config, scale: &BTreeMap<String, f64>) -> String {
    let mut table: toml::Table = config.to_effective_toml().parse().expect("the effective config is TOML");
    for (key, divisor) in scale {
        let mut place = Some(&mut table);
        let (path, last) = key.rsplit_once('.').unwrap_or(("", key));
        for segment in path.split('.').filter(|segment| !segment.is_empty()) {
            place = place.and_then(|table| table.get_mut(segment)).and_then(toml::Value::as_table_mut);
        }
        // A key that does not apply to this arm is not there.
        match place.and_then(|table| table.get_mut(last)) {
            Some(toml::Value::Integer(value)) if *value != 0 => *value = ((*value as f64 / divisor).round() as i64).max(1),
            Some(toml::Value::Float(value)) => *value /= divisor,
            _ => {}
        }
    }
    table.to_string()
}

impl Plan {
    /// The plan with these runs, as they are in `plan.jsonl`: it needs none of the files that the study names. Arms that have no run
    /// are not part of it.
    ///
    /// # Errors
    /// A run whose settings this release refuses; stages that do not fit the arms.
    pub fn from_runs(suite: &Suite, runs: Vec<PlannedRun>) -> Result<Plan, PlanError> {
        let mut arms: Vec<ArmConfig> = Vec::new();
        for run in &runs {
            if arms.iter().any(|arm| arm.name == run.arm) {
                continue;
            }
            let mut config = run.config().map_err(|problems| PlanError::Arm { arm: run.arm.clone(), problems })?;
            config.seed = suite.seed;
            let place = if run.arm == suite.control { 0 } else { arms.len() };
            arms.insert(place, ArmConfig { name: run.arm.clone(), config, changes: BTreeMap::new() });
        }
        if arms.first().is_none_or(|arm| arm.name != suite.control) {
            return Err(PlanError::Incomparable(format!("plan.jsonl has no run of the control `{}`: plan the study again", suite.control)));
        }
        let control = arms[0].config.clone();
        arms.iter_mut().for_each(|arm| arm.changes = changes(&control, &arm.config));
        let stages = stages(suite, &arms)?;
        Ok(Plan { question: suite.question.clone(), verdict: suite.verdict.clone(), arms, stages, runs })
    }

    /// Adds a run, unless it is there; returns its place.
    pub fn add(&mut self, arm: usize, seed: u64) -> usize {
        let ArmConfig { name, config, .. } = &self.arms[arm];
        if let Some(known) = self.runs.iter().position(|run| run.arm == *name && run.seed == seed) {
            return known;
        }
        let config = Config { seed, ..config.clone() };
        let (stage, until) = self.stages[0].clone();
        let until = if self.stages.len() == 1 { config.train.updates } else { until };
        let index = self.runs.len();
        self.runs.push(PlannedRun {
            index,
            id: format!("{name}-s{seed}"),
            arm: name.clone(),
            seed,
            stage,
            until,
            identity: identity::class_hashes(&config_file::settings(&config)),
            settings: flat(&config_file::settings(&config)),
            updates: config.train.updates,
            tokens: config.tokens_per_update() * u64::from(config.train.updates),
            flop: flop_per_update(&config) * f64::from(config.train.updates),
        });
        index
    }

    /// The identity of an arm's run with a seed.
    pub fn identity(&self, arm: &ArmConfig, seed: u64) -> BTreeMap<Class, String> {
        identity::class_hashes(&config_file::settings(&Config { seed, ..arm.config.clone() }))
    }

    /// The settings of an arm's run with a seed that differ from the defaults, as TOML literals by key.
    pub fn settings(&self, arm: &ArmConfig, seed: u64) -> BTreeMap<String, String> {
        flat(&config_file::settings(&Config { seed, ..arm.config.clone() }))
    }

    /// As `plan.jsonl`.
    pub fn to_lines(&self) -> String {
        let line = |run: &PlannedRun| serde_json::to_string(run).expect("strings and numbers serialise") + "\n";
        self.runs.iter().map(line).collect()
    }
}

impl PlannedRun {
    /// Its config.
    ///
    /// # Errors
    /// If this release does not know a key, or refuses a value.
    pub fn config(&self) -> Result<Config, Problems> {
        let text: String = self.settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        config::load(&|_| Ok(text.clone()), &format!("{} in plan.jsonl", self.id), &[])
    }
}

/// Floating-point operations of an update, without evaluations.
pub fn flop_per_update(config: &Config) -> f64 {
    let cost = cost::cost(&config.model, &config.parameters(), config.data.sequence_length);
    let per_token = (cost.forward_flops_per_token + cost.backward_flops_per_token) as f64;
    per_token * config.tokens_per_update() as f64 + cost.muon_flops_per_update as f64
}

fn flat(settings: &Settings) -> BTreeMap<String, String> {
    settings.values().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The keys in which a config differs from the control's, with its values.
fn changes(control: &Config, config: &Config) -> BTreeMap<String, String> {
    let found = identity::changes(&config_file::settings(control), &config_file::settings(config), 0);
    found.into_iter().map(|change| (change.key, change.to)).collect()
}

/// A path relative to the folder of a file.
fn beside(file: &str, path: &str) -> String {
    match file.rsplit_once('/') {
        Some((folder, _)) if !path.starts_with('/') => format!("{folder}/{path}"),
        _ => path.to_string(),
    }
}

/// Keys of the class `data` that do not change what an evaluation measures.
const NOT_EVALUATED: [&str; 4] = ["seed", "data.batch", "data.drop_last", "data.shuffle"];

/// Refuses arms that are evaluated on other targets than the control, unless the study overrides it.
fn comparable(arms: &[ArmConfig], suite: &Suite) -> Result<(), PlanError> {
    if suite.overrides.contains_key("eval-mismatch") {
        return Ok(());
    }
    let measured = |config: &Config| {
        let mut keys = config_file::settings(config).remove(&Class::Data).unwrap_or_default();
        keys.retain(|key, _| key.starts_with("data.") && !NOT_EVALUATED.contains(&key.as_str()));
        keys.insert("model.vocabulary".into(), config.model.vocabulary.to_string());
        keys.insert("train.evaluation.windows".into(), config.train.evaluation.windows.to_string());
        keys
    };
    let control = measured(&arms[0].config);
    let mut wrong = Vec::new();
    for arm in &arms[1..] {
        let own = measured(&arm.config);
        let keys: std::collections::BTreeSet<&String> = control.keys().chain(own.keys()).collect();
        let value = |of: &BTreeMap<String, String>, key: &str| of.get(key).cloned().unwrap_or_else(|| "the default".into());
        wrong.extend(
            keys.into_iter()
                .filter(|key| control.get(*key) != own.get(*key))
                .map(|key| format!("  arm `{}`: `{key}` is {}, the control has {}", arm.name, value(&own, key), value(&control, key))),
        );
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(PlanError::Incomparable(format!(
        "EVAL MISMATCH  the arms are not evaluated on the same targets, so their losses cannot be compared:\n{}\n\
         Set these keys alike, make two studies, or state in `overrides.eval-mismatch` why they may differ",
        wrong.join("\n")
    )))
}

/// The stages in order, the last being the whole run.
fn stages(suite: &Suite, arms: &[ArmConfig]) -> Result<Vec<(String, u32)>, PlanError> {
    let shortest = arms.iter().map(|arm| arm.config.train.updates).min().unwrap_or(0);
    let end = |amount: &Amount| amount.of(shortest);
    let mut stages: Vec<(String, u32)> = suite.stages.iter().map(|(name, amount)| (name.clone(), end(amount))).collect();
    stages.sort_by_key(|(_, end)| *end);
    let mut wrong = Vec::new();
    for (place, (name, end)) in stages.iter().enumerate() {
        if *end > shortest {
            wrong.push(format!("stage `{name}` ends at update {end}, after the shortest arm, which has {shortest}"));
        }
        if stages[..place].iter().any(|(_, other)| other == end) {
            wrong.push(format!("two stages end at update {end}"));
        }
        if let Some(arm) = arms.iter().find(|arm| *end <= shortest && !arm.config.evaluation_due(*end)) {
            let before = (1..*end).rev().find(|update| arm.config.evaluation_due(*update));
            let after = (*end..=shortest).find(|update| arm.config.evaluation_due(*update));
            let near: Vec<String> = [before, after].into_iter().flatten().map(|update| update.to_string()).collect();
            wrong.push(format!(
                "stage `{name}` ends at update {end}, where arm `{}` is not evaluated, so that nothing could be decided: end it at {}",
                arm.name,
                near.join(" or ")
            ));
        }
    }
    if !wrong.is_empty() {
        return Err(PlanError::Incomparable(wrong.join("\n")));
    }
    // A stage at the very end is the run itself.
    if stages.last().is_none_or(|(_, end)| *end < shortest || arms.iter().any(|arm| arm.config.train.updates > *end)) {
        stages.push(("whole".into(), shortest));
    }
    Ok(stages)
}
