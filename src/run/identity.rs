//! What makes two runs the same run.
//!
//! A checkpoint keeps the settings that differ from the defaults, by [`Class`], and hashes of data and tokenizer. Whoever reads a
//! run, [`Identity::check`] holds that against what was found now:
//!
//! | differs | resuming | evaluating | sampling, exporting, evaluating other text |
//! |---|---|---|---|
//! | `model`, tokenizer | refused | refused | refused |
//! | `data`, the tokens | refused | refused | not read |
//! | `optimisation` | refused, unless it is allowed or no update was made yet; kept in the result | told | told |
//! | `length` | kept in the result | told | told |
//! | `bookkeeping` | free, logged | free | free |
//! | adapter, driver | a warning: equal bits are no longer promised | free | free |
//!
//! Only settings that differ from the defaults count, so that a key which a later release adds orphans no run, and neither do the
//! release, the layout of the effective file, or the order of its keys.
//!
//! **Length and schedules.** Percentages of a schedule are of the run's length. Where a longer run would have given updates that are
//! already made another learning rate, it goes on by the schedule of its new length and says so ([`rates_already_used`]): it is not the
//! run that would have been made of that length from the start. A schedule in counts, or a stated horizon, goes on as it was.
//!
//! **State files of the first release** keep one hash over the whole effective config in place of its settings. The folder's
//! `config.effective.toml` has that hash as long as nobody edited it, and gives the settings ([`Identity::completed`]).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::config::{self, Config};
use super::digest::sha256_hex;
use super::schedule::balance_coefficient;
use crate::config_file::{self, Class, Problems, Settings};

/// Hashes (lower-case hex), settings and names of what a run is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Of the effective config that the run was started with, as the release that started it wrote it; the first line of the
    /// run's metrics has the same.
    pub config: String,
    /// The settings that differ from the defaults, but for bookkeeping; absent in state files of the first release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
    /// Of the training and validation tokens.
    pub data: String,
    /// Of the tokenizer.
    pub tokenizer: String,
    /// Name of the adapter.
    pub adapter: String,
    /// Name and version of its driver.
    pub driver: String,
}

/// A setting that a run went on with, other than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// Updates that the run had made.
    pub update: u32,
    /// What the key is to a run.
    pub class: Class,
    /// The key.
    pub key: String,
    /// Its value until then, as TOML.
    pub from: String,
    /// Its value from then on, as TOML.
    pub to: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {} -> {}", self.class, self.key, self.from, self.to)
    }
}

/// What a command does with a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// Goes on training after so many updates, with changes of these classes allowed.
    Resume {
        /// Updates made.
        update: u32,
        /// Classes that may differ because the user said so.
        allowed: &'a [Class],
    },
    /// Measures it on its own validation set.
    Evaluate,
    /// Reads its weights and its tokenizer: samples, exports, evaluates other text.
    Weights,
}

/// A run and what was found now agree well enough to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agreement {
    /// Settings that differ and that the run goes on with. Empty unless it is resumed.
    pub changes: Vec<Change>,
    /// What the user should read, a line each.
    pub notes: Vec<String>,
}

/// What was found is not what the run was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What differs, what was wanted and found, and how to go on: one entry a difference.
    pub reasons: Vec<String>,
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this is not what the run was made from")?;
        self.reasons.iter().try_for_each(|reason| write!(f, "\n  {reason}"))
    }
}

impl Identity {
    /// The identity of a run of `config` on data and a tokenizer with these hashes; both may be empty where nothing is read.
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

    /// One hash for each class of settings: equal for runs with equal settings, whatever release wrote them.
    pub fn class_hashes(&self) -> BTreeMap<Class, String> {
        let settings = self.settings.clone().unwrap_or_default();
        let hash = |class: &Class| {
            let lines: String = settings.get(class).into_iter().flatten().map(|(key, value)| format!("{key} = {value}\n")).collect();
            sha256_hex(lines.as_bytes())
        };
        Class::ALL.iter().filter(|class| **class != Class::Bookkeeping).map(|class| (*class, hash(class))).collect()
    }

    /// The identity with its settings, where the release that wrote it kept none: from `effective`, the text of the run's
    /// effective config, if that is still the one that was hashed.
    pub fn completed(&self, effective: &str) -> Result<Identity, Refused> {
        if self.settings.is_some() {
            return Ok(self.clone());
        }
        let refused = |reason: String| Refused { reasons: vec![reason] };
        let found = sha256_hex(effective_body(effective).as_bytes());
        if found != self.config {
            return Err(refused(format!(
                "config.effective.toml: it was edited. Its settings have sha256 {found}, the run was started with {}. Restore it, \
                 and change settings by `moelab resume RUN --set KEY=VALUE`",
                self.config
            )));
        }
        let config = recorded(effective).map_err(|problems| refused(problems.to_string()))?;
        let mut settings = config_file::settings(&config);
        settings.remove(&Class::Bookkeeping);
        Ok(Identity { settings: Some(settings), ..self.clone() })
    }

    /// Holds the identity in a checkpoint (`self`, [completed](Identity::completed)) against what was found `now`.
    ///
    /// # Errors
    /// Every difference that forbids what is to be done.
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
                    reasons.push(format!("{differs}. It would go on with other text, or lose its place: restore it, or train a new run"));
                }
                (Class::Data, Purpose::Evaluate) => {
                    reasons.push(format!("{differs}. Restore it, or evaluate other text by `moelab eval RUN --data PATH`"));
                }
                (Class::Data, Purpose::Weights) | (Class::Bookkeeping, _) => {}
                (Class::Optimisation, Purpose::Resume { update, allowed }) if update > 0 && !allowed.contains(&Class::Optimisation) => {
                    reasons.push(format!(
                        "{differs}. `--allow optimisation` goes on with it after update {update}, and keeps that in the run's summary and report"
                    ));
                }
                (Class::Optimisation | Class::Length, Purpose::Resume { .. }) => agreement.changes.push(change),
                (Class::Optimisation | Class::Length, _) => agreement.notes.push(format!("{differs}; no weight depends on it here")),
            }
        }
        let short = |hash: &str| format!("{}...", hash.get(..16).unwrap_or(hash));
        if self.tokenizer != now.tokenizer {
            reasons.push(format!(
                "tokenizer: this is not the tokenizer that the run was trained with, so its ids are other text: found sha256 {}, the run \
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
                        .push(format!("{what}: now `{is}`, the checkpoint was made on `{was}`: equal bits are no longer promised"));
                }
            }
        }
        Ok(agreement)
    }
}

/// The settings in which `now` differs from `before`, in the order of the classes.
pub fn changes(before: &Settings, now: &Settings, update: u32) -> Vec<Change> {
    let defaults: BTreeMap<String, String> = config::explain().into_iter().map(|key| (key.key, key.default)).collect();
    let value = |settings: &Settings, class: &Class, key: &str| {
        let stated = settings.get(class).and_then(|keys| keys.get(key));
        stated.or(defaults.get(key)).cloned().unwrap_or_else(|| "unknown to this release".into())
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

/// The config of a run, from the text of its effective file.
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

/// What a change of length does to the schedules of updates that are already made; `None` if nothing.
pub fn rates_already_used(now: &Config, changes: &[Change], update: u32) -> Option<String> {
    let change = changes.iter().find(|change| change.key == "train.updates")?;
    let mut before = now.clone();
    before.train.updates = change.from.parse().ok()?;
    let (then, hence) = (before.learning_rates(), now.learning_rates());
    let factor = |config: &Config, done: u32| balance_coefficient(&config.model.balance, done, config.train.updates);
    let moved = (0..update).find(|&done| then.at_update(done) != hence.at_update(done) || factor(&before, done) != factor(now, done))?;
    Some(format!(
        "schedules are relative to the length of the run: with {} updates, update {} and later ones would have been made with another \
         learning rate or balance coefficient. The run goes on by the new schedule (learning rate {:.3} of its peak in update {}, not \
         {:.3}), so it is not a run of {} updates from the start; `schedule.horizon` in updates keeps the old one",
        now.train.updates,
        moved + 1,
        hence.at_update(update),
        update + 1,
        then.at_update(update),
        now.train.updates,
    ))
}
