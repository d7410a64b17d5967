//! What a study shows: its runs as a comparison, and the judgement.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    folder::{RunStatus, SuiteFolder, SuiteStore},
    gating,
};
use crate::{
    lab::{
        evaluation::EvalPoint,
        gates::DecisionRecord,
        matched, repeats,
        results::{self, evaluations, metric_at},
        store::StoreError,
        verdict::{self, Arm, Comparison, Earlier, Judgement, Spec},
    },
    run::{
        suite::{ArmConfig, Axis, Metric, Repeats, Suite, VerdictOptions},
        summary::ExitReason,
    },
};

/// The judgement at one position: that of the whole study, or of a stage for the arms that a gate stopped at its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The stage.
    pub stage: String,
    /// Where the arms are compared, on the axis of the study.
    pub at: f64,
    /// The judgement.
    pub judgement: Judgement,
}

/// Whether a run counts as missing.
pub(super) fn is_missing(status: &RunStatus) -> bool {
    matches!(status, RunStatus::Failed(_) | RunStatus::Ended(ExitReason::Diverged))
}

/// The rule by which repeats are added.
pub(super) fn repeats(suite: &Suite) -> repeats::Repeats {
    let (policy, most) = match suite.repeats {
        Repeats::Count(count) => (repeats::Policy::Fixed(count as usize), count),
        Repeats::UntilClear => (repeats::Policy::UntilClear, suite.verdict.most),
    };
    let budget = Some(suite.verdict.budget as usize).filter(|budget| *budget > 0);
    repeats::Repeats { policy, seeds: (suite.seed..).take(most as usize).collect(), budget }
}

/// The evaluations of runs, as far as they were read.
pub(super) type Cache = BTreeMap<String, Vec<EvalPoint>>;

/// The arms that no gate has stopped, at the end of the study.
pub(super) fn comparison<S: SuiteStore>(
    folder: &SuiteFolder<S>,
    suite: &Suite,
    decisions: &[DecisionRecord],
    status: &[RunStatus],
    cache: &mut Cache,
) -> Result<Comparison, StoreError> {
    let names = folder.plan.arms.iter().map(|arm| arm.name.clone());
    let left: Vec<String> = names.filter(|arm| !gating::is_stopped(decisions, &suite.gates, arm)).collect();
    let reader = Source { folder, suite, status };
    Ok(reader.comparison(&left, None, cache)?.1)
}

/// Judges a study: the arms that are left at its end, and those that gates stopped at the ends of their stages.
///
/// # Errors
/// If a run cannot be read.
pub(super) fn judge<S: SuiteStore>(
    folder: &SuiteFolder<S>,
    suite: &Suite,
    decisions: &[DecisionRecord],
    status: &[RunStatus],
    cache: &mut Cache,
) -> Result<Vec<Outcome>, StoreError> {
    let reader = Source { folder, suite, status };
    let stopped_at =
        |arm: &str| decisions.iter().find(|record| record.run == arm && !record.decision.continues(&suite.gates)).map(|r| &r.stage);
    let control = folder.plan.arms[0].name.clone();
    let mut outcomes = Vec::new();
    for (place, (stage, end)) in folder.plan.stages.iter().enumerate() {
        let is_last = place + 1 == folder.plan.stages.len();
        let of_stage = |arm: &&ArmConfig| if is_last { stopped_at(&arm.name).is_none() } else { stopped_at(&arm.name) == Some(stage) };
        let arms: Vec<String> = folder.plan.arms[1..].iter().filter(of_stage).map(|arm| arm.name.clone()).collect();
        if arms.is_empty() && !is_last {
            continue;
        }
        let arms: Vec<String> = [control.clone()].into_iter().chain(arms).collect();
        let (at, comparison) = reader.comparison(&arms, (!is_last).then_some(*end), cache)?;
        outcomes.push(Outcome { stage: stage.clone(), at, judgement: verdict::judge(&comparison) });
    }
    outcomes.reverse();
    Ok(outcomes)
}

/// A position as text.
fn place(position: f64, axis: Axis) -> String {
    format!("{position} {}", matched::unit(axis))
}

struct Source<'a, S> {
    folder: &'a SuiteFolder<S>,
    suite: &'a Suite,
    status: &'a [RunStatus],
}

impl<S: SuiteStore> Source<'_, S> {
    /// The comparison of these arms, the control first, at the end of their runs or at an update that all have; and the position.
    fn comparison(&self, names: &[String], at_update: Option<u32>, cache: &mut Cache) -> Result<(f64, Comparison), StoreError> {
        let VerdictOptions { metric, at: axis, margin, alpha, effect, .. } = self.suite.verdict;
        let known = |name: &String| self.folder.plan.arms.iter().find(|arm| arm.name == *name);
        let arms: Vec<&ArmConfig> = names.iter().filter_map(known).collect();
        let [control, others @ ..] = &arms[..] else { return Ok((0.0, Comparison::default())) };
        let end = self.position(control, at_update, axis, cache)?;
        let mut compared = Vec::new();
        for arm in others {
            // An arm whose runs are shorter is compared where they end.
            let position = self.position(arm, at_update, axis, cache)?.min(end);
            let mut judged = self.arm(arm, at_update, axis, position, metric, cache)?;
            if position < end {
                let there = self.arm(control, at_update, axis, position, metric, cache)?;
                judged.earlier = Some(Earlier {
                    place: place(position, axis),
                    control: there.values.into_iter().filter_map(|(seed, value)| Some((seed, value?))).collect(),
                });
            }
            compared.push(judged);
        }
        let control = self.arm(control, at_update, axis, end, metric, cache)?;
        let position = if end.is_finite() { end } else { 0.0 };
        // The arms that are compared elsewhere have their share of alpha there.
        let share = compared.len() as f64 / (self.folder.plan.arms.len() - 1).max(1) as f64;
        let spec = Spec {
            metric: match metric {
                Metric::FinalCe => "validation cross-entropy".into(),
                Metric::BestCe => "best validation cross-entropy".into(),
            },
            margin: margin.max(f64::MIN_POSITIVE),
            alpha: if share > 0.0 { alpha * share } else { alpha },
            effect,
            ..Spec::default()
        };
        let key = Some(self.suite.swept()).filter(|keys| keys.len() == 1).map(|mut keys| keys.remove(0));
        Ok((position, Comparison { spec, control, arms: compared, key }))
    }

    /// The furthest position on the axis that every run of an arm with an evaluation there has reached; infinite if it has no such run. A
    /// run that stopped early keeps its value, and sets no bound.
    fn position(&self, arm: &ArmConfig, at_update: Option<u32>, axis: Axis, cache: &mut Cache) -> Result<f64, StoreError> {
        let mut position = f64::INFINITY;
        for (place, run) in self.folder.plan.runs.iter().enumerate().filter(|(_, run)| run.arm == arm.name) {
            if at_update.is_none() && !matches!(self.status[place], RunStatus::Ended(ExitReason::Completed)) {
                continue;
            }
            let points = self.points(&run.id, arm, cache)?;
            let last = points.iter().rev().find(|point| at_update.is_none_or(|update| point.update <= update));
            position = last.map_or(position, |point| position.min(point.x(axis)));
        }
        Ok(position)
    }

    fn points<'c>(&self, run: &str, arm: &ArmConfig, cache: &'c mut Cache) -> Result<&'c [EvalPoint], StoreError> {
        if !cache.contains_key(run) {
            let points = match self.folder.store.run(run)? {
                Some(store) => evaluations(&*store, &arm.config)?,
                None => Vec::new(),
            };
            cache.insert(run.to_string(), points);
        }
        Ok(cache.get(run).map(Vec::as_slice).unwrap_or_default())
    }

    fn arm(
        &self,
        arm: &ArmConfig,
        at_update: Option<u32>,
        axis: Axis,
        x: f64,
        metric: Metric,
        cache: &mut Cache,
    ) -> Result<Arm, StoreError> {
        let mut compared = Arm { name: arm.name.clone(), setting: self.setting(arm), ..Arm::default() };
        for (place, run) in self.folder.plan.runs.iter().enumerate().filter(|(_, run)| run.arm == arm.name) {
            let status = &self.status[place];
            if is_missing(status) {
                compared.values.insert(run.seed, None);
                continue;
            }
            let is_there = match (at_update, status) {
                (Some(_), RunStatus::Waiting) => false,
                (Some(_), _) => true,
                (None, status) => status.is_over(),
            };
            if !is_there {
                continue;
            }
            // An early-stopped run keeps the value that it stopped with.
            let early = matches!(status, RunStatus::Ended(ExitReason::EarlyStopped)) && at_update.is_none();
            let points = self.points(&run.id, arm, cache)?;
            let x = if early { points.last().map_or(x, |point| point.x(axis).min(x)) } else { x };
            let value = metric_at(points, metric, axis, x);
            let (Some(value), Some(point)) = (value, points.last()) else { continue };
            compared.values.insert(run.seed, Some(value));
            compared.best.extend(metric_at(points, Metric::BestCe, axis, x).map(|best| (run.seed, best)));
            let Some(store) = self.folder.store.run(&run.id)? else { continue };
            if let Some(summary) = results::summary(&*store)? {
                compared.weights.extend(summary.weights_sha256.filter(|_| at_update.is_none()).map(|hash| (run.seed, hash)));
                compared.evaluation = format!("{} targets of data {}", point.targets, summary.data_sha256);
            }
        }
        Ok(compared)
    }

    /// The value of the swept key, if the study sweeps one and it is a number.
    fn setting(&self, arm: &ArmConfig) -> Option<f64> {
        let keys = self.suite.swept();
        let [key] = &keys[..] else { return None };
        self.folder.plan.settings(arm, self.suite.seed).get(key)?.parse().ok()
    }
}
