//! Collecting the input of a report from the folder of a study.

use super::{
    document::file_name,
    study::{Judged, Missing, Study, StudyArm},
};
use crate::{
    lab::{
        audit::Finding,
        matched,
        measured::MeasuredRun,
        suite::{Coordinator, RunStatus, SuiteError, SuiteStore},
    },
    run::suite::Suite,
};

/// What a report needs beside the folder of the study.
#[derive(Clone, Debug, Default)]
pub struct Beside {
    /// Name of the study.
    pub name: String,
    /// What the audit found; `None` if there was none.
    pub findings: Option<Vec<Finding>>,
    /// Commands that repeat the study, in order.
    pub commands: Vec<String>,
}

/// The study as it stands in its folder: finished or not.
///
/// # Errors
/// If the study cannot be judged. A run that cannot be read is missing from the report, with the reason.
pub fn gather<S: SuiteStore>(coordinator: &mut Coordinator<S>, suite: &Suite, beside: Beside) -> Result<Study, SuiteError> {
    let outcomes = coordinator.judge()?;
    let unit = matched::unit(suite.verdict.at);
    let judged = outcomes.into_iter().enumerate().map(|(index, outcome)| Judged {
        place: format!("at {} {unit}", outcome.at),
        figure: if index == 0 { "intervals".into() } else { format!("intervals-{}", file_name(&outcome.stage)) },
        judgement: outcome.judgement,
    });
    let judged = judged.collect();
    let folder = coordinator.folder();
    let (mut runs, mut missing) = (Vec::new(), Vec::new());
    for (planned, status) in folder.plan.runs.iter().zip(coordinator.status()) {
        let without = |reason: String| Missing { run: planned.id.clone(), arm: planned.arm.clone(), reason };
        let store = folder.store.run(&planned.id)?;
        match (status, store) {
            (RunStatus::Failed(problem), _) => missing.push(without(format!("it failed: {problem}"))),
            (RunStatus::Waiting, _) | (_, None) => missing.push(without("it has not started".into())),
            (_, Some(store)) => match MeasuredRun::read(&*store, &planned.id, &planned.arm) {
                Ok(run) => runs.push(run),
                Err(error) => missing.push(without(error.to_string())),
            },
        }
    }
    let stages = &folder.plan.stages[..folder.plan.stages.len().saturating_sub(1)];
    Ok(Study {
        name: beside.name,
        question: folder.plan.question.clone(),
        arms: folder.plan.arms.iter().map(|arm| StudyArm { name: arm.name.clone(), config: arm.config.clone() }).collect(),
        runs,
        missing,
        judged,
        stages: stages.to_vec(),
        claims: suite.claims.clone(),
        decisions: coordinator.decisions().to_vec(),
        findings: beside.findings,
        commands: beside.commands,
    })
}
