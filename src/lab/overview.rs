//! The data of a run for report, plot and summary beyond its series, collected in one pass over its events.

use std::collections::{BTreeMap, VecDeque};

use super::{
    reader::{Block, Reader},
    store::StoreError,
};
use crate::run::{
    records::{EvalRecord, Event, Incident, IncidentRecord, RATE_SECONDS, SampleRecord},
    series::{RecordKind, Series},
};

/// Number of samples kept, the last ones.
pub(super) const SAMPLES: usize = 5;
/// Number of incidents kept, the first ones.
pub(super) const INCIDENTS: usize = 20;
/// Number of updates without a finite gradient kept, the first ones.
pub(super) const NOT_FINITE: usize = 5;

/// A summary of the events of a run.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Number of evaluations.
    pub evals: usize,
    /// Number of evaluations whose loss is not finite.
    pub evals_not_finite: usize,
    /// The newest evaluation.
    pub last_eval: Option<EvalRecord>,
    /// The last samples.
    pub samples: VecDeque<SampleRecord>,
    /// The first incidents.
    pub incidents: Vec<IncidentRecord>,
    /// Number of all incidents.
    pub incident_count: usize,
    /// The first updates whose loss or gradient was not finite.
    pub not_finite: Vec<u32>,
    /// The first update of the first alarm of a loss.
    pub blew_up_at: Option<u32>,
    /// The first update of the first alarm of each kind about the routers.
    pub routing_alarms: BTreeMap<Incident, u32>,
    /// For each measured series of updates, its mean over the last tenth of the updates, and its last value.
    pub recent: Vec<(&'static Series, Recent)>,
    /// Each measured series of evaluations with a value per layer, or per layer and expert, at the newest evaluation.
    pub routing: Vec<(&'static Series, Vec<f64>)>,
    /// For each start, tokens and seconds at its first and at its last update.
    starts: BTreeMap<u32, [(u64, f64); 2]>,
}

/// A series at the end of a run, with one value per element.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recent {
    /// The length of each axis.
    pub shape: Vec<usize>,
    /// Mean of the finite values over the last tenth of the updates.
    pub mean: Vec<f64>,
    /// At the last update.
    pub last: Vec<f64>,
}

impl Overview {
    /// Collects the overview of a run.
    pub fn of(reader: &Reader) -> Result<Overview, StoreError> {
        let mut overview = Overview::default();
        for event in reader.events() {
            overview.note(event?);
        }
        let Some((_, last)) = reader.updates() else { return Ok(overview) };
        let first = last - last.div_ceil(10) + 1;
        let only = |block: Block| block.buckets.into_iter().next().map(|bucket| (block.shape, bucket.mean));
        for series in Series::stored().filter(|series| series.record == RecordKind::Update) {
            let recent = only(reader.read(series, first..=last, 1)?).zip(only(reader.read(series, last..=last, 1)?));
            let recent = recent.map(|((shape, mean), (_, last))| Recent { shape, mean, last });
            overview.recent.extend(recent.map(|recent| (series, recent)));
        }
        if let Some(update) = overview.last_eval.as_ref().map(|eval| eval.update) {
            for series in Series::all().filter(|series| series.record == RecordKind::Eval && series.is_array()) {
                overview.routing.extend(only(reader.read(series, update..=update, 1)?).map(|(_, values)| (series, values)));
            }
        }
        Ok(overview)
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Header(_) | Event::Rewound(_) => {}
            Event::Update(record) => {
                let now = (record.tokens, record.time.seconds);
                self.starts.entry(record.time.session).or_insert([now, now])[1] = now;
            }
            Event::Eval(record) => {
                self.evals += 1;
                self.evals_not_finite += usize::from(!record.val_ce.is_finite());
                self.last_eval = Some(record);
            }
            Event::Sample(record) => {
                self.samples.push_back(record);
                if self.samples.len() > SAMPLES {
                    self.samples.pop_front();
                }
            }
            Event::Incident(record) => {
                self.incident_count += 1;
                if record.incident == Incident::NonFinite && self.not_finite.len() < NOT_FINITE {
                    self.not_finite.push(record.update);
                }
                if record.incident == Incident::BlowUp {
                    self.blew_up_at = self.blew_up_at.or(Some(record.since.unwrap_or(record.update)));
                }
                if record.incident.is_of_routing() {
                    self.routing_alarms.entry(record.incident).or_insert(record.since.unwrap_or(record.update));
                }
                if self.incidents.len() < INCIDENTS {
                    self.incidents.push(record);
                }
            }
        }
    }

    /// Tokens per second between the first and the last update line of each start, over all starts; excludes the time between
    /// starts, and before the first update (compilation).
    pub fn tokens_per_second(&self) -> Option<f64> {
        let tokens: u64 = self.starts.values().map(|[first, last]| last.0.saturating_sub(first.0)).sum();
        let seconds: f64 = self.starts.values().map(|[first, last]| last.1 - first.1).sum();
        (seconds >= RATE_SECONDS).then(|| tokens as f64 / seconds)
    }
}
