//! Gates at the end of a stage: the mean course of each arm against that of the control.

use super::folder::{SuiteFolder, SuiteStore};
use crate::{
    lab::{
        gates::{self, Course, DecisionRecord, halving},
        reader::Reader,
        store::StoreError,
    },
    run::{
        gates::{GateOptions, GateRule},
        suite::Plan,
    },
};

/// The first stage about whose end not all was decided.
pub(super) fn stage_reached(plan: &Plan, options: &GateOptions, decisions: &[DecisionRecord]) -> usize {
    let is_decided = |name: &str| {
        let mut left =
            plan.arms.iter().filter(|arm| has_decision(decisions, name, &arm.name) || !is_stopped(decisions, options, &arm.name));
        left.all(|arm| has_decision(decisions, name, &arm.name))
    };
    plan.stages.iter().take(plan.stages.len() - 1).take_while(|(name, _)| is_decided(name)).count()
}

fn has_decision(decisions: &[DecisionRecord], stage: &str, arm: &str) -> bool {
    decisions.iter().any(|record| record.stage == stage && record.run == arm)
}

/// Whether a gate has stopped an arm.
pub(super) fn is_stopped(decisions: &[DecisionRecord], options: &GateOptions, arm: &str) -> bool {
    decisions.iter().any(|record| record.run == arm && !record.decision.continues(options))
}

/// Decides about the arms that are left, at the end of a stage after `end` updates. Arms that were decided about already are left out, so that
/// a study that was killed between two decisions makes those that it lacks.
pub(super) fn decide<S: SuiteStore>(
    folder: &SuiteFolder<S>,
    options: &GateOptions,
    made: &[DecisionRecord],
    stage: &str,
    end: u32,
    time: f64,
) -> Result<Vec<DecisionRecord>, StoreError> {
    let mut arms = Vec::new();
    for arm in folder.plan.arms.iter().filter(|arm| !is_stopped(made, options, &arm.name) || has_decision(made, stage, &arm.name)) {
        arms.push((arm.name.clone(), courses(folder, &arm.name, end)?));
    }
    let Some((control, _)) = arms.first().cloned() else { return Ok(Vec::new()) };
    let decisions: Vec<gates::Decision> = if options.rule == GateRule::Halving {
        let arm = |(name, courses): &(String, Vec<(u64, Course)>)| halving::Arm {
            name: name.clone(),
            is_control: *name == control,
            losses: courses.iter().filter_map(|(seed, course)| Some((*seed, course.at(end)?.val_ce))).collect(),
        };
        halving::rung(&options.halving, &arms.iter().map(arm).collect::<Vec<_>>(), end)
    } else {
        let means: Vec<Course> = arms.iter().map(|(name, courses)| Course::mean(name, courses)).collect();
        let reference = |place: usize| (place > 0).then(|| &means[0]);
        let decided = means.iter().enumerate().map(|(place, course)| gates::decide(options, course, reference(place)));
        decided.collect()
    };
    let record = |((run, _), decision): (&(String, _), gates::Decision)| {
        let decision = if *run == control { decision.never_stopping("the control is never stopped") } else { decision };
        DecisionRecord { run: run.clone(), stage: stage.into(), decision, time }
    };
    let records = arms.iter().zip(decisions).map(record);
    Ok(records.filter(|record| !has_decision(made, stage, &record.run)).collect())
}

/// The courses of an arm's runs up to the end of a stage, by seed, of those that got there.
fn courses<S: SuiteStore>(folder: &SuiteFolder<S>, arm: &str, end: u32) -> Result<Vec<(u64, Course)>, StoreError> {
    let mut found = Vec::new();
    let Some(config) = folder.plan.arms.iter().find(|known| known.name == arm).map(|arm| &arm.config) else { return Ok(found) };
    for run in folder.plan.runs.iter().filter(|run| run.arm == arm) {
        let Some(store) = folder.store.run(&run.id)? else { continue };
        let course = Course::read(&run.id, &Reader::open(&*store)?, config)?.until(end);
        if course.at(end).is_some() {
            found.push((run.seed, course));
        }
    }
    Ok(found)
}
