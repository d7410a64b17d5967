//! `moelab gates`: the dry run of a gate's rule on runs that have been made.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use moelab::{
    lab::{
        gates::{
            Course, Decision, Verdict, decide_each,
            economy::{self, Runs, Truth},
            halving,
        },
        reader::Reader,
        verdict::Spec,
    },
    run::gates::{GateOptions, GateRule, load},
};
use moelab_native::{out, print, store::Directory};
use serde_json::json;

use crate::{Common, open};

/// Show what a rule would have decided about finished runs, at each evaluation.
#[derive(Args)]
pub struct GatesArgs {
    /// Run folders.
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The run that they are compared with; for halving, a run of the control.
    #[arg(long, value_name = "RUN")]
    reference: Option<PathBuf>,
    /// The rule: stop_promote, gap, halving, early_stopping or half_parameters.
    #[arg(long, default_value = "stop_promote")]
    rule: String,
    /// Set one option of the rule, for example gates.stop.min_gain=0.01. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Replay whole policies instead, with the rule at the end of stages: what each would have cost and answered. Needs every run made to
    /// its end, with the same seeds in every arm; runs that differ only in the seed are named ARM-sSEED.
    #[arg(long, requires = "reference")]
    economy: bool,
    /// Updates at which the stages before the last end, for --economy.
    #[arg(long, value_delimiter = ',', value_name = "UPDATES", requires = "economy")]
    stages: Vec<u32>,
    /// The smallest difference that counts as better, for --economy.
    #[arg(long, default_value_t = Spec::default().margin, requires = "economy")]
    margin: f64,
}

/// A run and what halving needs to know of it.
struct Run {
    course: Course,
    seed: u64,
}

/// Prints each decision, its reason and its numbers.
pub fn gates(common: &Common, args: &GatesArgs) -> Result<()> {
    let sets: Vec<String> = [format!("gates.rule={}", args.rule)].into_iter().chain(args.sets.iter().cloned()).collect();
    let options = load(&sets)?;
    let runs = args.runs.iter().map(|run| read(run)).collect::<Result<Vec<Run>>>()?;
    let reference = args.reference.as_deref().map(read).transpose()?;
    if let (true, Some(reference)) = (args.economy, &reference) {
        return economy(common, args, &options, &runs, reference);
    }
    if options.rule == GateRule::Halving {
        return halving(common, &options, &runs, reference.as_ref());
    }
    for run in &runs {
        for decision in decide_each(&options, &run.course, reference.as_ref().map(|reference| &reference.course)) {
            show(common, &run.course.name, &decision);
        }
    }
    Ok(())
}

/// The arm of a run: its name without the seed.
fn arm_of(run: &Run) -> String {
    run.course.name.strip_suffix(&format!("-s{}", run.seed)).unwrap_or(&run.course.name).to_owned()
}

/// Replays policies on the runs.
fn economy(common: &Common, args: &GatesArgs, options: &GateOptions, runs: &[Run], reference: &Run) -> Result<()> {
    let mut arms: BTreeMap<String, Runs> = BTreeMap::new();
    for run in runs.iter().chain([reference]) {
        arms.entry(arm_of(run)).or_default().insert(run.seed, run.course.clone());
    }
    let control = arms.remove(&arm_of(reference)).unwrap_or_default();
    let mut stages = args.stages.clone();
    stages.sort_unstable();
    let truth = Truth { control, arms, stages };
    let spec = Spec { margin: args.margin, ..Spec::default() };
    let rows = economy::economy(&truth, options, &spec)?;
    if common.json {
        rows.iter().for_each(print::json);
    } else {
        out!("{}", economy::to_markdown(&rows).trim_end());
    }
    Ok(())
}

/// Decides at every number of updates at which all runs were evaluated. Runs that differ only in the seed, by their names
/// `ARM-sSEED`, are one arm.
fn halving(common: &Common, options: &GateOptions, runs: &[Run], reference: Option<&Run>) -> Result<()> {
    let control = reference.map(arm_of);
    let all: Vec<&Run> =
        runs.iter().chain(reference.filter(|reference| runs.iter().all(|run| run.course.name != reference.course.name))).collect();
    let first = all.first().context("no runs")?;
    let common_updates = first.course.evals.iter().map(|eval| eval.update);
    let rungs: Vec<u32> = common_updates.filter(|update| all.iter().all(|run| run.course.at(*update).is_some())).collect();
    ensure!(!rungs.is_empty(), "the runs have no evaluation at the same number of updates");
    for update in rungs {
        let losses = all.iter().filter_map(|run| Some((arm_of(run), run.seed, run.course.at(update)?.val_ce)));
        let arms = halving::arms(losses, control.as_deref());
        for (arm, decision) in arms.iter().zip(halving::rung(&options.halving, &arms, update)) {
            show(common, &arm.name, &decision);
        }
    }
    Ok(())
}

fn read(folder: &Path) -> Result<Run> {
    let config = open::config_of_run(folder, &[])?;
    let store = Directory::read_only(folder).with_context(|| print::path(folder))?;
    let course = Course::read(&open::name(folder), &Reader::open(&store)?, &config).with_context(|| print::path(folder))?;
    Ok(Run { course, seed: config.seed })
}

fn show(common: &Common, run: &str, decision: &Decision) {
    if common.json {
        print::json(&json!({
            "run": run, "update": decision.update, "rule": decision.rule, "verdict": decision.verdict, "reason": decision.reason,
            "numbers": decision.numbers,
        }));
        return;
    }
    let verdict = match decision.verdict {
        Verdict::Stop => "stop",
        Verdict::Promote => "promote",
        Verdict::Wait => "wait",
    };
    out!("{}  update {}  {verdict}: {}", print::name(run), decision.update, print::name(&decision.reason));
    for number in &decision.numbers {
        let threshold = number.threshold.map(|threshold| format!("  (threshold {threshold})")).unwrap_or_default();
        out!("    {:32} {:>12.6}{threshold}", number.name, number.value);
    }
}
