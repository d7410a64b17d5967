//! Comparing finished runs: what differs, what the runs reached with equal means, and what may be concluded.
//!
//! Runs with equal settings but for the seed are repeats of one *group*, named after its first run. The first group is the control: the others
//! are compared with it in pairs of equal seeds ([`verdict`]), with the values that all had at an equal number of updates,
//! tokens, floating-point operations or seconds ([`matched`](super::matched)). Groups are never ranked, and the [audit] of
//! the runs withholds the verdict on a group that a refusal is about. A difference is never attributed to one
//! key when several differ: the keys and what follows from them are listed.
//!
//! Long because a comparison, its text, its record and its figures are one thing.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    audit::{self, Finding, OverrideError, Severity, study::Measured},
    chart::{
        curves::{ArmCurves, Curves},
        intervals::{ArmInterval, Intervals},
        signed,
    },
    figure::Figure,
    matched::{Evaluation, Matched, last_at, time_to, unit},
    measured::MeasuredRun,
    verdict::{self, Better, Judgement, Spec},
};
use crate::{
    config_file::{self, Class, Settings},
    run::{
        identity::{self, Change},
        model::cost,
        schedule::balance_coefficient,
        suite::{self, Axis},
    },
};

/// How runs are compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// What the runs are given the same amount of.
    pub at: Axis,
    /// How much of it; by default what all runs have reached.
    pub x: Option<f64>,
    /// A loss whose first arrival is looked for.
    pub target: Option<f64>,
    /// The smallest difference that would change a decision, nats per token.
    pub margin: f64,
    /// Why findings of the audit do not matter, by check, or by check and subject ([`audit::apply_overrides`]).
    pub overrides: BTreeMap<String, String>,
}

/// Repeats: runs with equal settings but for the seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Group {
    /// Name of its first run, without the seed.
    pub name: String,
    /// Its runs.
    pub runs: Vec<String>,
    /// Their seeds.
    pub seeds: Vec<u64>,
    /// The settings in which it differs from the control.
    pub differences: Vec<Change>,
    #[serde(skip)]
    members: Vec<usize>,
}

/// A quantity that follows from the settings, in each group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Derived {
    /// What it is.
    pub name: &'static str,
    /// Its value in each group.
    pub values: Vec<f64>,
}

impl Derived {
    fn differs(&self) -> bool {
        self.values.windows(2).any(|pair| pair[0] != pair[1])
    }
}

/// When a run reached the target.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimeToTarget {
    /// The run.
    pub run: String,
    /// Where; `None` if it never did.
    pub x: Option<f64>,
    /// In words.
    pub sentence: String,
}

/// What a comparison shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    /// What the runs were given the same amount of.
    pub at: Axis,
    /// How much of it.
    pub x: Option<f64>,
    /// The groups; the first is the control.
    pub groups: Vec<Group>,
    /// Quantities that follow from the settings.
    pub derived: Vec<Derived>,
    /// The value of each run there.
    pub values: Vec<RunValue>,
    /// The verdicts, if there are at least two groups.
    pub judgement: Option<Judgement>,
    /// Times to the target.
    pub times: Vec<TimeToTarget>,
    /// Reasons not to take the comparison at face value.
    pub warnings: Vec<String>,
    /// What the audit found in the runs and their configs.
    pub findings: Vec<Finding>,
    /// The groups on which no verdict may be printed, because a refusal of the audit is about them.
    pub without_verdict: Vec<String>,
}

/// A run's value at the common position.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunValue {
    /// The run.
    pub run: String,
    /// Its group.
    pub group: String,
    /// Its seed.
    pub seed: u64,
    /// Position of the evaluation, and the loss; `None` if it did not get there.
    pub evaluation: Option<Evaluation>,
}

/// Compares runs; the first one's group is the control.
///
/// # Errors
/// An override of something that is no check.
pub fn compare(runs: &[MeasuredRun], options: &Options) -> Result<Compared, OverrideError> {
    let groups = groups(runs);
    let evaluations: Vec<Vec<Evaluation>> = runs.iter().map(|run| evaluations(run, options.at)).collect();
    let reached = evaluations.iter().map(|evals| evals.last().map(|last| last.x));
    let common = reached.clone().flatten().min_by(f64::total_cmp);
    let x = options.x.or(common);
    let value = |run: usize| {
        let last = evaluations[run].last()?;
        let evaluation = last_at(&evaluations[run], x?)?;
        (last.x >= x?).then_some(evaluation)
    };
    let group_of = |run: usize| groups.iter().find(|group| group.members.contains(&run)).map_or("", |group| &group.name);
    let values: Vec<RunValue> = (0..runs.len())
        .map(|run| RunValue { run: runs[run].id.clone(), group: group_of(run).into(), seed: runs[run].seed, evaluation: value(run) })
        .collect();
    let judgement = judge(runs, &groups, &values, options);
    let times = options.target.map_or(Vec::new(), |target| {
        runs.iter().zip(&evaluations).map(|(run, evaluations)| arrival(run, evaluations, target, options.at)).collect()
    });
    let mut warnings = warnings(runs, &groups, options.at);
    warnings.extend(values.iter().filter(|value| value.evaluation.is_none()).map(|value| {
        let x = x.map_or("there".into(), |x| format!("{x} {}", unit(options.at)));
        format!("{} has no evaluation by {x}, or did not get that far: it is left out", value.run)
    }));
    let mut findings = audited(runs, &groups);
    audit::apply_overrides(&mut findings, &options.overrides)?;
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
    let without_verdict = audit::without_verdict(&findings, &names).into_iter().map(str::to_owned).collect();
    let derived = derived(runs, &groups);
    Ok(Compared { at: options.at, x, derived, groups, values, judgement, times, warnings, findings, without_verdict })
}

/// What the audit finds in the groups as arms of a study that declare all their differences.
fn audited(runs: &[MeasuredRun], groups: &[Group]) -> Vec<Finding> {
    let arm = |group: &Group| audit::Arm {
        name: group.name.clone(),
        config: runs[group.members[0]].config.clone(),
        changes: group.differences.iter().map(|change| (change.key.clone(), change.to.clone())).collect(),
    };
    let measured = |group: &Group| -> Vec<Measured> {
        let of_group = |index: &usize| Measured { arm: group.name.clone(), ..Measured::from(&runs[*index]) };
        group.members.iter().map(of_group).collect()
    };
    let study = audit::Study {
        arms: groups.iter().map(arm).collect(),
        runs: groups.iter().flat_map(measured).collect(),
        ..audit::Study::default()
    };
    audit::all(&study)
}

/// The settings that make two runs repeats: all but the seed and what training does not depend on.
fn settings(run: &MeasuredRun) -> Settings {
    let mut settings = config_file::settings(&run.config);
    settings.remove(&Class::Bookkeeping);
    settings.values_mut().for_each(|keys| {
        keys.remove("seed");
    });
    settings.retain(|_, keys| !keys.is_empty());
    settings
}

fn groups(runs: &[MeasuredRun]) -> Vec<Group> {
    let all: Vec<Settings> = runs.iter().map(settings).collect();
    let mut groups: Vec<Group> = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        if let Some(group) = groups.iter_mut().find(|group| all[group.members[0]] == all[index]) {
            group.members.push(index);
            group.runs.push(run.id.clone());
            group.seeds.push(run.seed);
            continue;
        }
        let differences = identity::changes(&all[0], &all[index], 0);
        let taken = groups.iter().filter(|group| group.name == run.arm || group.name.starts_with(&format!("{}#", run.arm))).count();
        let name = if taken == 0 { run.arm.clone() } else { format!("{}#{}", run.arm, taken + 1) };
        groups.push(Group { name, runs: vec![run.id.clone()], seeds: vec![run.seed], differences, members: vec![index] });
    }
    groups
}

fn evaluations(run: &MeasuredRun, at: Axis) -> Vec<Evaluation> {
    run.evals.iter().map(|eval| Evaluation { x: eval.x(at), value: eval.val_ce }).collect()
}

fn arrival(run: &MeasuredRun, evaluations: &[Evaluation], target: f64, at: Axis) -> TimeToTarget {
    let reached = time_to(evaluations, target, Better::Lower);
    let never = || {
        let best = run.best().map_or(String::new(), |best| format!("; its best is {:.4}", best.val_ce));
        format!("{} does not reach val_ce {target}{best}.", run.id)
    };
    let sentence = reached.map_or_else(never, |reached| reached.sentence(&run.id, "val_ce", target, at));
    TimeToTarget { run: run.id.clone(), x: reached.map(|reached| reached.x), sentence }
}

/// Data, number of targets: values with different ones are different measurements.
fn evaluator(run: &MeasuredRun) -> String {
    let targets = run.last().map_or(0, |eval| eval.targets);
    let data = run.summary.as_ref().map_or("", |summary| summary.data_sha256.get(..12).unwrap_or_default());
    format!("{targets} targets of data {data}")
}

fn judge(runs: &[MeasuredRun], groups: &[Group], values: &[RunValue], options: &Options) -> Option<Judgement> {
    let arm = |group: &Group| {
        let of = |index: &usize| (runs[*index].seed, values[*index].evaluation.map(|evaluation| evaluation.value));
        let mut arm = verdict::Arm::new(&group.name, group.members.iter().map(of));
        let weights = |index: &usize| Some((runs[*index].seed, runs[*index].summary.as_ref()?.weights_sha256.clone()?));
        arm.weights = group.members.iter().filter_map(weights).collect();
        arm.best = group.members.iter().filter_map(|index| Some((runs[*index].seed, runs[*index].best()?.val_ce))).collect();
        arm.evaluation = group.members.first().map(|index| evaluator(&runs[*index])).unwrap_or_default();
        arm
    };
    let [control, others @ ..] = groups else { return None };
    if others.is_empty() {
        return None;
    }
    let spec = Spec { margin: options.margin, ..Spec::default() };
    let comparison = verdict::Comparison { spec, control: arm(control), arms: others.iter().map(arm).collect(), key: None };
    Some(verdict::judge(&comparison))
}

/// What follows from the settings.
fn derived(runs: &[MeasuredRun], groups: &[Group]) -> Vec<Derived> {
    let configs = || groups.iter().map(|group| &runs[group.members[0]].config);
    let row = |name: &'static str, value: &dyn Fn(&crate::run::Config) -> f64| Derived { name, values: configs().map(value).collect() };
    let counts = |config: &crate::run::Config| cost::counts(&config.model, &config.parameters());
    let multipliers = |config: &crate::run::Config| {
        let schedule = config.learning_rates();
        (0..config.train.updates).map(move |done| schedule.at_update(done))
    };
    vec![
        row("parameters", &|config| counts(config).total as f64),
        row("active parameters per token", &|config| counts(config).active as f64),
        row("tokens per update", &|config| config.tokens_per_update() as f64),
        row("updates", &|config| f64::from(config.train.updates)),
        row("tokens", &|config| config.tokens_per_update() as f64 * f64::from(config.train.updates)),
        row("FLOP", &|config| suite::flop_per_update(config) * f64::from(config.train.updates)),
        row("updates of warm-up", &|config| {
            let schedule = config.learning_rates();
            (0..config.train.updates).take_while(|done| !schedule.is_warm(*done)).count() as f64
        }),
        row("last learning-rate multiplier", &|config| multipliers(config).next_back().unwrap_or_default()),
        row("sum of learning-rate multipliers", &|config| multipliers(config).sum()),
        row("sum of Muon's learning rates", &|config| config.optimizer.muon.lr * multipliers(config).sum::<f64>()),
        row("last balance coefficient", &|config| {
            balance_coefficient(&config.model.balance, config.train.updates.saturating_sub(1), config.train.updates)
        }),
    ]
}

fn warnings(runs: &[MeasuredRun], groups: &[Group], at: Axis) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut distinct = |what: &str, of: &dyn Fn(&MeasuredRun) -> Option<String>, consequence: &str| {
        let mut values: Vec<String> = runs.iter().filter_map(of).filter(|value| !value.is_empty()).collect();
        values.sort();
        values.dedup();
        if values.len() > 1 {
            warnings.push(format!("{what} differ ({}): {consequence}", values.join(", ")));
        }
    };
    let of = |value: fn(&crate::run::summary::Summary) -> &str| move |run: &MeasuredRun| run.summary.as_ref().map(|s| value(s).to_string());
    let bits = "equal bits are not guaranteed";
    let seconds = if at == Axis::Seconds { "seconds are not comparable" } else { bits };
    distinct("adapters", &of(|summary| &summary.adapter), seconds);
    distinct("drivers", &of(|summary| &summary.driver), bits);
    distinct("releases of moelab", &of(|summary| &summary.version), bits);
    distinct("tokenizers", &of(|summary| summary.tokenizer_sha256.get(..12).unwrap_or_default()), "losses per token are not comparable");
    distinct("evaluations", &|run| Some(evaluator(run)), "their values are different measurements");
    let updates = |run: &MeasuredRun| Some(format!("{} updates", run.config.train.updates));
    distinct("planned lengths", &updates, "at an equal position the runs are at different parts of their schedules");
    for run in runs {
        match &run.summary {
            None => warnings.push(format!("{} has not ended", run.id)),
            Some(summary) => {
                if summary.exit.exit_code() != 0 {
                    warnings.push(format!("{} {}", run.id, summary.exit.words()));
                }
                if summary.skipped_updates > 0 {
                    warnings.push(format!("{} skipped {} updates for a value that was not finite", run.id, summary.skipped_updates));
                }
                if summary.rollbacks > 0 {
                    warnings.push(format!("{} rolled back {} times", run.id, summary.rollbacks));
                }
                if let Some(update) = summary.blew_up_at {
                    warnings.push(format!("{} blew up at update {update}", run.id));
                }
                for change in &summary.changes {
                    warnings.push(format!("{} was changed during the run, after update {}: {change}", run.id, change.update));
                }
            }
        }
    }
    for group in groups {
        let mut seeds = group.seeds.clone();
        seeds.sort_unstable();
        let doubled: Vec<String> = seeds.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0].to_string()).collect();
        if !doubled.is_empty() {
            warnings.push(format!("{} has several runs of seed {}: only the last of them is paired", group.name, doubled.join(", ")));
        }
        if group.differences.len() > 1 {
            let keys: Vec<&str> = group.differences.iter().map(|change| change.key.as_str()).collect();
            warnings.push(format!("{} differs in {}: no difference is attributed to one of them", group.name, keys.join(", ")));
        }
    }
    warnings
}

impl Compared {
    /// The comparison as text, a line an item.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (index, group) in self.groups.iter().enumerate() {
            let seeds: Vec<String> = group.seeds.iter().map(u64::to_string).collect();
            let role = if index == 0 { ", the control" } else { "" };
            lines.push(format!("{} ({} of seed {}){role}", group.name, plural(group.runs.len(), "run"), seeds.join(", ")));
            if index > 0 && group.differences.is_empty() {
                lines.push("  no setting differs".into());
            }
            lines.extend(group.differences.iter().map(|change| format!("  {change}")));
        }
        let derived: Vec<&Derived> = self.derived.iter().filter(|derived| derived.differs()).collect();
        if !derived.is_empty() {
            lines.push(String::new());
            lines.push("what follows from the settings and differs:".into());
            lines.extend(derived.into_iter().map(|derived| {
                let values: Vec<String> =
                    self.groups.iter().zip(&derived.values).map(|(g, v)| format!("{} {}", g.name, short(*v))).collect();
                format!("  {}: {}", derived.name, values.join(", "))
            }));
        }
        lines.push(String::new());
        lines.extend(self.pair_lines());
        let withheld = self.withheld();
        if let Some(judgement) = self.shown() {
            lines.push(String::new());
            lines.extend(judgement.sentences());
        }
        lines.extend(
            withheld.iter().map(|group| format!("{group}: no verdict, because the audit refuses a conclusion about it, see below")),
        );
        if !self.times.is_empty() {
            lines.push(String::new());
            lines.extend(self.times.iter().map(|time| time.sentence.clone()));
        }
        if !self.warnings.is_empty() {
            lines.push(String::new());
            lines.push("warnings:".into());
            lines.extend(self.warnings.iter().map(|warning| format!("  {warning}")));
        }
        let mut told = self.findings.iter().filter(|finding| finding.severity > Severity::Note).peekable();
        if told.peek().is_some() {
            lines.push(String::new());
            lines.push("audit:".into());
            lines.extend(told.map(|finding| format!("  {finding}")));
        }
        lines
    }

    fn withheld(&self) -> Vec<&str> {
        self.without_verdict.iter().map(String::as_str).collect()
    }

    /// The verdicts that the audit does not refuse; `None` if there are none.
    fn shown(&self) -> Option<Judgement> {
        let (judgement, withheld) = (self.judgement.as_ref()?, self.withheld());
        let shown = judgement.without(&withheld);
        (!shown.arms.is_empty() && !withheld.contains(&shown.control.name.as_str())).then_some(shown)
    }

    /// Each pair of runs of one seed, or each value if there is no pair.
    fn pair_lines(&self) -> Vec<String> {
        let Some(x) = self.x else { return vec!["no run has an evaluation".into()] };
        let mut lines = Vec::new();
        let control = self.groups.first().map_or("", |group| &group.name);
        for value in self.values.iter().filter(|value| value.group != control) {
            let partner = self.values.iter().find(|other| other.group == control && other.seed == value.seed);
            let pair = partner
                .and_then(|partner| Some((partner, Matched { axis: self.at, x, evaluations: [value.evaluation?, partner.evaluation?] })));
            lines.extend(
                pair.map(|(partner, matched)| format!("seed {}: {}", value.seed, matched.sentence("val_ce", [&value.run, &partner.run]))),
            );
        }
        if lines.is_empty() {
            let said = |value: &RunValue| Some(format!("{}: val_ce {:.4} by {x} {}", value.run, value.evaluation?.value, unit(self.at)));
            lines.extend(self.values.iter().filter_map(said));
        }
        lines
    }

    /// The curves of the groups on the axis of the comparison.
    pub fn curves(&self, runs: &[MeasuredRun]) -> Figure {
        let arm = |(index, group): (usize, &Group)| {
            let seed = |run: &usize| evaluations(&runs[*run], self.at).iter().map(|eval| [eval.x, eval.value]).collect();
            ArmCurves { name: group.name.clone(), index, seeds: group.members.iter().map(seed).collect() }
        };
        let baselines = runs.first().and_then(|run| run.summary.as_ref()?.baselines);
        let same = runs.iter().all(|run| run.summary.as_ref().and_then(|summary| summary.baselines) == baselines);
        let mut levels: Vec<(String, f64)> = Vec::new();
        if let Some(baselines) = baselines.filter(|_| same) {
            levels.extend(baselines.named().map(|(name, value)| (name.to_string(), value)));
            levels.extend(baselines.entropy.map(|entropy| ("entropy of the source".to_string(), entropy)));
        }
        let names: Vec<&str> = self.groups.iter().map(|group| group.name.as_str()).collect();
        let chart = Curves {
            title: names.join(" and "),
            subtitle: "line: mean over seeds; band: lowest to highest seed".into(),
            y_title: "validation cross-entropy, nats per token".into(),
            x_title: unit(self.at).into(),
            arms: self.groups.iter().enumerate().map(arm).collect(),
            levels,
            ..Curves::default()
        };
        chart.figure()
    }

    /// The intervals of the groups, if there are verdicts.
    pub fn intervals(&self) -> Option<Figure> {
        let judgement = self.shown()?;
        let row = |arm: &verdict::ArmJudgement| ArmInterval {
            name: arm.name.clone(),
            index: self.groups.iter().position(|group| group.name == arm.name).unwrap_or_default(),
            pairs: arm.pairs.iter().map(|pair| pair.difference).collect(),
            mean: arm.mean,
            interval: arm.interval,
            verdict: arm.verdict.words().into(),
        };
        let chart = Intervals {
            title: format!("Difference to {}", judgement.control.name),
            subtitle: format!("mean and interval, valid however often one looks; by {} {}", self.x.unwrap_or_default(), unit(self.at)),
            x_title: "validation cross-entropy, nats per token: left is better".into(),
            margin: judgement.spec.margin,
            arms: judgement.arms.iter().map(row).collect(),
        };
        Some(chart.figure())
    }
}

fn plural(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

fn short(value: f64) -> String {
    match value {
        value if value.fract() == 0.0 && value.abs() < 1e6 => format!("{value}"),
        value if value.abs() >= 1e6 => format!("{value:.4e}"),
        value => signed(value, 4).trim_start_matches('+').to_string(),
    }
}
