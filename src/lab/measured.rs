//! What a run measured, as a report, a comparison and an export need it: config, summary, evaluations, applied learning rates, loads.

use super::{
    chart::heat,
    files::EFFECTIVE_CONFIG,
    reader::{Block, Reader},
    store::{Store, StoreError},
};
use crate::run::{
    Config,
    config::Data,
    identity,
    records::{Event, Incident, IncidentRecord},
    series::Series,
    suite::{Axis, flop_per_update},
    summary::Summary,
};

/// Incidents that are kept of a run, the first ones.
const INCIDENTS: usize = 20;

/// An evaluation, what the run had spent by then, and its training loss and learning rates there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Eval {
    /// Optimizer updates.
    pub update: u32,
    /// Micro-steps.
    pub micro_steps: u64,
    /// Training tokens, without padding.
    pub tokens: f64,
    /// Floating-point operations of training.
    pub flop: f64,
    /// Seconds of training, evaluations and checkpoints included.
    pub seconds: f64,
    /// Validation cross-entropy, nats per token.
    pub val_ce: f64,
    /// Share of targets that were the most probable token.
    pub accuracy: f64,
    /// Number of targets.
    pub targets: u64,
    /// Training cross-entropy of the last update before it, if its line was logged.
    pub train_ce: Option<f64>,
    /// Learning rates of Muon and AdamW in that update.
    pub rates: Option<[f64; 2]>,
}

impl Eval {
    /// The position on an axis.
    pub fn at(&self, axis: Axis) -> f64 {
        match axis {
            Axis::Updates => f64::from(self.update),
            Axis::Tokens => self.tokens,
            Axis::Flops => self.flop,
            Axis::Seconds => self.seconds,
        }
    }
}

/// A run.
#[derive(Clone, Debug)]
pub struct MeasuredRun {
    /// Its name: that of its folder.
    pub id: String,
    /// The arm of the study that it belongs to.
    pub arm: String,
    /// Its seed.
    pub seed: u64,
    /// Its effective config.
    pub config: Config,
    /// Its result, if it ended.
    pub summary: Option<Summary>,
    /// Its evaluations, in order.
    pub evals: Vec<Eval>,
    /// (update, learning rates of Muon and AdamW) of each logged update, in order.
    pub rates: Vec<(u32, [f64; 2])>,
    /// Its training losses, nats per token, of each logged update.
    pub train_ce: Vec<[f64; 2]>,
    /// The loads of its experts over time, in at most [`heat::COLUMNS`] buckets, from evaluations if they were made at several updates.
    pub load: Option<Block>,
    /// What was out of the ordinary.
    pub incidents: Vec<IncidentRecord>,
    /// Number of incidents.
    pub incident_count: usize,
}

impl MeasuredRun {
    /// Reads a run folder. The run may be in progress.
    ///
    /// # Errors
    /// If the folder has no config that this release reads, or its log cannot be read.
    pub fn read(store: &dyn Store, id: &str, arm: &str) -> Result<MeasuredRun, StoreError> {
        let text = store.read(EFFECTIVE_CONFIG)?.ok_or(StoreError::Unstarted { missing: EFFECTIVE_CONFIG })?;
        let config = identity::recorded(&String::from_utf8_lossy(&text))
            .map_err(|problems| StoreError::Unreadable(format!("{EFFECTIVE_CONFIG}: {problems}")))?;
        let reader = Reader::open(store)?;
        let mut run = MeasuredRun {
            id: id.into(),
            arm: arm.into(),
            seed: config.seed,
            summary: summary(store)?,
            evals: Vec::new(),
            rates: Vec::new(),
            train_ce: Vec::new(),
            load: load(&reader)?,
            incidents: Vec::new(),
            incident_count: 0,
            config,
        };
        run.read_events(&reader)?;
        Ok(run)
    }

    fn read_events(&mut self, reader: &Reader) -> Result<(), StoreError> {
        let flop = flop_per_update(&self.config);
        let (mut session, mut earlier, mut latest) = (0, 0.0, 0.0);
        let mut last = None;
        for event in reader.events() {
            let event = event?;
            if let Some(time) = event.time() {
                // The clock of a run starts again whenever it is resumed.
                if time.session != session {
                    (session, earlier, latest) = (time.session, earlier + latest, 0.0);
                }
                latest = time.seconds.max(latest);
            }
            match event {
                Event::Update(record) => {
                    self.rates.push((record.update, [record.lr_muon, record.lr_adamw]));
                    self.train_ce.push([f64::from(record.update), record.train_ce]);
                    last = Some(record);
                }
                Event::Eval(record) => {
                    let of = last.as_ref().filter(|last| last.update == record.update);
                    let (update, micro) = (record.update, u64::from(self.config.train.micro_batches));
                    self.evals.push(Eval {
                        update,
                        micro_steps: of.map_or(u64::from(update) * micro, |of| of.micro_steps),
                        tokens: of.map_or(f64::from(update) * self.config.tokens_per_update() as f64, |of| of.tokens as f64),
                        flop: flop * f64::from(update),
                        seconds: earlier + record.time.seconds,
                        val_ce: record.val_ce,
                        accuracy: record.accuracy,
                        targets: record.targets,
                        train_ce: of.map(|of| of.train_ce),
                        rates: of.map(|of| [of.lr_muon, of.lr_adamw]),
                    });
                }
                Event::Incident(record) => {
                    self.incident_count += 1;
                    if self.incidents.len() < INCIDENTS {
                        self.incidents.push(record);
                    }
                }
                Event::Header(_) | Event::Sample(_) | Event::Rewound(_) => {}
            }
        }
        Ok(())
    }

    /// The evaluation with the lowest finite loss.
    pub fn best(&self) -> Option<&Eval> {
        self.evals.iter().filter(|eval| eval.val_ce.is_finite()).min_by(|a, b| a.val_ce.total_cmp(&b.val_ce))
    }

    /// The last evaluation.
    pub fn last(&self) -> Option<&Eval> {
        self.evals.last()
    }

    /// Whether a loss or gradient was not finite.
    pub fn met_non_finite(&self) -> bool {
        let skipped = self.summary.as_ref().is_some_and(|summary| summary.skipped_updates > 0);
        skipped || self.incidents.iter().any(|incident| incident.incident == Incident::NonFinite)
    }

    /// The updates at which an epoch of the training data ends; empty if documents are endless.
    pub fn epoch_ends(&self) -> Vec<f64> {
        let windows = self.summary.as_ref().and_then(|summary| summary.epoch).map_or(0, |epoch| epoch.windows);
        let Data { batch, drop_last, .. } = self.config.data;
        let batches = if drop_last { windows / u64::from(batch) } else { windows.div_ceil(u64::from(batch)) };
        let made = self.config.batch_of(u64::from(self.config.train.updates) * u64::from(self.config.train.micro_batches));
        if batches == 0 || made == 0 {
            return Vec::new();
        }
        let updates_per_batch = f64::from(self.config.train.updates) / made as f64;
        (1..=made / batches).map(|epoch| (epoch * batches) as f64 * updates_per_batch).collect()
    }
}

/// The arm of a run of a study, from its name `ARM-sSEED`; other names are arms of their own.
pub fn arm_of(id: &str) -> &str {
    match id.rsplit_once("-s") {
        Some((arm, seed)) if !arm.is_empty() && !seed.is_empty() && seed.bytes().all(|byte| byte.is_ascii_digit()) => arm,
        _ => id,
    }
}

fn summary(store: &dyn Store) -> Result<Option<Summary>, StoreError> {
    let Some(bytes) = store.read("summary.json")? else { return Ok(None) };
    let unreadable = |error| StoreError::Unreadable(format!("summary.json is damaged: {error}. `moelab resume` writes it again"));
    serde_json::from_slice(&bytes).map(Some).map_err(unreadable)
}

/// The loads of updates, or of evaluations where only these were logged.
fn load(reader: &Reader) -> Result<Option<Block>, StoreError> {
    for key in ["expert_load", "eval.expert_load"] {
        let Some(series) = Series::find(key) else { continue };
        let block = reader.read(series, 0..=u32::MAX, heat::COLUMNS)?;
        if !block.buckets.is_empty() {
            return Ok(Some(block));
        }
    }
    Ok(None)
}
