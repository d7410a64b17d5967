//! What a run measured, as a report, a comparison and an export need it: config, summary, evaluations, applied learning rates, loads.

use super::{
    chart::heat,
    evaluation::{Collector, EvalPoint},
    files::EFFECTIVE_CONFIG,
    reader::{Block, Reader},
    results,
    store::{Store, StoreError},
};
use crate::run::{
    Config,
    config::Data,
    identity,
    records::{Event, Incident, IncidentRecord},
    series::Series,
    summary::Summary,
};

/// Incidents that are kept of a run, the first ones.
const INCIDENTS: usize = 20;

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
    pub evals: Vec<EvalPoint>,
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
            summary: results::summary(store)?,
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
        let mut collector = Collector::new(&self.config);
        for event in reader.events() {
            let event = event?;
            self.evals.extend(collector.note(&event));
            match event {
                Event::Update(record) => {
                    self.rates.push((record.update, [record.lr_muon, record.lr_adamw]));
                    self.train_ce.push([f64::from(record.update), record.train_ce]);
                }
                Event::Incident(record) => {
                    self.incident_count += 1;
                    if self.incidents.len() < INCIDENTS {
                        self.incidents.push(record);
                    }
                }
                Event::Header(_) | Event::Eval(_) | Event::Sample(_) | Event::Rewound(_) => {}
            }
        }
        Ok(())
    }

    /// The evaluation with the lowest finite loss.
    pub fn best(&self) -> Option<&EvalPoint> {
        self.evals.iter().filter(|eval| eval.val_ce.is_finite()).min_by(|a, b| a.val_ce.total_cmp(&b.val_ce))
    }

    /// The last evaluation.
    pub fn last(&self) -> Option<&EvalPoint> {
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
