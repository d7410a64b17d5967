//! The course of a run from its folder.

use std::collections::BTreeMap;

use super::Course;
use crate::{
    lab::{
        evaluation::{Collector, EvalPoint, Routing},
        reader::Reader,
        store::StoreError,
    },
    run::{
        Config,
        model::cost::cost,
        records::{Event, Incident},
        series::Series,
    },
};

/// Number of evaluations whose loads are read at once: few enough that the reader has a bucket for each, however large the model.
const CHUNK: usize = 16;

impl Course {
    /// Reads a run, as far as it has been made. `config` is the run's effective config.
    ///
    /// # Errors
    /// If the medium cannot be read.
    pub fn read(name: &str, reader: &Reader, config: &Config) -> Result<Course, StoreError> {
        let specs = config.parameters();
        let flops = cost(&config.model, &specs, config.data.sequence_length);
        let mut course = Course {
            name: name.into(),
            flops_per_token: Some((flops.forward_flops_per_token + flops.backward_flops_per_token) as f64),
            parameters: Some(specs.iter().map(|spec| spec.len()).sum()),
            ..Course::default()
        };
        let mut collector = Collector::new(config);
        for event in reader.events() {
            let event = event?;
            course.evals.extend(collector.note(&event));
            match event {
                Event::Update(record) => course.train.push((record.update, record.train_ce)),
                Event::Incident(record) if matches!(record.incident, Incident::DeviceLost | Incident::RolledBack) => {
                    course.faults.push(record.update);
                }
                _ => {}
            }
        }
        let (_, top_k) = config.model.experts();
        let loads = loads(reader, &course.evals)?;
        for eval in &mut course.evals {
            eval.routing = loads.get(&eval.update).and_then(|loads| Routing::of(loads, top_k));
        }
        Ok(course)
    }
}

/// The load of the experts at each evaluation, by update.
fn loads(reader: &Reader, evals: &[EvalPoint]) -> Result<BTreeMap<u32, Vec<Vec<f64>>>, StoreError> {
    let mut loads = BTreeMap::new();
    let Some(series) = Series::find("eval.expert_load") else { return Ok(loads) };
    for chunk in evals.chunks(CHUNK) {
        let (Some(first), Some(last)) = (chunk.first(), chunk.last()) else { continue };
        // Buckets of one update each, because no range of updates holds more evaluations than updates.
        let points = (last.update - first.update + 1) as usize;
        let block = reader.read(series, first.update..=last.update, points)?;
        let [_, experts] = block.shape[..] else { continue };
        for bucket in block.buckets {
            loads.insert(*bucket.updates.end(), bucket.mean.chunks(experts.max(1)).map(<[f64]>::to_vec).collect());
        }
    }
    Ok(loads)
}
