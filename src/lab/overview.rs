//! What the report, the plot and the summary say of a run beyond its series, gathered in one pass over its events.

use std::collections::{BTreeMap, VecDeque};

use super::{
    reader::{Block, Reader},
    store::StoreError,
};
use crate::run::{
    records::{EvalRecord, Event, Incident, IncidentRecord, RATE_SECONDS, SampleRecord},
    series::{RecordKind, Series},
};

/// Samples that are kept, the last.
pub(super) const SAMPLES: usize = 5;
/// Incidents that are kept, the first.
pub(super) const INCIDENTS: usize = 20;
/// Updates without a finite gradient that are kept, the first.
pub(super) const NOT_FINITE: usize = 5;

/// A run in few words.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// Evaluations.
    pub evals: usize,
    /// Those whose loss is not finite.
    pub evals_not_finite: usize,
    /// The newest.
    pub last_eval: Option<EvalRecord>,
    /// The last samples.
    pub samples: VecDeque<SampleRecord>,
    /// The first incidents.
    pub incidents: Vec<IncidentRecord>,
    /// All of them.
    pub incident_count: usize,
    /// The first updates whose loss or gradient was not finite.
    pub not_finite: Vec<u32>,
    /// Since when the loss was far too high, by the first alarm.
    pub blew_up_at: Option<u32>,
    /// Of each series of updates that was measured: its mean over the last tenth of the updates, and its last value.
    pub recent: Vec<(&'static Series, Recent)>,
    /// Of each start: tokens and seconds at its first and at its last update.
    starts: BTreeMap<u32, [(u64, f64); 2]>,
}

/// A series at the end of a run; one value an element.
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
    /// Looks through a run.
    pub fn of(reader: &Reader) -> Result<Overview, StoreError> {
        let mut overview = Overview::default();
        for event in reader.events() {
            overview.note(event?);
        }
        let Some((_, last)) = reader.updates() else { return Ok(overview) };
        let first = last - last.div_ceil(10) + 1;
        let only = |block: Block| block.buckets.into_iter().next().map(|bucket| (block.shape, bucket.mean));
        for series in Series::all().filter(|series| series.record == RecordKind::Update) {
            let recent = only(reader.read(series, first..=last, 1)?).zip(only(reader.read(series, last..=last, 1)?));
            let recent = recent.map(|((shape, mean), (_, last))| Recent { shape, mean, last });
            overview.recent.extend(recent.map(|recent| (series, recent)));
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
                if self.incidents.len() < INCIDENTS {
                    self.incidents.push(record);
                }
            }
        }
    }

    /// Tokens over seconds between the first and the last update line of each start, all starts together; waiting between starts,
    /// and what comes before the first update (compiling), aside.
    pub fn tokens_per_second(&self) -> Option<f64> {
        let tokens: u64 = self.starts.values().map(|[first, last]| last.0.saturating_sub(first.0)).sum();
        let seconds: f64 = self.starts.values().map(|[first, last]| last.1 - first.1).sum();
        (seconds >= RATE_SECONDS).then(|| tokens as f64 / seconds)
    }
}
