//! A study: one TOML file that names a question, the arms that answer it, and how often each is repeated.
//!
//! An *arm* is a config with changes. Arms come from `[arms]`, each with its own changes or its own file, and from `[grid]`, the
//! product of the values of some keys. One arm is the control that the others are compared with. Every arm is trained with the same
//! seeds, so that arms are compared in pairs: the same initial weights where shapes agree, the same batches.
//!
//! ```
//! use moelab::run::suite;
//!
//! let files = |path: &str| Ok(match path {
//!     "study.toml" => "question = \"Does a lower balance weight help?\"\nbase = \"base.toml\"\n[arms.none]\nset = [\"model.balance.coefficient=0.0\"]",
//!     _ => "[model]\nvocabulary = 256\nwidth = 64\n",
//! }.to_string());
//! let suite = suite::load(&files, "study.toml", &[])?;
//! let plan = suite::plan(&suite, &files, "study.toml")?;
//! let ids: Vec<&str> = plan.runs.iter().map(|run| run.id.as_str()).collect();
//! assert_eq!(ids, ["control-s1", "none-s1", "control-s2", "none-s2", "control-s3", "none-s3"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! *Stages* are prefixes of a run: all arms are trained up to the end of a stage before gates decide which continue, from their
//! checkpoints. The schedule is that of the whole run, so a run that passes through stages has the same bits as one that does not.
//!
//! Long because it declares every key of a study.

mod plan;

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

pub use plan::{ArmConfig, Plan, PlanError, PlannedRun, flop_per_update, plan};

use super::{Config, gates::GateOptions};
use crate::config_file::{self, Amount, Conflict, Kind, Literals, Problems, Reader, Root, Value};
use crate::{choices, options};

/// The arm without changes.
pub const CONTROL: &str = "control";
/// Largest number of arms of a study.
const MAX_ARMS: usize = 1000;

options! {
    /// A study.
    pub struct Suite: bookkeeping {
        /// The question that the study answers.
        question: String;
        /// The config that arms change, relative to the study's file.
        base: String;
        /// Changes that hold for every arm, each `key=value`.
        set: Vec<String>;
        /// Divides values of keys, last of all: `"model.width" = 8` trains every arm at an eighth of its width, so that ratios within
        /// and between arms stay. Whole numbers are rounded, to at least 1; percentages and 0 stay.
        scale: BTreeMap<String, f64>;
        /// The arm that the others are compared with. An arm without changes need not be declared.
        control: String = CONTROL.into();
        /// Seed of the first repeat; the others count up from it.
        seed: u64 = 1;
        /// Number of seeds per arm, or "until clear": seeds are added until every arm has a verdict or the budget is spent.
        repeats: Repeats = Repeats::Count(3);
        /// Arms by name.
        arms: BTreeMap<String, Arm>;
        /// Values of keys: an arm for each combination.
        grid: BTreeMap<String, Literals>;
        /// Stages by name, each with the update at which it ends; a percentage is one of the run's length.
        stages: BTreeMap<String, Amount>;
        /// What is compared, and what counts as a difference.
        verdict: VerdictOptions;
        /// When arms are stopped at the end of a stage.
        gates: GateOptions;
        /// What others have concluded about these arms. The report says what becomes of it.
        claims: BTreeMap<String, Claim>;
        /// Checks of the audit that may fail, each with the reason, which the report states.
        overrides: BTreeMap<String, String>;
    }
}

options! {
    /// An arm: a config with changes.
    pub struct Arm: bookkeeping {
        /// A config instead of the base, relative to the study's file.
        file: String;
        /// Changes to it, each `key=value`.
        set: Vec<String>;
    }
}

options! {
    /// What is said about arms, each against the control.
    pub struct Claim: bookkeeping {
        /// The sentence, as it was published.
        text: String;
        /// Arms that it calls better.
        better: Vec<String>;
        /// Arms that it calls worse.
        worse: Vec<String>;
        /// Arms of which it says that the difference does not matter.
        equal: Vec<String>;
    }
}

impl Claim {
    /// The arms with what is said about each.
    pub fn parts(&self) -> impl Iterator<Item = (&str, Relation)> {
        let all = [(&self.better, Relation::Better), (&self.worse, Relation::Worse), (&self.equal, Relation::Equal)];
        all.into_iter().flat_map(|(arms, relation)| arms.iter().map(move |arm| (arm.as_str(), relation)))
    }
}

/// How an arm is said to compare with the control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Better.
    Better,
    /// Worse.
    Worse,
    /// No different, or not by enough to matter.
    Equal,
}

options! {
    /// What is compared, and what counts as a difference.
    pub struct VerdictOptions: bookkeeping {
        /// The measured value.
        metric: Metric = Metric::FinalCe;
        /// What must be equal when two arms are compared.
        at: Axis = Axis::Updates;
        /// Smallest difference that would change a decision, in the metric's unit.
        margin: f64 = 0.02 => 0.0..=100.0;
        /// Probability of any false verdict in the whole study, however often it is looked at.
        alpha: f64 = 0.05 => 1e-6..=0.5;
        /// The effect to be found soonest, in standard deviations of the paired difference.
        effect: f64 = 3.0 => 0.1..=100.0;
        /// Largest number of seeds of an arm if repeats are adaptive.
        most: u32 = 20 => 4..=1000;
        /// Largest number of runs of the study; 0 for no limit.
        budget: u32 = 0 => 0..=1_000_000;
    }
}

choices! {
    /// The value of a run that is compared. Lower is better.
    pub enum Metric {
        /// Validation cross-entropy at the end.
        FinalCe = "final_ce",
        /// Lowest validation cross-entropy of all evaluations. It depends on how often a run is evaluated.
        BestCe = "best_ce",
    }
}

choices! {
    /// What must be equal when two arms are compared.
    pub enum Axis {
        /// Optimizer updates.
        Updates = "updates",
        /// Training tokens.
        Tokens = "tokens",
        /// Floating-point operations, as `moelab params` counts them.
        Flops = "flops",
        /// Seconds of training.
        Seconds = "seconds",
    }
}

/// How often an arm is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeats {
    /// This number of seeds.
    Count(u32),
    /// As many as a verdict needs.
    UntilClear,
}

impl Repeats {
    const WORD: &str = "until clear";
    /// Seeds of every arm in the first round of adaptive repeats.
    const FIRST_ROUND: u32 = 3;
    const MOST: u32 = 1000;

    /// Seeds of every arm at the start.
    pub fn at_first(self) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::UntilClear => Self::FIRST_ROUND,
        }
    }
}

impl Value for Repeats {
    fn kind() -> Kind {
        Kind::CountOr { min: 1, max: Self::MOST, word: Self::WORD }
    }

    fn read(value: &toml::Value) -> Option<Self> {
        match value {
            toml::Value::String(word) => (word == Self::WORD).then_some(Self::UntilClear),
            count => u32::read(count).map(Self::Count),
        }
    }

    fn write(&self) -> toml::Value {
        match self {
            Self::Count(count) => count.write(),
            Self::UntilClear => Self::WORD.into(),
        }
    }
}

impl Serialize for Repeats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.write().serialize(serializer)
    }
}

impl Root for Suite {
    const SYNONYMS: &'static [(&'static str, &'static [&'static str])] = &[
        ("baseline", &["control"]),
        ("configs", &["arms"]),
        ("experiments", &["arms"]),
        ("n_seeds", &["repeats"]),
        ("overrides", &["set"]),
        ("patches", &["arms"]),
        ("seeds", &["repeats", "seed"]),
        ("sweep", &["grid"]),
    ];
}

/// Reads and checks the study at `path`, with `sets` (each `key=value`) over it.
///
/// # Errors
/// Every problem of the file, each with its place. Problems of the arms' configs are found by [`plan`].
pub fn load(sources: Reader, path: &str, sets: &[String]) -> Result<Suite, Problems> {
    let mut loaded = config_file::load::<Suite>(sources, path, sets);
    for conflict in loaded.config.problems() {
        loaded.refuse(conflict);
    }
    loaded.finish()
}

impl Suite {
    /// The study as TOML with every default filled in; loads to an equal study.
    pub fn to_effective_toml(&self) -> String {
        config_file::effective_toml(self)
    }

    /// The arms in order: the control, then those of `[arms]` and of `[grid]`, by name.
    pub fn arms(&self) -> Vec<ArmChanges> {
        let declared = self.arms.iter().map(|(name, arm)| ArmChanges {
            name: name.clone(),
            file: Some(arm.file.clone()).filter(|file| !file.is_empty()),
            sets: arm.set.clone(),
        });
        let mut arms: Vec<ArmChanges> = declared.chain(self.grid_arms()).collect();
        match arms.iter().position(|arm| arm.name == self.control) {
            Some(place) => arms[..=place].rotate_right(1),
            None => arms.insert(0, ArmChanges { name: self.control.clone(), file: None, sets: Vec::new() }),
        }
        arms
    }

    /// The keys that differ between arms by declaration.
    pub fn swept(&self) -> Vec<String> {
        let key = |set: &String| set.split('=').next().unwrap_or_default().trim().to_string();
        let mut keys: Vec<String> = self.arms.values().flat_map(|arm| arm.set.iter().map(key)).chain(self.grid.keys().cloned()).collect();
        keys.sort();
        keys.dedup();
        keys
    }

    fn grid_arms(&self) -> Vec<ArmChanges> {
        if self.grid.is_empty() {
            return Vec::new();
        }
        let mut arms = vec![(Vec::new(), Vec::new())];
        for (key, values) in &self.grid {
            let short = self.short_name(key);
            let with = |(names, sets): &(Vec<String>, Vec<String>), value: &String| {
                let name = format!("{short}-{}", value.trim_matches('"'));
                ([&names[..], &[name]].concat(), [&sets[..], &[format!("{key}={value}")]].concat())
            };
            arms = arms.iter().flat_map(|arm| values.0.iter().map(|value| with(arm, value)).collect::<Vec<_>>()).collect();
        }
        arms.into_iter().map(|(names, sets)| ArmChanges { name: plain_name(&names.join("_")), file: None, sets }).collect()
    }

    /// The last part of a key, or the whole key if another one ends alike.
    fn short_name(&self, key: &str) -> String {
        let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_string();
        let is_shared = self.grid.keys().filter(|other| last(other) == last(key)).count() > 1;
        if is_shared { key.replace('.', "-") } else { last(key) }
    }

    fn problems(&self) -> Vec<Conflict> {
        let mut found = Vec::new();
        let mut refuse = |key: &str, label: &str, message: String, help: &str| {
            found.push(Conflict::new(message, &[(key, label.to_string())], help));
        };
        if self.question.trim().is_empty() {
            refuse("question", "empty", "a study has a question".into(), "state it in one sentence: `question = \"Does ... ?\"`");
        }
        if self.base.is_empty() && self.arms.values().any(|arm| arm.file.is_empty()) || self.base.is_empty() && self.arms.is_empty() {
            refuse("base", "empty", "the arms have no config".into(), "name the config that they change: `base = \"baseline.toml\"`");
        }
        let count = self.grid.values().fold(self.arms.len(), |product, values| product.saturating_mul(values.0.len().max(1)));
        if count > MAX_ARMS {
            refuse("grid", "the product", format!("{count} arms are more than {MAX_ARMS}"), "split the study");
            return found;
        }
        let known = Config::kind();
        for (key, values) in &self.grid {
            if known.find(key).is_none_or(|kind| matches!(kind, Kind::Table(_))) {
                let place = format!("grid.{key:?}");
                refuse(
                    &place,
                    "no such key",
                    format!("`{key}` is not a key of a config"),
                    "the file `config.effective.toml` of a run lists every key",
                );
            } else if values.0.is_empty() {
                refuse(
                    &format!("grid.{key:?}"),
                    "empty",
                    format!("the grid has no value of `{key}`"),
                    "list at least one value, or leave the key out",
                );
            }
        }
        for (key, divisor) in &self.scale {
            let is_number = matches!(known.find(key), Some(Kind::Integer { .. } | Kind::Real { .. } | Kind::Amount { .. }));
            if !is_number {
                refuse(
                    &format!("scale.{key:?}"),
                    "no number",
                    format!("`{key}` is not the key of a number"),
                    "the file `config.effective.toml` of a run lists every key",
                );
            } else if !(divisor.is_finite() && *divisor > 0.0) {
                refuse(
                    &format!("scale.{key:?}"),
                    "not positive",
                    format!("`{key}` cannot be divided by {divisor}"),
                    "divide by a positive number",
                );
            }
        }
        let arms = self.arms();
        for (place, arm) in arms.iter().enumerate() {
            let key = if self.arms.contains_key(&arm.name) { format!("arms.{}.set", arm.name) } else { "grid".into() };
            if let Some(problem) = name_problem(&arm.name) {
                refuse(
                    &key,
                    "this arm",
                    format!("`{}` cannot be the name of an arm: {problem}", arm.name),
                    "its runs are stored in folders of that name",
                );
            }
            if arms[..place].iter().any(|other| other.name.eq_ignore_ascii_case(&arm.name)) {
                refuse(&key, "this arm", format!("two arms are called `{}`", arm.name), "give one of them another name");
            }
        }
        for (name, arm) in &self.arms {
            if let Some(set) = arm.set.iter().find(|set| !set.contains('=')) {
                refuse(
                    &format!("arms.{name}.set"),
                    "no value",
                    format!("`{set}` is not key=value"),
                    "for example \"model.router.top_k=1\"",
                );
            }
            if arm.set.iter().any(|set| set.split('=').next().is_some_and(|key| key.trim() == "seed")) {
                refuse(
                    &format!("arms.{name}.set"),
                    "sets `seed`",
                    "an arm cannot choose its seed: arms are compared in pairs of equal seeds".into(),
                    "set `seed` and `repeats` of the study",
                );
            }
        }
        for (name, claim) in &self.claims {
            let key = format!("claims.{name}");
            if claim.text.trim().is_empty() || claim.parts().next().is_none() {
                refuse(
                    &key,
                    "incomplete",
                    format!("the claim `{name}` says nothing"),
                    "state its `text`, and name the arms that it calls `better`, `worse` or `equal`",
                );
            }
            for (arm, _) in claim.parts().filter(|(arm, _)| *arm == self.control || !arms.iter().any(|known| known.name == *arm)) {
                let others: Vec<&str> = arms[1..].iter().map(|arm| arm.name.as_str()).collect();
                let help = format!("a claim is about arms against the control: {}", others.join(", "));
                refuse(&key, "names it", format!("`{arm}` is not an arm that is compared with `{}`", self.control), &help);
            }
        }
        for (name, end) in &self.stages {
            if end.of(u32::MAX) == 0 {
                refuse(&format!("stages.{name}"), "no update", format!("stage `{name}` ends before the first update"), "");
            }
        }
        found
    }
}

/// An arm before its config is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArmChanges {
    /// Its name.
    pub name: String,
    /// Its config instead of the base, relative to the study's file.
    pub file: Option<String>,
    /// Changes, each `key=value`.
    pub sets: Vec<String>,
}

/// The text with other characters than those of names replaced.
fn plain_name(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect()
}

/// Why a text cannot be the name of an arm.
fn name_problem(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("it is empty"),
        _ if name.len() > 80 => Some("it has more than 80 characters"),
        _ if plain_name(name) != name => Some("only letters, digits, `.`, `_` and `-` are allowed"),
        _ if name.starts_with('.') || name.starts_with('-') => Some("it must start with a letter or digit"),
        _ => None,
    }
}
