//! What a folder of runs and studies has.

use super::{Answer, Curve, Facts, Query, RunEntry, StudyEntry, Watched};
use crate::{
    config_file::{self, Unreadable},
    lab::{
        files::EFFECTIVE_CONFIG,
        process::Process,
        reader::Reader,
        results,
        store::{Store, StoreError},
        suite::{PLAN, RunStatus, SUITE, SuiteStore, stored},
    },
    run::{
        Config, config,
        protocol::{Problem, Value},
        records::Event,
        series::Series,
        summary::ExitReason,
    },
};

/// Number of samples in the facts of a run, the last ones.
const SAMPLES: usize = 20;
/// Number of incidents in the facts of a run, the first ones.
const INCIDENTS: usize = 100;

/// A folder that was opened for reading, if there is one.
type Folder = Result<Option<Box<dyn Store>>, StoreError>;

/// The runs and studies among these folders; a folder that is neither is left out.
/// A run or study that cannot be read is listed with its problem.
pub fn list<S: SuiteStore>(
    names: &[String],
    folder: &dyn Fn(&str) -> Folder,
    study: &dyn Fn(&str) -> Result<S, StoreError>,
) -> (Vec<RunEntry>, Vec<StudyEntry>) {
    let (mut runs, mut studies) = (Vec::new(), Vec::new());
    for name in names {
        let found = folder(name).and_then(|store| {
            let Some(store) = store else { return Ok(()) };
            let names = store.list("")?;
            let has = |file: &str| names.iter().any(|name| name == file);
            if has(SUITE) && has(PLAN) {
                of_study(name, &study(name)?, &mut runs, &mut studies);
            } else if has(EFFECTIVE_CONFIG) {
                runs.push(entry(name, &*store));
            }
            Ok(())
        });
        if let Err(error) = found {
            runs.push(RunEntry { name: name.clone(), problem: Some(error.to_string()), ..RunEntry::default() });
        }
    }
    (runs, studies)
}

fn of_study<S: SuiteStore>(name: &str, folders: &S, runs: &mut Vec<RunEntry>, studies: &mut Vec<StudyEntry>) {
    let (suite, plan) = match stored(folders.root(), &[]) {
        Ok(found) => found,
        Err(error) => {
            studies.push(StudyEntry { name: name.into(), problem: Some(error.to_string()), ..StudyEntry::default() });
            return;
        }
    };
    let mut over = 0;
    for run in &plan.runs {
        let mut entry = RunEntry {
            name: format!("{name}/{}", run.id),
            study: Some(name.into()),
            arm: Some(run.arm.clone()),
            seed: run.seed,
            settings: run.settings.clone(),
            updates: run.updates,
            ..RunEntry::default()
        };
        match RunStatus::of(folders, &run.id) {
            Ok((status, summary)) => {
                over += usize::from(status.is_over());
                if let Some(summary) = summary {
                    entry.made = summary.updates;
                    (entry.val_ce, entry.best_val_ce) = (summary.final_val_ce, summary.best_val_ce);
                    (entry.tokens_per_second, entry.adapter) = (summary.tokens_per_second, summary.adapter);
                    entry.exit = Some(summary.exit);
                } else if matches!(status, RunStatus::Partial(_))
                    && let Ok(Some(store)) = folders.run(&run.id)
                {
                    entry.made = made(&*store);
                }
                if let RunStatus::Failed(problem) = status {
                    (entry.exit, entry.problem) = (Some(ExitReason::Failed), Some(problem));
                }
            }
            Err(error) => entry.problem = Some(error.to_string()),
        }
        runs.push(entry);
    }
    let arms = plan.arms.iter().map(|arm| arm.name.clone()).collect();
    studies.push(StudyEntry { name: name.into(), question: suite.question, arms, runs: plan.runs.len(), over, problem: None });
}

/// Updates in the log of a run that has no summary yet.
fn made(store: &dyn Store) -> u32 {
    Reader::open(store).ok().and_then(|reader| reader.updates()).map_or(0, |(_, last)| last)
}

fn entry(name: &str, store: &dyn Store) -> RunEntry {
    let mut entry = RunEntry { name: name.into(), ..RunEntry::default() };
    match effective_config(store) {
        Ok((_, config)) => {
            entry.seed = config.seed;
            entry.updates = config.train.updates;
            entry.settings = config_file::settings(&config).into_values().flatten().collect();
        }
        Err(problem) => entry.problem = Some(problem.what),
    }
    match results::summary(store) {
        Ok(Some(summary)) => {
            entry.made = summary.updates;
            (entry.val_ce, entry.best_val_ce) = (summary.final_val_ce, summary.best_val_ce);
            entry.exit = Some(summary.exit);
            (entry.tokens_per_second, entry.adapter) = (summary.tokens_per_second, summary.adapter);
            entry.problem = entry.problem.or(summary.detail.filter(|_| summary.exit == ExitReason::Failed));
        }
        Ok(None) => entry.made = made(store),
        Err(error) => entry.problem = Some(error.to_string()),
    }
    entry
}

/// The effective config of a run, as text and read.
fn effective_config(store: &dyn Store) -> Result<(String, Config), Problem> {
    let bytes = store.read(EFFECTIVE_CONFIG)?.ok_or(StoreError::Unstarted { missing: EFFECTIVE_CONFIG })?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let read =
        |path: &str| if path == EFFECTIVE_CONFIG { Ok(text.clone()) } else { Err(Unreadable::from("it must refer to no other file")) };
    let config = config::load(&read, EFFECTIVE_CONFIG, &[])?;
    Ok((text, config))
}

/// The facts of a run.
///
/// # Errors
/// A folder that cannot be read.
pub fn facts(run: &str, store: &dyn Store) -> Result<Facts, Problem> {
    let (text, config) = effective_config(store)?;
    let mut facts = Facts {
        run: run.into(),
        config: text,
        summary: results::summary(store)?,
        evaluations: results::evaluations(store, &config)?,
        ..Facts::default()
    };
    for event in Reader::open(store)?.events() {
        match event? {
            Event::Sample(record) => facts.samples.push(record),
            Event::Incident(record) => {
                facts.incident_count += 1;
                if facts.incidents.len() < INCIDENTS {
                    facts.incidents.push(record);
                }
            }
            _ => {}
        }
    }
    facts.samples.drain(..facts.samples.len().saturating_sub(SAMPLES));
    Ok(facts)
}

/// Where a run stands that this process makes, if any.
///
/// # Errors
/// A folder that cannot be read.
pub fn watched(run: &str, process: Option<Process>, store: &dyn Store) -> Result<Watched, Problem> {
    let reader = Reader::open(store)?;
    let last = reader.updates().map_or(0, |(_, last)| last);
    let mut newest = None;
    for event in reader.events_within(last..=last) {
        if let Event::Update(record) = event? {
            newest = Some(record);
        }
    }
    // A run that is resumed still has the summary of its last end.
    let summary = if process.is_none() { results::summary(store)? } else { None };
    Ok(Watched { run: run.into(), process, newest, summary })
}

/// Reads series of a run.
///
/// # Errors
/// A folder that cannot be read, or a series that is not in the table.
pub fn read(query: Query, store: &dyn Store) -> Result<Answer, Problem> {
    let reader = Reader::open(store)?;
    let curve = |key: &String| {
        let series = Series::find(key).ok_or_else(|| Problem {
            place: Some("series".into()),
            found: Some(key.as_str().into()),
            ..Problem::new(format!("there is no series `{key}`"))
        })?;
        let block = reader.read(series, query.from..=query.to, query.points.max(1) as usize)?;
        let mut curve = Curve { series: key.clone(), shape: block.shape, ..Curve::default() };
        let is_exact = block.buckets.iter().all(|bucket| bucket.count == 1);
        let values = |values: &[f64]| values.iter().map(|value| Value(Some(*value))).collect::<Vec<_>>();
        for bucket in &block.buckets {
            curve.updates.push(*bucket.updates.end());
            curve.not_finite.extend((bucket.not_finite > 0).then_some(*bucket.updates.end()));
            curve.mean.extend(values(&bucket.mean));
            if !is_exact {
                curve.min.extend(values(&bucket.min));
                curve.max.extend(values(&bucket.max));
            }
        }
        Ok(curve)
    };
    let curves = query.series.iter().map(curve).collect::<Result<_, Problem>>()?;
    Ok(Answer { query, curves })
}
