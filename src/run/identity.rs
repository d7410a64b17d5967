//! What makes two runs the same run.
//!
//! A checkpoint stores the settings that differ from the defaults, by [`Class`], and hashes of data and tokenizer. When a run is
//! read, [`Identity::check`] compares them with the current ones:
//!
//! | differs | resuming | evaluating | sampling, exporting, evaluating other text |
//! |---|---|---|---|
//! | `model`, tokenizer | refused | refused | refused |
//! | `data`, the tokens | refused | refused | not read |
//! | `optimisation` | refused, unless allowed or no update was made yet; recorded in the result | noted | noted |
//! | `length` | recorded in the result | noted | noted |
//! | `bookkeeping` | free, logged | free | free |
//! | adapter, driver | a warning: bit-equality is no longer guaranteed | free | free |
//!
//! Only settings that differ from the defaults count, so that runs stay valid when a later release adds a key. The release, the
//! layout of the effective file and the order of its keys do not matter either.
//!
//! **Length and schedules.** Percentages of a schedule are relative to the run's length. If a longer run would have used another
//! learning rate in updates that are already made, it resumes with the schedule of the new length and warns ([`rates_already_used`]):
//! it differs from a run of that length from the start. A schedule in counts, or an explicit horizon, continues unchanged.
//!
//! **State files of the first release** have one hash over the whole effective config instead of its settings. The folder's
//! `config.effective.toml` has that hash unless it was edited, and provides the settings ([`Identity::completed`]).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::config::{self, Config};
use super::digest::sha256_hex;
use super::schedule::balance_coefficient;
use crate::config_file::{self, Class, Problems, Settings};

/// Hashes (lower-case hex), settings and names that identify a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Hash of the effective config that the run was started with, as written by the release that started it; equal to the one in
    /// the first line of the metrics.
    pub config: String,
    /// The settings that differ from the defaults, except bookkeeping; absent in state files of the first release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
    /// Hash of the training and validation tokens.
    pub data: String,
    /// Hash of the tokenizer.
    pub tokenizer: String,
    /// Name of the adapter.
    pub adapter: String,
    /// Name and version of its driver.
    pub driver: String,
}

/// A setting that was changed when a run was resumed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Updates made before the change.
    pub update: u32,
    /// The class of the key.
    pub class: Class,
    /// The key.
    pub key: String,
    /// The value before, as TOML.
    pub from: String,
    /// The value after, as TOML.
    pub to: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {} -> {}", self.class, self.key, self.from, self.to)
    }
}

/// The purpose for which a run is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// Resumes training after `update` updates, allowing changes of these classes.
    Resume {
        /// Updates made.
        update: u32,
        /// Classes that the user allows to differ.
        allowed: &'a [Class],
    },
    /// Evaluates it on its own validation set.
    Evaluate,
    /// Reads its weights and its tokenizer: samples, exports, evaluates other text.
    Weights,
}

/// A run matches the current config and data well enough for its purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Settings that differ and are taken over. Empty unless the run is resumed.
    pub changes: Vec<Change>,
    /// Notes for the user, one line each.
    pub notes: Vec<String>,
}

/// The current config or data do not match the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What differs, expected and found, and how to proceed: one entry per difference.
    pub reasons: Vec<String>,
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "config or data do not match the run")?;
        self.reasons.iter().try_for_each(|reason| write!(f, "\n  {reason}"))
    }
}

impl Identity {
    /// The identity of a run of `config` on data and a tokenizer with these hashes; both may be empty if none are read.
    pub fn new(config: &Config, data: &str, tokenizer: &str, adapter: &str, driver: &str) -> Identity {
        let mut settings = config_file::settings(config);
        settings.remove(&Class::Bookkeeping);
        Identity {
            config: config.hash(),
            settings: Some(settings),
            data: data.into(),
            tokenizer: tokenizer.into(),
            adapter: adapter.into(),
            driver: driver.into(),
        }
    }

    /// One hash for each class of settings: equal for runs with equal settings, independent of the release.
    pub fn class_hashes(&self) -> BTreeMap<Class, String> {
        class_hashes(self.settings.as_ref().unwrap_or(&Settings::new()))
    }

    /// The identity with its settings, for releases that did not store them: parsed from `effective`, the text of the run's
    /// effective config, if it still matches the hash.
    pub fn completed(&self, effective: &str) -> Result<Identity, Refused> {
        if self.settings.is_some() {
            return Ok(self.clone());
        }
        let refused = |reason: String| Refused { reasons: vec![reason] };
        let found = sha256_hex(effective_body(effective).as_bytes());
        if found != self.config {
            return Err(refused(format!(
                "config.effective.toml was edited: its settings have sha256 {found}, the run was started with {}. Restore it, \
                 and change settings with `moelab resume RUN --set KEY=VALUE`",
                self.config
            )));
        }
        let config = recorded(effective).map_err(|problems| refused(problems.to_string()))?;
        let mut settings = config_file::settings(&config);
        settings.remove(&Class::Bookkeeping);
        Ok(Identity { settings: Some(settings), ..self.clone() })
    }

    /// Compares the identity in a checkpoint (`self`, [completed](Identity::completed)) with the current one, `now`.
    ///
    /// # Errors
    /// All differences that the purpose does not allow.
    pub fn check(&self, now: &Identity, purpose: Purpose) -> Result<Agreement, Refused> {
        let (empty, mut reasons, mut agreement) = (Settings::new(), Vec::new(), Agreement::default());
        let update = if let Purpose::Resume { update, .. } = purpose { update } else { 0 };
        let changes = changes(self.settings.as_ref().unwrap_or(&empty), now.settings.as_ref().unwrap_or(&empty), update);
        for change in changes {
            let Change { class, key, from, to, .. } = &change;
            let differs = format!("{class}: `{key}` is {to}, the run was trained with {from}");
            match (class, purpose) {
                (Class::Model, _) => reasons.push(format!("{differs}. Its weights are of that model: restore the setting")),
                (Class::Data, Purpose::Resume { .. }) => {
                    reasons.push(format!(
                        "{differs}. The run would continue on other text or lose its position: restore it, or train a new run"
                    ));
                }
                (Class::Data, Purpose::Evaluate) => {
                    reasons.push(format!("{differs}. Restore it, or evaluate other text with `moelab eval RUN --data PATH`"));
                }
                (Class::Data, Purpose::Weights) | (Class::Bookkeeping, _) => {}
                (Class::Optimisation, Purpose::Resume { update, allowed }) if update > 0 && !allowed.contains(&Class::Optimisation) => {
                    reasons.push(format!(
                        "{differs}. `--allow optimisation` resumes with it after update {update} and records it in summary and report"
                    ));
                }
                (Class::Optimisation | Class::Length, Purpose::Resume { .. }) => agreement.changes.push(change),
                (Class::Optimisation | Class::Length, _) => agreement.notes.push(format!("{differs}; this does not affect the weights")),
            }
        }
        let short = |hash: &str| format!("{}...", hash.get(..16).unwrap_or(hash));
        if self.tokenizer != now.tokenizer {
            reasons.push(format!(
                "tokenizer: this is not the tokenizer that the run was trained with, so its ids mean other text: found sha256 {}, the run \
                 has {}. Bring the run's tokenizer.json back",
                short(&now.tokenizer),
                short(&self.tokenizer)
            ));
        }
        if purpose != Purpose::Weights && self.data != now.data {
            let way = match purpose {
                Purpose::Evaluate => "; `moelab eval RUN --data PATH` evaluates other text",
                _ => ", or train a new run",
            };
            reasons.push(format!(
                "data: the training and validation tokens have sha256 {}, the run has {}. Restore the files that `data.paths` names{way}",
                short(&now.data),
                short(&self.data)
            ));
        }
        if !reasons.is_empty() {
            return Err(Refused { reasons });
        }
        if matches!(purpose, Purpose::Resume { .. }) {
            for (what, was, is) in [("adapter", &self.adapter, &now.adapter), ("driver", &self.driver, &now.driver)] {
                if was != is {
                    agreement
                        .notes
                        .push(format!("{what}: now `{is}`, the checkpoint was made on `{was}`: equal bits are no longer guaranteed"));
                }
            }
        }
        Ok(agreement)
    }
}

/// One hash for each class of settings but bookkeeping.
pub fn class_hashes(settings: &Settings) -> BTreeMap<Class, String> {
    let hash = |class: &Class| {
        let lines: String = settings.get(class).into_iter().flatten().map(|(key, value)| format!("{key} = {value}\n")).collect();
        sha256_hex(lines.as_bytes())
    };
    Class::ALL.iter().filter(|class| **class != Class::Bookkeeping).map(|class| (*class, hash(class))).collect()
}

/// The default of every key, as TOML.
pub fn defaults() -> &'static BTreeMap<String, String> {
    static DEFAULTS: LazyLock<BTreeMap<String, String>> =
        LazyLock::new(|| config::explain().into_iter().map(|key| (key.key, key.default)).collect());
    &DEFAULTS
}

/// The settings in which `now` differs from `before`, in the order of the classes.
pub fn changes(before: &Settings, now: &Settings, update: u32) -> Vec<Change> {
    let value = |settings: &Settings, class: &Class, key: &str| {
        let stated = settings.get(class).and_then(|keys| keys.get(key));
        stated.or(defaults().get(key)).cloned().unwrap_or_else(|| "unknown to this release".into())
    };
    let mut keys: Vec<(Class, &String)> =
        before.iter().chain(now).flat_map(|(class, keys)| keys.keys().map(move |key| (*class, key))).collect();
    keys.sort();
    keys.dedup();
    let change = |(class, key): (Class, &String)| {
        let (from, to) = (value(before, &class, key), value(now, &class, key));
        (from != to).then(|| Change { update, class, key: key.clone(), from, to })
    };
    keys.into_iter().filter_map(change).collect()
}

/// Parses the config of a run from the text of its effective file.
///
/// # Errors
/// Every problem of the text.
pub fn recorded(effective: &str) -> Result<Config, Problems> {
    let read = |_: &str| Ok(effective.to_owned());
    config::load(&read, "config.effective.toml", &[])
}

/// The settings in an effective file, without the comment above them.
pub fn effective_body(text: &str) -> &str {
    let mut body = text;
    while let Some((line, rest)) = body.split_once('\n').filter(|(line, _)| line.is_empty() || line.starts_with('#')) {
        debug_assert!(line.len() < body.len());
        body = rest;
    }
    body
}

/// A warning if a change of length affects the schedules of updates that are already made.
pub fn rates_already_used(now: &Config, changes: &[Change], update: u32) -> Option<String> {
    let change = changes.iter().find(|change| change.key == "train.updates")?;
    let mut before = now.clone();
    before.train.updates = change.from.parse().ok()?;
    let (then, hence) = (before.learning_rates(), now.learning_rates());
    let factor = |config: &Config, done: u32| balance_coefficient(&config.model.balance, done, config.train.updates);
    let moved = (0..update).find(|&done| then.at_update(done) != hence.at_update(done) || factor(&before, done) != factor(now, done))?;
    Some(format!(
        "schedules are relative to the length of the run: with {} updates, update {} and later ones would have used another \
         learning rate or balance coefficient. The run continues with the new schedule (learning rate {:.3} of its peak in update {}, not \
         {:.3}), so it differs from a run of {} updates from the start; set `schedule.horizon` in updates to keep the old schedule",
        now.train.updates,
        moved + 1,
        hence.at_update(update),
        update + 1,
        then.at_update(update),
        now.train.updates,
    ))
}
