//! The data of a run for report, plot and summary, collected in short steps: one pass over its events, then its array records.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::RangeInclusive,
};

use super::{
    reader::{BASE_BUCKETS, Block, Bucket, Buckets, Index, Reader},
    store::{Store, StoreError},
};
use crate::run::{
    records::{EvalRecord, Event, Incident, IncidentRecord, RATE_SECONDS, SampleRecord, UpdateRecord},
    series::{Column, Record, RecordKind, Series, Summarized},
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
    /// Training and validation cross-entropy over the whole run, in buckets for a plot.
    pub curves: [Vec<Bucket>; 2],
    /// All updates without a finite gradient, as they are marked in a plot.
    pub skipped: Vec<u32>,
    /// Each measured series of updates at the end of the run.
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
    /// The largest of these.
    pub largest: Vec<f64>,
    /// At the last update.
    pub last: Vec<f64>,
}

impl Recent {
    /// The values by which a report summarises the series.
    pub fn summary(&self, how: Summarized) -> &[f64] {
        match how {
            Summarized::Mean => &self.mean,
            Summarized::Largest => &self.largest,
            Summarized::Last => &self.last,
        }
    }
}

/// Buckets of a curve: four for each pixel column of a plot.
const POINTS: usize = 2536;
/// Updates whose events one step reads.
const UPDATES: u32 = 256;

/// An [`Overview`] that is being collected.
pub struct Survey {
    overview: Overview,
    index: Option<Index>,
    stage: Stage,
    /// The last tenth of the updates, if there are any.
    recent: Option<RangeInclusive<u32>>,
    /// For each scalar series of updates, the last tenth and the last update.
    scalars: Vec<(&'static Column<UpdateRecord>, [Buckets; 2])>,
    curves: [Buckets; 2],
}

#[derive(Clone, Copy)]
enum Stage {
    /// Events of updates from this one on.
    Events(u32),
    /// The series of this index: those of updates, then those of evaluations with several values.
    Series(usize),
}

impl Survey {
    /// Starts: looks through the log for an index.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn open(store: &dyn Store) -> Result<Survey, StoreError> {
        let reader = Reader::open(store)?;
        let scalars = UpdateRecord::COLUMNS.iter().filter(|column| !column.series.is_array());
        Ok(Survey {
            overview: Overview::default(),
            stage: Stage::Events(reader.updates().map_or(0, |(first, _)| first)),
            recent: reader.updates().map(|(_, last)| last - last.div_ceil(10) + 1..=last),
            index: Some(reader.into_index()),
            scalars: scalars.map(|column| (column, [Buckets::new(1), Buckets::new(1)])).collect(),
            curves: [Buckets::new(BASE_BUCKETS), Buckets::new(BASE_BUCKETS)],
        })
    }

    /// Continues for a few milliseconds, with the same store; returns the overview when it is complete.
    ///
    /// # Errors
    /// If the log cannot be read. Not to be called again.
    pub fn proceed(&mut self, store: &dyn Store) -> Result<Option<Overview>, StoreError> {
        let Some(index) = self.index.take() else { return Ok(None) };
        let reader = Reader::with_index(store, index);
        let is_complete = match self.stage {
            Stage::Events(from) => {
                self.read_events(&reader, from)?;
                false
            }
            Stage::Series(index) => {
                let updates = Series::stored().filter(|series| series.record == RecordKind::Update);
                let evals = Series::all().filter(|series| series.record == RecordKind::Eval && series.is_array());
                let series = updates.chain(evals).nth(index);
                if let Some(series) = series {
                    self.read_series(&reader, series)?;
                }
                self.stage = Stage::Series(index + 1);
                series.is_none()
            }
        };
        if is_complete {
            self.overview.curves = self.curves.each_ref().map(|curve| curve.at_most(POINTS).finish());
            return Ok(Some(std::mem::take(&mut self.overview)));
        }
        self.index = Some(reader.into_index());
        Ok(None)
    }

    fn read_events(&mut self, reader: &Reader, from: u32) -> Result<(), StoreError> {
        let (first, last) = reader.updates().unwrap_or_default();
        let is_last = from.saturating_add(UPDATES) > last;
        // What is before the first or after the last logged update belongs to these.
        let range = if from == first { 0 } else { from }..=if is_last { u32::MAX } else { from + UPDATES - 1 };
        for event in reader.events_within(range) {
            let event = event?;
            match &event {
                Event::Update(record) => self.note_update(record),
                Event::Eval(record) => self.curves[1].add(record.update, &[record.val_ce]),
                _ => {}
            }
            self.overview.note(event);
        }
        self.stage = if is_last { Stage::Series(0) } else { Stage::Events(from + UPDATES) };
        Ok(())
    }

    fn note_update(&mut self, record: &UpdateRecord) {
        self.curves[0].add(record.update, &[record.train_ce]);
        let Some(recent) = self.recent.as_ref().filter(|recent| recent.contains(&record.update)) else { return };
        for (column, [tenth, last]) in &mut self.scalars {
            let values = (column.values)(record);
            if values.is_empty() {
                continue;
            }
            tenth.add(record.update, &values);
            if record.update == *recent.end() {
                last.add(record.update, &values);
            }
        }
    }

    fn read_series(&mut self, reader: &Reader, series: &'static Series) -> Result<(), StoreError> {
        let Some(recent) = self.recent.clone() else { return Ok(()) };
        let only = |block: Block| block.buckets.into_iter().next().map(|bucket| (block.shape, bucket));
        if series.record == RecordKind::Eval {
            let Some(update) = self.overview.last_eval.as_ref().map(|eval| eval.update) else { return Ok(()) };
            let found = only(reader.read(series, update..=update, 1)?);
            self.overview.routing.extend(found.map(|(_, bucket)| (series, bucket.mean)));
            return Ok(());
        }
        let found = if series.is_array() {
            let last = *recent.end()..=*recent.end();
            only(reader.read(series, recent, 1)?).zip(only(reader.read(series, last, 1)?))
        } else {
            let only = |buckets: &Buckets| buckets.finish().into_iter().next().map(|bucket| (Vec::new(), bucket));
            let scalar = self.scalars.iter().find(|(column, _)| column.series.name == series.name);
            scalar.and_then(|(_, [tenth, last])| only(tenth).zip(only(last)))
        };
        let recent = found.map(|((shape, tenth), (_, last))| Recent { shape, mean: tenth.mean, largest: tenth.max, last: last.mean });
        self.overview.recent.extend(recent.map(|recent| (series, recent)));
        Ok(())
    }
}

impl Overview {
    /// The overview of a run, collected in one call.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn of(store: &dyn Store) -> Result<Overview, StoreError> {
        let mut survey = Survey::open(store)?;
        loop {
            if let Some(overview) = survey.proceed(store)? {
                return Ok(overview);
            }
        }
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
                if record.incident == Incident::NonFinite {
                    self.skipped.push(record.update);
                    if self.not_finite.len() < NOT_FINITE {
                        self.not_finite.push(record.update);
                    }
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
