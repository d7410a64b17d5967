//! The checks of an [`audit`](super::audit) that need a device or the data: structure probes, knobs in single updates, facts about data and memory.
//!
//! A knob is *live* if an update with it gives other weights or optimizer states than one without, bit for bit: moelab is
//! bit-reproducible, so equality is exact. The update that is compared is the first in which the schedules of the two configs differ,
//! and otherwise the first with a learning rate; several follow if they give equal bits. Sizes are reduced where the knob survives that.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::audit::study::{Arm, DataFacts, MemoryFacts, differences, value};
use super::audit::{Finding, Severity, Study, overlap, target_shift};
use crate::config_file::Class;
use crate::data::{Corpus, dataset::Batch};
use crate::gpu::{Device, PlanOptions};
use crate::lab::footprint::Footprint;
use crate::lab::probe::{CHECKS, Outcome, Tamper};
use crate::random::Stream;
use crate::run::Config;
use crate::run::digest::sha256_hex;
use crate::run::schedule::balance_coefficient;
use crate::train::recording::kernels_for;
use crate::train::{TrainError, trainer::Trainer};

/// Updates after which a knob without effect counts as inert.
const UPDATES: u32 = 3;
/// Sequences and tokens of the batches in which knobs are compared.
const BATCH: u32 = 2;
const TOKENS: u32 = 16;
/// Validation windows and training tokens of which at most the overlap is measured.
const MOST_WINDOWS: usize = 512;
const MOST_TOKENS: usize = 4 << 20;
/// Tokens of the shortest run whose recurrence tells of a leak.
const SHORTEST_RUN: usize = 48;
/// Keys whose effect depends on a threshold that a few updates need not reach.
const THRESHOLDS: [&str; 5] = ["optimizer.clip_norm", "optimizer.idle_experts", "nan.", "alarms.", "train.early_stopping."];

/// Runs the structure probes on every distinct model of a study. `tamper` changes the recorded programs, for tests that plant faults.
///
/// # Errors
/// If a program does not fit the device, or the device is lost.
pub fn structure(study: &Study, device: &Rc<Device>, tamper: Tamper) -> Result<Vec<Finding>, TrainError> {
    let mut seen = Vec::new();
    let mut all = Vec::new();
    for arm in &study.arms {
        let config = arm.config.clone().reduced();
        let model = serde_json::to_string(&config.model).unwrap_or_default();
        if seen.contains(&model) {
            continue;
        }
        seen.push(model);
        for check in CHECKS {
            if let Outcome::Fails(detail) = check.run(device, &config, tamper)? {
                all.push(finding(check.id, &arm.name, &words(check.id, &arm.config, &detail)));
            }
        }
    }
    Ok(all)
}

/// The message of a failed probe.
fn words(check: &str, config: &Config, detail: &str) -> String {
    match check {
        "not-causal" => format!("NOT CAUSAL  {detail}. Training refused."),
        "no-token-mixing" => format!("NO TOKEN MIXING  {detail}."),
        "sequence-leak" => format!("SEQUENCE LEAK  {detail}."),
        "state-leak" => format!("STATE LEAK  {detail}. The carry is not tied to its data."),
        "dead-parameter" => format!("DEAD PARAMETER  {detail}."),
        "dropped-term" => {
            format!("DROPPED TERM  model.balance.coefficient = {} but {detail}.", config.model.balance.coefficient)
        }
        _ => format!("STRUCTURE  {detail}."),
    }
}

fn finding(check: &str, subject: &str, message: &str) -> Finding {
    Finding { check: check.into(), severity: Severity::Refuse, message: message.into(), subject: subject.into(), overridden: None }
}

/// Compares single updates of every arm with those of its control, as far as the arm changes the model or its optimisation.
///
/// # Errors
/// If a program does not fit the device, or the device is lost.
pub fn liveness(study: &Study, device: &Rc<Device>) -> Result<Vec<Finding>, TrainError> {
    let mut all = Vec::new();
    let mut known = Fingerprints { device, values: BTreeMap::new() };
    for (arm, control) in study.against_control() {
        let keys: Vec<String> = differences(&control.config, &arm.config)
            .into_iter()
            .filter(|change| matches!(change.class, Class::Model | Class::Optimisation) && change.key != "model.vocabulary")
            .map(|change| change.key)
            .collect();
        if keys.is_empty() {
            continue;
        }
        if !known.differ(&control.config, &arm.config)? {
            all.push(inert(arm, control, &keys));
            continue;
        }
        if keys.len() == 1 {
            continue;
        }
        // One of several changes may still do nothing.
        for key in &keys {
            let Some(without) = with(&arm.config, key, &value(&control.config, key).unwrap_or_default()) else { continue };
            let changed = differences(&arm.config, &without);
            if changed.len() == 1 && !known.differ(&without, &arm.config)? {
                all.push(inert(arm, control, std::slice::from_ref(key)));
            }
        }
    }
    Ok(all)
}

fn inert(arm: &Arm, control: &Arm, keys: &[String]) -> Finding {
    let stated = |key: &String| {
        let [base, own] = [control, arm].map(|arm| value(&arm.config, key).unwrap_or_default());
        format!("{key} in {{{base}, {own}}}")
    };
    let knobs: Vec<String> = keys.iter().map(stated).collect();
    let is_threshold = keys.iter().all(|key| THRESHOLDS.iter().any(|threshold| key.starts_with(threshold)));
    if is_threshold {
        let text = format!("NOT SEEN TO ACT  {}: {UPDATES} updates are identical; a threshold was not reached.", knobs.join(", "));
        return Finding { severity: Severity::Note, ..finding("inert-knob", &arm.name, &text) };
    }
    let text = format!(
        "INERT KNOB  {}: the updates of {} and {} are identical, bit for bit. These runs would be replicas, not ablations.",
        knobs.join(", "),
        control.name,
        arm.name
    );
    finding("inert-knob", &arm.name, &text)
}

/// The config with one key set; `None` if that is inconsistent.
fn with(config: &Config, key: &str, value: &str) -> Option<Config> {
    let text = config.to_effective_toml();
    crate::run::config::load(&|_| Ok(text.clone()), "arm", &[format!("{key}={value}")]).ok()
}

/// What updates of configs gave, by config and first update.
struct Fingerprints<'a> {
    device: &'a Rc<Device>,
    values: BTreeMap<(String, u32), Vec<String>>,
}

impl Fingerprints<'_> {
    /// Whether updates of the two configs differ.
    fn differ(&mut self, one: &Config, other: &Config) -> Result<bool, TrainError> {
        let first = first_difference(one, other);
        let wanted = differences(one, other);
        let reduced = [one, other].map(reduced);
        // Reduction may hide a knob, for example the number of layers.
        let survives = differences(&reduced[0], &reduced[1]).len() == wanted.len();
        let [one, other] = if survives { reduced } else { [one.clone(), other.clone()] };
        let first = if survives { first_difference(&one, &other) } else { first };
        let (a, b) = (self.of(&one, first)?, self.of(&other, first)?);
        Ok(a != b)
    }

    fn of(&mut self, config: &Config, first: u32) -> Result<Vec<String>, TrainError> {
        let key = (config.hash(), first);
        if let Some(known) = self.values.get(&key) {
            return Ok(known.clone());
        }
        let found = updates(self.device, config, first)?;
        self.values.insert(key, found.clone());
        Ok(found)
    }
}

/// A config at a reduced size, but with its own length and schedules: a warm-up of 5 % of ten updates would be none.
fn reduced(config: &Config) -> Config {
    let mut small = config.clone().reduced();
    small.train.updates = config.train.updates;
    small.schedule = config.schedule.clone();
    small.model.balance.schedule = config.model.balance.schedule.clone();
    small
}

/// The first update, counted from 0, in which the schedules of two configs differ; otherwise the first with a learning rate.
fn first_difference(one: &Config, other: &Config) -> u32 {
    let length = one.train.updates.min(other.train.updates);
    let scalars = |config: &Config, done: u32| {
        let multiplier = config.learning_rates().at_update(done);
        let lambda = balance_coefficient(&config.model.balance, done, config.train.updates);
        [config.optimizer.adamw.lr * multiplier, config.optimizer.muon.lr * multiplier, lambda]
    };
    let has_rate = |done: &u32| [one, other].iter().all(|config| config.learning_rates().at_update(*done) > 0.0);
    let differs = |done: &u32| scalars(one, *done) != scalars(other, *done);
    let latest = length.saturating_sub(UPDATES);
    (0..length).find(differs).or_else(|| (0..length).find(has_rate)).unwrap_or(0).min(latest)
}

/// Hashes of all weights and optimizer states after each of a few updates from the initial weights, on small batches of random tokens.
fn updates(device: &Rc<Device>, config: &Config, first: u32) -> Result<Vec<String>, TrainError> {
    let mut config = config.clone();
    config.data.batch = config.data.batch.min(BATCH);
    config.data.sequence_length = config.data.sequence_length.min(TOKENS);
    config.train.micro_batches = config.train.micro_batches.min(2);
    config.train.evaluation.every = 0;
    config.train.checkpoint.every = 0;
    config.train.early_stopping.patience = 0;
    config.alarms.window = 0;
    let batches: Vec<Batch> = (0..4).map(|seed| draw(&config, seed)).collect();
    let corpus = Corpus::Batches { training: batches.clone(), validation: batches[..1].to_vec() };
    let last = config.train.updates.min(first + UPDATES);
    let mut trainer = Trainer::new(config, device.clone(), corpus, PlanOptions::default())?;
    let mut state = trainer.write_initial();
    state.update = first;
    trainer.restore_state(&state);
    let expected = trainer.expected();
    let names: Vec<String> = expected.tensors.iter().chain(&expected.optimizer).map(|(name, _)| name.clone()).collect();
    let mut hashes = Vec::new();
    for update in first + 1..=last {
        trainer.set_limit(Some(update));
        while trainer.state().update < update {
            if trainer.advance()?.is_empty() {
                trainer.wait()?;
            }
        }
        let (_, memory) = trainer.device_and_memory();
        let values = memory.download(device, &names).wait(device)?;
        hashes.push(sha256_hex(&values.concat()));
    }
    Ok(hashes)
}

/// A batch of random tokens.
fn draw(config: &Config, seed: u64) -> Batch {
    let stream = Stream { seed, step: 0, stream: 0 };
    let positions = config.data.batch * config.data.sequence_length;
    let token = |i: u32| stream.bits(i)[0] % config.model.vocabulary;
    Batch { tokens: (0..positions).map(token).collect(), targets: (1..=positions).map(token).collect() }
}

/// Facts about the data of a run: its windows, what validation shares with training, the shift of its targets.
pub fn data_facts(corpus: &Corpus, config: &Config) -> DataFacts {
    let t = config.data.sequence_length as usize;
    let mut first = Batch::default();
    corpus.fill_training_batch(0, &mut first);
    let target_shift = target_shift(&first.tokens, &first.targets, t, Batch::IGNORED);
    let Some(dataset) = corpus.dataset() else { return DataFacts { target_shift, ..DataFacts::default() } };
    let windows = dataset.training_windows();
    let pieces: Vec<Vec<u32>> = match windows {
        Some(windows) => vec![windows.stream().slice(0..windows.stream().len().min(MOST_TOKENS)).collect()],
        None => {
            let batches = (MOST_TOKENS / 16 / (t * config.data.batch as usize)).max(1) as u64;
            let rows = |micro_step: u64| {
                let mut batch = Batch::default();
                dataset.fill_batch(micro_step, &mut batch);
                batch.tokens.chunks(t).map(<[u32]>::to_vec).collect::<Vec<_>>()
            };
            (0..batches).flat_map(rows).collect()
        }
    };
    let mut validation: Vec<Vec<u32>> = Vec::new();
    for index in 0..dataset.validation_batches() {
        let batch = dataset.validation_batch(index);
        let real = batch.real_sequences(t as u32) as usize;
        validation.extend(batch.tokens.chunks(t).take(real).map(<[u32]>::to_vec));
        if validation.len() >= MOST_WINDOWS {
            break;
        }
    }
    // Nearly the whole window, and not short: short runs recur in any text.
    let run = t - t / 10;
    let is_telling = run >= SHORTEST_RUN;
    DataFacts {
        training_windows: windows.map_or(0, |windows| windows.len() as u64),
        training_tokens: windows.map_or(0, |windows| windows.stream().len() as u64),
        overlap: is_telling.then(|| overlap(pieces.iter().map(Vec::as_slice), &validation, run)),
        target_shift,
    }
}

/// The memory that an arm needs on a device, whose memory is `available` bytes if that is known.
pub fn memory_facts(arm: &Arm, device: &Device, available: Option<u64>) -> MemoryFacts {
    let footprint = Footprint::of(&arm.config, kernels_for(&arm.config, device).unwrap_or(device.capabilities));
    MemoryFacts {
        arm: arm.name.clone(),
        needed: footprint.total(),
        largest: footprint.largest_tensor,
        most_binding: device.adapter.max_binding_bytes,
        available,
    }
}
