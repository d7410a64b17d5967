//! The figures of a report, each with its numbers as a table.

use std::collections::BTreeMap;

use super::{
    document::{Block, Table, Text, code, file_name, plain},
    sections::{number, words},
    study::{Judged, Study, StudyArm},
};
use crate::lab::{
    chart::{
        curves::{ArmCurves, Curves, Moment},
        heat::HeatMaps,
        intervals::{ArmInterval, Intervals},
        rates::{Rate, Rates},
        signed,
    },
    export::name_of,
    gates,
    measured::MeasuredRun,
    verdict::{Better, Judgement},
};

/// Rows of the table of a chart over updates.
const TABLE_ROWS: usize = 10;
/// Decisions that are marked in a chart.
const MARKED_DECISIONS: usize = 12;
/// Runs whose heat map is in the report; the others can be drawn with `moelab compare`.
const MAPS: usize = 12;
/// Points of a planned schedule.
const SCHEDULE_POINTS: u32 = 400;

/// The intervals of the arms, wherever they were compared.
pub(super) fn intervals(study: &Study) -> Vec<Block> {
    let withheld = study.withheld();
    let shown = study.verdicts().iter().map(|judged| (judged, judged.judgement.without(&withheld)));
    shown.filter(|(_, shown)| !shown.arms.is_empty()).map(|(judged, shown)| intervals_of(study, judged, &shown)).collect()
}

/// The intervals of the arms in `judgement`, which may be fewer than were judged together.
fn intervals_of(study: &Study, judged: &Judged, judgement: &Judgement) -> Block {
    let (spec, control) = (&judgement.spec, &judgement.control.name);
    let index = |name: &str| study.arms.iter().position(|arm| arm.name == name).unwrap_or_default();
    let arms = judgement.arms.iter().map(|arm| ArmInterval {
        name: arm.name.clone(),
        index: index(&arm.name),
        pairs: arm.pairs.iter().map(|pair| pair.difference).collect(),
        mean: arm.mean,
        interval: arm.interval,
        verdict: arm.verdict.words().into(),
    });
    let side = if spec.better == Better::Lower { "left is better" } else { "right is better" };
    let chart = Intervals {
        title: format!("Difference of each arm to {control}"),
        subtitle: format!(
            "mean and interval at alpha {} / {}, valid however often one looks; ticks: each pair of runs",
            spec.alpha,
            judged.judgement.arms.len()
        ),
        x_title: format!("{}, arm minus {control}, {}: {side}", spec.metric, judged.place),
        margin: spec.margin,
        arms: arms.collect(),
    };
    let pair = |arm: &crate::lab::verdict::ArmJudgement| {
        let row = |pair: &crate::lab::verdict::Pair| {
            let value = |value: f64| plain(format!("{value:.4}"));
            vec![code(&arm.name), plain(pair.seed.to_string()), value(pair.control), value(pair.arm), plain(signed(pair.difference, 4))]
        };
        arm.pairs.iter().map(row).collect::<Vec<_>>()
    };
    let numbers = Table {
        caption: "Each pair of runs.".into(),
        columns: vec![words("arm"), number("seed"), number(control), number("arm's value"), number("difference")],
        rows: judgement.arms.iter().flat_map(pair).collect(),
    };
    let caption = format!(
        "A difference is clear if its interval excludes 0, and equivalent within the margin of {} if it lies inside the grey band.",
        spec.margin
    );
    Block::Figure { name: judged.figure.clone(), figure: chart.figure(), caption, numbers }
}

/// The validation losses over updates: the whole runs, and their last half enlarged.
pub(super) fn curves(study: &Study) -> Vec<Block> {
    let whole = validation(study);
    let last = whole.arms.iter().flat_map(|arm| &arm.seeds).flatten().map(|point| point[0]).fold(0.0, f64::max);
    let numbers = curve_table(&whole.arms);
    let caption = "Line: mean over the seeds of an arm, where all of them were measured; band: lowest to highest seed; faint: each seed.";
    let mut blocks = vec![Block::Figure { name: "curves".into(), figure: whole.figure(), caption: caption.into(), numbers }];
    if last >= 4.0 {
        let half = Curves {
            title: "The last half, enlarged".into(),
            window: Some([(last / 2.0).floor(), last]),
            schedule: Vec::new(),
            decisions: Vec::new(),
            ..whole
        };
        blocks.push(Block::Figure {
            name: "curves-end".into(),
            figure: half.figure(),
            caption: "The same curves from half of the updates on, on an axis of their own.".into(),
            numbers: Table::default(),
        });
    }
    blocks
}

fn validation(study: &Study) -> Curves {
    let arm = |(index, arm): (usize, &StudyArm)| {
        let seed = |run: &MeasuredRun| run.evals.iter().map(|eval| [f64::from(eval.update), eval.val_ce]).collect();
        let seeds: Vec<Vec<[f64; 2]>> = study.runs_of(&arm.name).map(seed).filter(|seed: &Vec<_>| !seed.is_empty()).collect();
        (!seeds.is_empty()).then(|| ArmCurves { name: arm.name.clone(), index, seeds })
    };
    let decision = |record: &gates::DecisionRecord| {
        let text = format!("{} {}: {}", record.run, past(record.decision.verdict), record.decision.reason);
        Moment { at: f64::from(record.decision.update), text }
    };
    let made = study.decisions.iter().filter(|record| record.decision.verdict != gates::Verdict::Wait);
    let levels = study.baselines().into_iter().map(|(name, [mean, ..])| (name.to_string(), mean)).collect();
    let control = study.runs_of(study.control()).next();
    Curves {
        title: format!("{}: validation loss by update", study.name),
        subtitle: "line: mean over seeds; band: lowest to highest seed".into(),
        y_title: "validation cross-entropy, nats per token".into(),
        x_title: "update".into(),
        arms: study.arms.iter().enumerate().filter_map(arm).collect(),
        levels,
        epochs: control.map_or(Vec::new(), |run| run.epoch_ends()),
        stages: study.stages.iter().map(|(name, at)| Moment { at: f64::from(*at), text: format!("end of {name}") }).collect(),
        decisions: made.take(MARKED_DECISIONS).map(decision).collect(),
        schedule: common_schedule(study),
        ..Curves::default()
    }
}

fn past(verdict: gates::Verdict) -> String {
    match verdict {
        gates::Verdict::Stop => "stopped".into(),
        gates::Verdict::Promote => "promoted".into(),
        gates::Verdict::Wait => name_of(&verdict),
    }
}

/// The planned schedule, if all arms have the same.
fn common_schedule(study: &Study) -> Vec<[f64; 2]> {
    let mut plans = study.arms.iter().map(planned);
    let Some(first) = plans.next() else { return Vec::new() };
    if plans.all(|other| other == first) { first } else { Vec::new() }
}

/// The planned multiplier on the learning rates at updates of an arm, the first being 1.
fn planned(arm: &StudyArm) -> Vec<[f64; 2]> {
    let schedule = arm.config.learning_rates();
    let step = (arm.config.train.updates / SCHEDULE_POINTS).max(1);
    (1..=arm.config.train.updates).step_by(step as usize).map(|update| [f64::from(update), schedule.at_update(update - 1)]).collect()
}

/// The means of arms at a few positions.
fn curve_table(arms: &[ArmCurves]) -> Table {
    let bands: Vec<BTreeMap<u64, [f64; 4]>> =
        arms.iter().map(|arm| arm.band().into_iter().map(|point| (point[0] as u64, point)).collect()).collect();
    let mut positions: Vec<u64> = bands.iter().flat_map(BTreeMap::keys).copied().collect();
    positions.sort_unstable();
    positions.dedup();
    let step = positions.len().div_ceil(TABLE_ROWS).max(1);
    // The last position is always in the table.
    let mut kept: Vec<u64> = positions.iter().rev().step_by(step).copied().collect();
    kept.reverse();
    let row = |at: u64| {
        let cell = |band: &BTreeMap<u64, [f64; 4]>| {
            plain(band.get(&at).map_or(String::new(), |[_, mean, low, high]| match low == high {
                true => format!("{mean:.4}"),
                false => format!("{mean:.4} ({low:.4} to {high:.4})"),
            }))
        };
        std::iter::once(plain(at.to_string())).chain(bands.iter().map(cell)).collect::<Vec<Text>>()
    };
    Table {
        caption: "Mean over seeds (lowest to highest seed), nats per token.".into(),
        columns: std::iter::once(number("update")).chain(arms.iter().map(|arm| number(&arm.name))).collect(),
        rows: kept.into_iter().map(row).collect(),
    }
}

/// The loads of experts over time: of the first run of each arm.
pub(super) fn loads(study: &Study) -> Vec<Block> {
    let first = |arm: &StudyArm| {
        let run = study.runs_of(&arm.name).find(|run| run.load.is_some())?;
        let block = run.load.as_ref()?;
        let width = block.buckets.first()?.updates.clone().count();
        let each = if width == 1 { "a column: one update".to_string() } else { format!("a column: the mean of {width} updates") };
        let maps = HeatMaps::new(&format!("Load of the experts of {}", run.id), &each, run.config.model.router_labels(), block)?;
        Some(Block::Figure {
            name: format!("loads-{}", file_name(&run.id)),
            figure: maps.figure(),
            caption: "Share of the assignments that each expert took, as a multiple of a fair share. The scale is the same in every map."
                .into(),
            numbers: load_table(&maps),
        })
    };
    study.arms.iter().filter_map(first).take(MAPS).collect()
}

/// The loads of the last column.
fn load_table(maps: &HeatMaps) -> Table {
    let [layers, experts] = maps.shape;
    let row = |layer: usize| {
        let loads = maps.loads.last().map_or(&[][..], |loads| &loads[layer * experts..(layer + 1) * experts]);
        let [low, high] = loads.iter().fold([f64::INFINITY, 0.0_f64], |[low, high], load| [low.min(*load), high.max(*load)]);
        let dead = loads.iter().filter(|load| **load == 0.0).count();
        vec![plain(maps.name(layer)), plain(format!("{low:.3}")), plain(format!("{high:.3}")), plain(dead.to_string())]
    };
    Table {
        caption: "In the last column: multiples of a fair share, and experts without any token.".into(),
        columns: vec![words("router call"), number("lowest load"), number("highest load"), number("dead experts")],
        rows: (0..layers).map(row).collect(),
    }
}

/// Planned and applied learning rates, arms with equal ones together.
pub(super) fn rates(study: &Study) -> Vec<Block> {
    let mut rates: Vec<Rate> = Vec::new();
    for (index, arm) in study.arms.iter().enumerate() {
        let peak = arm.config.optimizer.muon.lr;
        let planned: Vec<[f64; 2]> = planned(arm).into_iter().map(|[at, share]| [at, share * peak]).collect();
        let run = study.runs_of(&arm.name).max_by_key(|run| run.rates.len());
        let applied: Vec<[f64; 2]> =
            run.map_or(Vec::new(), |run| run.rates.iter().map(|(at, [muon, _])| [f64::from(*at), *muon]).collect());
        match rates.iter_mut().find(|rate| rate.planned == planned && rate.applied == applied) {
            Some(rate) => rate.name += &format!(", {}", arm.name),
            None => rates.push(Rate { name: arm.name.clone(), index, planned, applied }),
        }
    }
    if rates.is_empty() {
        return Vec::new();
    }
    let numbers = rate_table(&rates);
    let control = study.runs_of(study.control()).next();
    let chart = Rates {
        title: "Learning rate".into(),
        subtitle: "dashed: planned by the config; wide and pale: applied, by the log of one run".into(),
        y_title: "learning rate of Muon".into(),
        epochs: control.map_or(Vec::new(), |run| run.epoch_ends()),
        rates,
    };
    let caption = "The learning rate of each arm as planned and as applied. Ticks at the lower axis are ends of epochs.".to_string();
    vec![Block::Figure { name: "rates".into(), figure: chart.figure(), caption, numbers }]
}

/// Planned and applied rates at a few updates.
fn rate_table(rates: &[Rate]) -> Table {
    let mut rows = Vec::new();
    for rate in rates {
        let step = rate.planned.len().div_ceil(5).max(1);
        let mut kept: Vec<&[f64; 2]> = rate.planned.iter().rev().step_by(step).collect();
        kept.reverse();
        for [at, planned] in kept {
            let applied = rate.applied.iter().find(|point| point[0] == *at).map_or(String::new(), |point| format!("{:.3e}", point[1]));
            rows.push(vec![plain(&rate.name), plain(format!("{at}")), plain(format!("{planned:.3e}")), plain(applied)]);
        }
    }
    Table { caption: String::new(), columns: vec![words("arms"), number("update"), number("planned"), number("applied")], rows }
}
