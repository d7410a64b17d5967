//! The input of a report.

use std::collections::BTreeMap;

use crate::{
    lab::{
        audit::{self, Finding},
        gates::DecisionRecord,
        measured::MeasuredRun,
        verdict::{ArmJudgement, Judgement},
    },
    run::{Config, suite::Claim, summary::Baselines},
};

/// Name of the entropy of the source among the baselines.
pub(super) const ENTROPY: &str = "entropy of the source";

/// An arm.
#[derive(Clone, Debug)]
pub struct StudyArm {
    /// Its name.
    pub name: String,
    /// Its config, at any seed.
    pub config: Config,
}

/// A planned run without a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub run: String,
    /// Its arm.
    pub arm: String,
    /// Why it has none.
    pub reason: String,
}

/// Verdicts, and where on the runs they were taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// Where, as in "at 250 updates".
    pub place: String,
    /// The name of its figure's file.
    pub figure: String,
    /// The verdicts.
    pub judgement: Judgement,
}

/// A study and what came of it.
#[derive(Clone, Debug)]
pub struct Study {
    /// Its name: that of its file.
    pub name: String,
    /// The question.
    pub question: String,
    /// The arms, in the order of the study; the first is the control.
    pub arms: Vec<StudyArm>,
    /// The runs that can be read.
    pub runs: Vec<MeasuredRun>,
    /// The others.
    pub missing: Vec<Missing>,
    /// The verdicts: first those at the end of the runs, then those on arms that gates stopped, where they were stopped.
    pub judged: Vec<Judged>,
    /// Name and last update of each stage.
    pub stages: Vec<(String, u32)>,
    /// What others have concluded, by name.
    pub claims: BTreeMap<String, Claim>,
    /// What gates decided.
    pub decisions: Vec<DecisionRecord>,
    /// What the audit found; `None` if there was none.
    pub findings: Option<Vec<Finding>>,
    /// Commands that repeat the study, in order.
    pub commands: Vec<String>,
}

impl Study {
    /// The findings that forbid an answer.
    pub fn unresolved(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().flatten().filter(|finding| finding.is_unresolved())
    }

    /// The name of the control.
    pub fn control(&self) -> &str {
        self.arms.first().map_or("", |arm| arm.name.as_str())
    }

    /// The runs of an arm.
    pub fn runs_of<'a>(&'a self, arm: &'a str) -> impl Iterator<Item = &'a MeasuredRun> {
        self.runs.iter().filter(move |run| run.arm == arm)
    }

    /// The arms about which a finding forbids a verdict.
    pub(super) fn withheld(&self) -> Vec<&str> {
        let arms: Vec<&str> = self.arms.iter().map(|arm| arm.name.as_str()).collect();
        audit::without_verdict(self.findings.as_deref().unwrap_or_default(), &arms)
    }

    /// The verdicts, unless findings forbid all of them. Those on the arms that are [`withheld`](Study::withheld) are not to be shown.
    pub(super) fn verdicts(&self) -> &[Judged] {
        let withheld = self.withheld();
        let mut others = self.arms.iter().skip(1).peekable();
        let is_any = others.peek().is_none() || others.any(|arm| !withheld.contains(&arm.name.as_str()));
        if is_any && !withheld.contains(&self.control()) { &self.judged } else { &[] }
    }

    /// The verdict on an arm, and where it was taken; `None` if it is withheld.
    pub(super) fn verdict_of(&self, arm: &str) -> Option<(&Judged, &ArmJudgement)> {
        if self.withheld().contains(&arm) {
            return None;
        }
        let find = |judged: &'_ Judged| judged.judgement.arms.iter().position(|judged| judged.name == arm);
        let verdicts = self.verdicts();
        let (place, found) = verdicts.iter().enumerate().find_map(|(place, judged)| Some((place, find(judged)?)))?;
        Some((&verdicts[place], &verdicts[place].judgement.arms[found]))
    }

    /// Name, mean, lowest and highest value of each baseline over the runs of the control: seeds may differ in their data.
    pub(super) fn baselines(&self) -> Vec<(&'static str, [f64; 3])> {
        let known: Vec<Baselines> = self.runs_of(self.control()).filter_map(|run| run.summary.as_ref()?.baselines).collect();
        let names = ["uniform", "unigram", "bigram", ENTROPY];
        let value = |baselines: &Baselines, name: &str| match name {
            ENTROPY => baselines.entropy,
            name => baselines.named().find(|(other, _)| *other == name).map(|(_, value)| value),
        };
        let over = |name: &'static str| {
            let values: Vec<f64> = known.iter().filter_map(|baselines| value(baselines, name)).collect();
            let [low, high] = values.iter().fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], v| [low.min(*v), high.max(*v)]);
            (!values.is_empty()).then(|| (name, [values.iter().sum::<f64>() / values.len() as f64, low, high]))
        };
        names.into_iter().filter_map(over).collect()
    }
}
